"""What somebody at a terminal sees of a long run: memory, throughput, time left, and the lines above."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from robocache.cli.console import printable

if TYPE_CHECKING:
    from robocache.stress.long_run import Progress


class LiveView:
    """A few lines at the bottom of the terminal; for a `with` block.

    It has no thread of its own: what is watched for leaks of threads must not start some.

    Args:
        title: What runs.
        console: Where; None: stdout.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._live = Live(console=console or Console(emoji=False), auto_refresh=False, transient=True)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._live.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Show how far it is.

        Args:
            progress: Of the run.
        """
        left_s = max(progress.total_s - progress.seconds, 0.0)
        facts = Table.grid(padding=(0, 3))
        facts.add_row("memory", f"GPU {progress.gpu_mb:.1f} MB", f"CPU {progress.cpu_mb:.1f} MB")
        facts.add_row("throughput", f"{progress.per_second:.3g} a second", f"{progress.iteration} iterations")
        facts.add_row("time left", duration(left_s), f"of {duration(progress.total_s)}")
        for name, value in sorted(progress.also.items()):
            facts.add_row(Text(printable(name)), f"{value:g}", "")
        bar = Table.grid()  # a bar by itself has no end of line, and the facts would go on behind it
        bar.add_row(ProgressBar(total=progress.total_s, completed=min(progress.seconds, progress.total_s), width=60))
        self._live.update(Group(Text(self._title, style="bold"), bar, facts), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def duration(seconds: float) -> str:
    """Such as "23 h 59 min" or "42 s"."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"
