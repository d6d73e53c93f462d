"""A run's readings in fixed memory, however long it lasts, for a verdict before its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from robocache.stress.resources import Counter
from robocache.stress.verdicts import DAY_S, Outcome, judge

ROOM = 1_024
_SHARE = 0.005  # of a core, that judging may take
_RECENT = 12  # readings over which the throughput is taken


class ReadingsSoFar:
    """The last verdict that can be had of readings, of which every second is dropped whenever there are too many.

    Args:
        counters: What is read, in the order of the counts.
        room: For how many readings; an even number.
    """

    def __init__(self, counters: Sequence[Counter], *, room: int = ROOM) -> None:
        self.counters = tuple(counters)
        self._counts = np.full((room, len(self.counters)), np.nan)
        self._progress = np.full((room, 2), np.nan)  # iteration, seconds
        self._lock = threading.Lock()
        self._filled = 0
        self._stride = 1
        self._turn = 0
        self._recent: list[tuple[int, float]] = []
        self._outcomes: dict[str, Outcome] = {}
        self._judge_again_s = -np.inf

    def add(self, iteration: int, seconds: float, counts: Sequence[float]) -> None:
        """One more.

        Args:
            iteration: How many are done.
            seconds: Since the start.
            counts: One for each counter.
        """
        with self._lock:
            self._add(iteration, seconds, counts)

    @property
    def filled(self) -> int:
        """How many are kept."""
        return self._filled

    def iterations_per_second(self) -> float:
        """Over the last readings; NaN: there is one at most."""
        if len(self._recent) < 2 or self._recent[-1][1] <= self._recent[0][1]:
            return float("nan")
        with self._lock:
            (first, began), (last, ended) = self._recent[0], self._recent[-1]
        return (last - first) / (ended - began)

    def outcomes(self) -> dict[str, Outcome]:
        """By counter; those of a moment ago, where judging again would take more than its share of the time."""
        started = time.monotonic()
        if self._filled > 1 and started >= self._judge_again_s:
            with self._lock:  # judging takes a tenth of a second, for which nobody waits
                counts, progress = self._counts[: self._filled].copy(), self._progress[: self._filled].copy()
            done, took = progress[-1] - progress[0]
            per_day = done / took * DAY_S if took > 0 else 0.0
            self._outcomes = {
                counter.name: judge(
                    counter, progress[:, 0], counts[:, column], per_day=per_day, with_detectable=False
                ).outcome
                for column, counter in enumerate(self.counters)
            }
            ended = time.monotonic()
            self._judge_again_s = ended + (ended - started) / _SHARE
        return self._outcomes

    def _add(self, iteration: int, seconds: float, counts: Sequence[float]) -> None:
        self._recent = [*self._recent[1 - _RECENT :], (iteration, seconds)]
        self._turn += 1
        if (self._turn - 1) % self._stride:
            return
        if self._filled == len(self._counts):
            self._filled //= 2
            self._counts[: self._filled] = self._counts[::2].copy()
            self._progress[: self._filled] = self._progress[::2].copy()
            self._stride *= 2
            self._turn = 1
        self._counts[self._filled] = counts
        self._progress[self._filled] = iteration, seconds
        self._filled += 1
