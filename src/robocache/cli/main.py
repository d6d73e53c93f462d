"""The entry point: the commands, and what becomes of an error.

Whatever RoboCache raises on purpose becomes one line on stderr and exit code 2, as does a mistyped option; an
interrupt is 130, a reader that went away (`| head`) 141. A closed stdout (`>&-`) is one that nobody wants to read.
Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from robocache import __version__
from robocache.cli.commands import Commands
from robocache.cli.console import print_error
from robocache.cli.entry import EXIT_INTERRUPTED
from robocache.errors import RoboCacheError

EXIT_ERROR = 2
EXIT_TERMINATED = 143
EXIT_BROKEN_PIPE = 141

# Typer has moved its copy of click between versions; its public exception leads to the base class in all of them.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


class _Commands(TyperGroup):
    """The group of commands: turns exceptions into one line and an exit code, also under a test runner."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": {}})
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds to it

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run; leave through `SystemExit` unless `standalone_mode` is off."""
        try:
            result = super().main(args, standalone_mode=False, **extra)
            sys.stdout.flush()  # the help and the version, which no command prints
        except _UsageError as error:
            if error.format_message():  # type: ignore[attr-defined]  # a bare `robocache` has printed its help, and is one too
                print_error(_one_usage_line(error))
            result = EXIT_ERROR
        except SystemExit as leaving:
            if not isinstance(leaving.__context__, BrokenPipeError):
                raise
            result = EXIT_BROKEN_PIPE  # Rich and Typer leave with 1 then
        except OSError as error:
            result = _unwritable(error)
        if standalone_mode:
            sys.exit(result if isinstance(result, int) else 0)
        return result

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except RoboCacheError as error:
            print_error(str(error))
            raise typer.Exit(EXIT_ERROR) from error
        except KeyboardInterrupt as interrupt:
            print_error("interrupted; nothing partial was left behind")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
        except BrokenPipeError as error:
            raise typer.Exit(EXIT_BROKEN_PIPE) from error
        except OSError as error:
            raise typer.Exit(_unwritable(error)) from error
        return result


app = typer.Typer(
    cls=_Commands,
    name="robocache",
    help="Align, fuse and voxelize robot recordings for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"robocache {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Align, fuse and voxelize robot recordings for training."""


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _exit_when_terminated)
    _open_closed_streams()
    if os.environ.get("COLUMNS", "").strip() == "0":
        del os.environ["COLUMNS"]  # "not known" to those who set it, and to Rich a terminal on which nothing fits
    app()


def _open_closed_streams() -> None:
    """Into nowhere, in and out: the next file that is opened would else get the number of a standard stream."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  till the end


def _unwritable(error: OSError) -> int:
    if error.filename is not None:  # files are opened by rooms that say what is wrong; this one is a bug
        raise error
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    print_error(f"standard output: cannot be written ({error.strerror}); send it somewhere else")
    return EXIT_ERROR


def _exit_when_terminated(_number: int, _frame: FrameType | None) -> None:
    # As an exception, so that what was being written is removed on the way out.
    raise SystemExit(EXIT_TERMINATED)


def _one_usage_line(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "robocache"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message}; see '{command} --help'"
