"""What watches the machine during a long run: the seam between its loop and whatever looks from outside meanwhile.

A long run starts its monitors before the first iteration, samples them at every reading of its counters, asks for
problems then and at its end, and closes them on every way out. What they sample goes into the log and the report
beside the run's own counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, Self

from robocache.errors import ArgumentError
from robocache.stress.verdicts import Verdict


class Monitor(Protocol):
    """One thing that is watched during a long run, such as the temperature of a GPU."""

    def start(self) -> None:
        """Called once, before the first iteration; may raise a `RoboCacheError` where nothing can be watched."""
        ...

    def sample(self) -> Mapping[str, float]:
        """Values by name, now; NaN for one that cannot be read. Called on the thread of the run: it must be quick."""
        ...

    def problems(self) -> list[str]:
        """What happened since `start` that makes the run INVALID, in words; empty: nothing did."""
        ...

    def close(self) -> None:
        """Let go of everything. Called once on every way out, also after a `start` that raised."""
        ...


class Monitors:
    """All monitors of a run as one, for a `with` block.

    Args:
        monitors: Started in this order, closed in the reverse one.
    """

    def __init__(self, monitors: Sequence[Monitor] = ()) -> None:
        self._monitors = tuple(monitors)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for monitor in self._monitors:
                stack.callback(monitor.close)
                monitor.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sample(self) -> dict[str, float]:
        """The values of all.

        Raises:
            ArgumentError: Two monitors gave a value of the same name.
        """
        values: dict[str, float] = {}
        for monitor in self._monitors:
            new = monitor.sample()
            if twice := values.keys() & new.keys():
                raise ArgumentError(f"two monitors sample {sorted(twice)}; give each value a name of its own")
            values.update(new)
        return values

    def verdicts(self) -> tuple[Verdict, ...]:
        """One INVALID for each problem so far."""
        return tuple(
            Verdict(type(monitor).__name__, "INVALID", problem)
            for monitor in self._monitors
            for problem in monitor.problems()
        )
