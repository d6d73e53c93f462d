"""Counters read again and again during a run, in memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from robocache.stress.leaks import DAY_S, Verdict, judge
from robocache.stress.resources import Counter, read


class Monitor:
    """A fixed number of readings over a run of known length.

    Args:
        counters: What to read.
        readings: How many readings there is room for; later ones are refused.
    """

    def __init__(self, counters: Sequence[Counter], *, readings: int) -> None:
        self._counters = tuple(counters)
        # Written once here, so that filling it does not make resident memory grow.
        self._counts = np.full((readings, len(self._counters)), np.nan)
        self._seconds = np.full(readings, np.nan)
        self._iterations = np.full(readings, np.nan)
        self._filled = 0
        self._spent_s = 0.0

    def read(self, iteration: int) -> bool:
        """Read all counters; False when there is no room left."""
        if self._filled == len(self._counts):
            return False
        started = time.monotonic()
        self._counts[self._filled] = read(self._counters)
        self._seconds[self._filled] = now = time.monotonic()
        self._spent_s += now - started
        self._iterations[self._filled] = iteration
        self._filled += 1
        return True

    @property
    def readings(self) -> int:
        """How many were made."""
        return self._filled

    @property
    def milliseconds_per_reading(self) -> float:
        """What one costs, on average. NaN: none was made."""
        return 1e3 * self._spent_s / self._filled if self._filled else float("nan")

    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each counter, over all readings so far."""
        progress = self._iterations[: self._filled]
        per_day = self._rate(0, self._filled) * DAY_S if self._filled > 1 else 0.0
        return tuple(
            judge(counter, progress, self._counts[: self._filled, column], per_day=per_day)
            for column, counter in enumerate(self._counters)
        )

    def rates(self) -> tuple[float, float]:
        """Iterations per second in the second and in the last quarter: what ages gets slower. NaN: too few readings."""
        quarter = self._filled // 4
        if quarter < 2:
            return float("nan"), float("nan")
        return self._rate(quarter, 2 * quarter), self._rate(self._filled - quarter, self._filled)

    def _rate(self, start: int, end: int) -> float:
        done = self._iterations[end - 1] - self._iterations[start]
        return float(done / (self._seconds[end - 1] - self._seconds[start]))
