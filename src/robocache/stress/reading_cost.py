"""What readings of counters may cost: a share of the run, whatever else the machine has to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARE = 0.005
MAPS_EVERY = 4  # readings of a long run: a window of the verdict has so many at least
_LEAST_PART = 1 / 3  # of a run's time counts as its own: with less, a minute on a busy machine has too few readings
_SCHEDULED = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds of waiting for one, ...


class ReadingCost:
    """Time spent on readings, and whether one more is within the share; for one thread.

    Time in which the thread was ready and other processes had the cores belongs to neither side: on a busy machine a
    reading of one millisecond takes ten, and counted as ten there would be too few readings for a verdict.

    Args:
        share: Of the run's time, that readings may take.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._started = time.monotonic()
        self._waited_s = waited_for_a_core_s()
        self._ask_again_s = 0.0
        self.readings = 0
        self.spent_s = 0.0

    def allows_one_more(self) -> bool:
        """Whether the readings so far and one more, of the average cost, are within the share; one always is."""
        if not self.readings:
            return True
        needed_s = self.spent_s * (1 + 1 / self.readings) / self._share
        elapsed_s = time.monotonic() - self._started
        if elapsed_s < max(needed_s, self._ask_again_s):
            return False
        own_s = elapsed_s - (waited_for_a_core_s() - self._waited_s)
        own_s = max(own_s, _LEAST_PART * elapsed_s)
        self._ask_again_s = elapsed_s + needed_s - own_s  # asking costs too, and own time passes no faster than any
        return needed_s <= own_s

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Around a reading."""
        started, waited_s = time.monotonic(), waited_for_a_core_s()
        yield
        took_s = time.monotonic() - started
        self.spent_s += max(took_s - (waited_for_a_core_s() - waited_s), 0.0)
        self.readings += 1

    def share(self) -> float:
        """Of the time so far, what readings took."""
        return self.spent_s / max(time.monotonic() - self._started, 1e-9)


def waited_for_a_core_s() -> float:
    """How long this thread has been ready to run and was not; 0 where the kernel does not say."""
    try:
        return int(_SCHEDULED.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
