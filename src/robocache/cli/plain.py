"""Lines and tables where no terminal is: what rich would print there, without its import and at a tenth of its time."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

_ASKS_FOR_MORE = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")  # variables that rich heeds


def plain_stream(*, stderr: bool) -> TextIO | None:
    """Standard output or error if it is no terminal, and nobody asks for what terminals get; else None.

    Args:
        stderr: Which of the two.
    """
    stream = sys.stderr if stderr else sys.stdout
    if stream is None or stream.isatty() or any(name in os.environ for name in _ASKS_FOR_MORE):
        return None
    return stream


def write_line(stream: TextIO, text: str) -> None:
    """Print a line at once, so that whoever follows the output sees it.

    Args:
        stream: From `plain_stream`.
        text: The line.
    """
    stream.write(text + "\n")
    stream.flush()


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str] | None:
    """The lines of a table, or None of one whose cells are not as wide as they have characters.

    Args:
        header: The titles of the columns.
        rows: Their cells.
        left: So many columns are text; the others are numbers, to the right.
    """
    lines = [header, *rows]
    cells = [cell for line in lines for cell in line]
    if not all(cell.isascii() and cell.isprintable() and cell == cell.strip() for cell in cells):
        return None
    widths = [max(1, *map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
