"""Counters read again and again during a run, in memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from robocache.stress.reading_cost import SHARE, ReadingCost
from robocache.stress.resources import Counter, read
from robocache.stress.series import Series, series_of
from robocache.stress.verdicts import DAY_S, Verdict, judge, told_apart


class Monitor:
    """A fixed number of readings over a run of known length, that cost a small share of it.

    Args:
        counters: What to read.
        readings: How many readings there is room for; later ones are refused.
        share: Of the run's time, that readings may take; `read_if_cheap` waits until they do.
    """

    def __init__(self, counters: Sequence[Counter], *, readings: int, share: float = SHARE) -> None:
        self._counters = tuple(counters)
        # Written once here, so that filling it does not make resident memory grow.
        self._counts = np.full((readings, len(self._counters)), np.nan)
        self._seconds = np.full(readings, np.nan)
        self._iterations = np.full(readings, np.nan)
        self._filled = 0
        self._cost = ReadingCost(share)
        self._started = self._latest = time.monotonic()
        self._back_s = 0.0

    def look_at_clock(self) -> None:
        """Notice a clock that goes back; to be called often, since between two readings it can catch up again."""
        now = time.monotonic()
        self._back_s = max(self._back_s, self._latest - now)
        self._latest = now

    def read(self, iteration: int) -> bool:
        """Read all counters; False when there is no room left."""
        if self._filled == len(self._counts):
            return False
        self.look_at_clock()
        with self._cost.one_more():
            self._counts[self._filled] = read(self._counters)
        self._seconds[self._filled] = time.monotonic()
        self._iterations[self._filled] = iteration
        self._filled += 1
        return True

    def read_if_cheap(self, iteration: int) -> bool:
        """Read all counters, unless readings would then have taken more than their share of the time so far."""
        return self._cost.allows_one_more() and self.read(iteration)

    @property
    def readings(self) -> int:
        """How many were made."""
        return self._filled

    @property
    def milliseconds_per_reading(self) -> float:
        """What one costs, on average. NaN: none was made."""
        return 1e3 * self._cost.spent_s / self._filled if self._filled else float("nan")

    @property
    def cost_share(self) -> float:
        """The share of the time from the start to the last reading that readings took. NaN: none was made."""
        if not self._filled:
            return float("nan")
        return self._cost.spent_s / float(self._seconds[self._filled - 1] - self._started)

    def series(self) -> tuple[Series, ...]:
        """All readings so far, one series for each counter."""
        seconds = self._seconds[: self._filled] - self._started
        iterations = self._iterations[: self._filled]
        return tuple(
            series_of(counter.name, iterations, seconds, self._counts[: self._filled, column])
            for column, counter in enumerate(self._counters)
        )

    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each counter, over all readings so far; and one of the clock, if that went back."""
        progress = self._iterations[: self._filled]
        per_day = self._rate(0, self._filled) * DAY_S if self._filled > 1 else 0.0
        verdicts = tuple(
            judge(counter, progress, self._counts[: self._filled, column], per_day=per_day)
            for column, counter in enumerate(self._counters)
        )
        return told_apart(verdicts, self._counters) + self._clock()

    def rates(self) -> tuple[float, float]:
        """Iterations per second in the second and in the last quarter: what ages gets slower. NaN: too few readings."""
        quarter = self._filled // 4
        if quarter < 2:
            return float("nan"), float("nan")
        return self._rate(quarter, 2 * quarter), self._rate(self._filled - quarter, self._filled)

    def _rate(self, start: int, end: int) -> float:
        done = self._iterations[end - 1] - self._iterations[start]
        return float(done / (self._seconds[end - 1] - self._seconds[start]))

    def _clock(self) -> tuple[Verdict, ...]:
        if self._back_s <= 0:
            return ()
        return (Verdict("clock", "INVALID", f"it went back by {self._back_s:.1f} s, so that no rate is known"),)
