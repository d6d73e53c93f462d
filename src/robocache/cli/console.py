"""What commands print with: people get tables and progress on a terminal and plain lines elsewhere, machines JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from robocache.cli.plain import plain_stream, table_lines, write_line

# A recording may hold what a terminal obeys, such as ESC; people see it spelled out.
_SPELLED_OUT = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\n")}
PLAIN_WIDTH = 400  # columns of a table that is not on a terminal: wide enough to cut nothing


class Advance(Protocol):
    """Reports one finished step, with what was done."""

    def __call__(self, text: str) -> None:
        """Report."""
        ...


class Printer:
    """One command's output.

    Args:
        json_output: Print one JSON document on stdout and everything else on stderr.
    """

    def __init__(self, *, json_output: bool) -> None:
        self.json_output = json_output

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        _print_line(printable(text), stderr=self.json_output)

    def hint(self, text: str) -> None:
        """Print a line for people on stderr, whatever was asked for."""
        _print_line(printable(text), stderr=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
        """Print a table for people; the first `left` columns are text, the others numbers."""
        header, rows = [printable(title) for title in header], [[printable(cell) for cell in row] for row in rows]
        stream = plain_stream(stderr=self.json_output)
        lines = None if stream is None else table_lines(header, rows, left=left)
        if stream is not None and lines is not None and len(lines[0]) <= PLAIN_WIDTH:
            write_line(stream, "\n".join(lines))
            return
        from robocache.cli.terminal import console, print_table

        print_table(console(stderr=self.json_output), header, rows, left=left)

    def skipped(self, attributes: Mapping[str, object]) -> None:
        """Print what a reader left out, so that nobody looks for it in vain."""
        for name, reason in skipped_streams(attributes).items():
            self.say(f"  left out {name}: {reason}")

    def document(self, document: Mapping[str, object]) -> None:
        """Print the one JSON document, if JSON was asked for. NaN and infinity become null."""
        if self.json_output:
            sys.stdout.write(json_text(document))

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show how far a loop is: a bar on a terminal, a line a step elsewhere. Always on stderr."""
        stream = plain_stream(stderr=True)
        if stream is None:
            from robocache.cli.terminal import bar, console

            screen = console(stderr=True)
            if screen.is_terminal:
                with bar(screen, label, total) as move:
                    yield move
                return
        done = 0

        def step(text: str) -> None:
            nonlocal done
            done += 1
            _print_line(f"{label} {done}/{total}: {printable(text)}", stderr=True)

        yield step


def _print_line(text: str, *, stderr: bool) -> None:
    stream = plain_stream(stderr=stderr)
    if stream is not None:
        write_line(stream, text)
        return
    from robocache.cli.terminal import console

    console(stderr=stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print one line, `error: ...`, on stderr; where even that cannot be written, the exit code alone says it."""
    with suppress(OSError):
        print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)


def printable(text: str) -> str:
    """The text with control characters such as ESC spelled out; lines stay lines."""
    return text.translate(_SPELLED_OUT)


def json_text(document: Mapping[str, object]) -> str:
    """A document as strict JSON with a final newline; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_strict(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def milliseconds(nanoseconds: float) -> str:
    """Such as "36.0 ms"; "-" for NaN."""
    return "-" if math.isnan(nanoseconds) else f"{nanoseconds / 1e6:.2f} ms"


def byte_size(size_bytes: int) -> str:
    """Such as "12 B" or "3.4 GB", in powers of 1000."""
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 999.5:  # what is rounded to 1000 is one of the next
            break
        size, unit = size / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{size:.3g} {unit}"


def skipped_streams(attributes: Mapping[str, object]) -> dict[str, str]:
    """What a reader left out of an episode, and why."""
    skipped = attributes.get("skipped")
    return {str(name): str(reason) for name, reason in skipped.items()} if isinstance(skipped, Mapping) else {}


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
