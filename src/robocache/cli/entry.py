"""Where the program begins: from here on an interruption is an exit code."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    try:
        # Typer and what it imports take most of the time until a command begins, which says more about its end.
        from robocache.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
