"""What commands print with: people get tables and progress on a terminal and plain lines elsewhere, machines JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# A recording may hold what a terminal obeys, such as ESC; people see it spelled out.
_SPELLED_OUT = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\n")}
PLAIN_WIDTH = 400  # columns of a table that is not on a terminal: wide enough to cut nothing


class Advance(Protocol):
    """Reports one finished step, with what was done."""

    def __call__(self, text: str) -> None:
        """Report."""
        ...


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # Called while the exception is being handled; rich's own would exit with 1.
        raise BrokenPipeError


class Printer:
    """One command's output.

    Args:
        json_output: Print one JSON document on stdout and everything else on stderr.
    """

    def __init__(self, *, json_output: bool) -> None:
        self.json_output = json_output
        self._console = _console(stderr=json_output)

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def hint(self, text: str) -> None:
        """Print a line for people on stderr, whatever was asked for."""
        _console(stderr=True).print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
        """Print a table for people; the first `left` columns are text, the others numbers."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for index, title in enumerate(header):
            table.add_column(title, justify="left" if index < left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        unbounded = self._console.options.update(width=PLAIN_WIDTH)
        if self._console.measure(table, options=unbounded).maximum <= self._console.width:
            self._console.print(table, highlight=False)
            return
        # Folded cells are hard to read: on a narrow terminal each row becomes a heading and a list.
        for row in rows:
            self._console.print(printable(row[0]), style="bold", markup=False, highlight=False)
            facts = ", ".join(f"{title} {cell}".strip() for title, cell in zip(header[1:], row[1:], strict=True))
            self._console.print(Padding(Text(printable(facts)), (0, 0, 0, 2)), highlight=False)

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
        console = _console(stderr=True)
        if not console.is_terminal:
            done = 0

            def step(text: str) -> None:
                nonlocal done
                done += 1
                console.print(
                    f"{label} {done}/{total}: {printable(text)}", markup=False, highlight=False, soft_wrap=True
                )

            yield step
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(label, total=total)

            def move(text: str) -> None:
                progress.update(task, advance=1, description=f"{label}: {_escaped(printable(text))}")

            yield move


def print_error(message: str) -> None:
    """Print one line, `error: ...`, on stderr."""
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


def _console(*, stderr: bool) -> Console:
    console = _Console(stderr=stderr, emoji=False)
    return console if console.is_terminal else _Console(stderr=stderr, emoji=False, width=PLAIN_WIDTH)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
