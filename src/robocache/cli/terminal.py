"""What a terminal shows, by rich: tables that fit its width, bars, and lines that it may fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from robocache.cli.console import PLAIN_WIDTH, Advance, printable


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # Called while the exception is being handled; rich's own would exit with 1.
        raise BrokenPipeError


def console(*, stderr: bool) -> Console:
    """Standard output or error; wide enough to fold nothing if it is no terminal.

    Args:
        stderr: Which of the two.
    """
    screen = _Console(stderr=stderr, emoji=False)
    return screen if screen.is_terminal else _Console(stderr=stderr, emoji=False, width=PLAIN_WIDTH)


def print_table(screen: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> None:
    """Print a table; one that is too wide as a heading and a list for each row, since folded cells are hard to read.

    Args:
        screen: From `console`.
        header: The titles of the columns, printable.
        rows: Their cells, printable.
        left: So many columns are text; the others are numbers, to the right.
    """
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    unbounded = screen.options.update(width=PLAIN_WIDTH)
    if screen.measure(table, options=unbounded).maximum <= screen.width:
        screen.print(table, highlight=False)
        return
    for row in rows:
        screen.print(row[0], style="bold", markup=False, highlight=False)
        facts = ", ".join(f"{title} {cell}".strip() for title, cell in zip(header[1:], row[1:], strict=True))
        screen.print(Padding(Text(facts), (0, 0, 0, 2)), highlight=False)


@contextmanager
def bar(screen: Console, label: str, total: int) -> Iterator[Advance]:
    """Show how far a loop is; give what a finished step is told to, with what was done.

    Args:
        screen: From `console`, a terminal.
        label: What goes on.
        total: Of steps.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(label, total=total)

        def move(text: str) -> None:
            description = printable(text).replace("[", r"\[")
            progress.update(task, advance=1, description=f"{label}: {description}")

        yield move
