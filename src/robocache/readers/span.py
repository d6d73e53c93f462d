"""A part of an episode: from one moment until before another, on the clock that each stream uses."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError
from robocache.readers.limits import REACH_NS
from robocache.readers.stored_points import StoredPoints
from robocache.records import Int64, RecordedStream


@dataclass(frozen=True)
class Span:
    """Half-open: a sample at `start_ns` is inside, one at `end_ns` is not.

    Args:
        start_ns: First moment inside; None where there is no beginning.
        end_ns: First moment after it; None where there is no end.
    """

    start_ns: int | None = None
    end_ns: int | None = None

    def __post_init__(self) -> None:
        for name in ("start_ns", "end_ns"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
                raise ArgumentError(f"{name} must be an integer number of nanoseconds, or None, got {value!r}")
            object.__setattr__(self, name, operator.index(value))
        if self.start_ns is not None and self.end_ns is not None and self.end_ns < self.start_ns:
            raise ArgumentError(f"end_ns must not be before start_ns={self.start_ns}, got {self.end_ns}")

    @property
    def is_everything(self) -> bool:
        """True where it has neither a beginning nor an end."""
        return self.start_ns is None and self.end_ns is None

    def touches(self, first_ns: int, last_ns: int) -> bool:
        """Whether a sample between two moments, both included, may be inside."""
        return (self.start_ns is None or last_ns >= self.start_ns) and (self.end_ns is None or first_ns < self.end_ns)

    def mask(self, times_ns: Int64) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which of the times are inside, in any order."""
        inside = np.ones(len(times_ns), dtype=bool)
        if self.start_ns is not None:
            inside &= times_ns >= _reachable(self.start_ns)
        if self.end_ns is not None:
            inside &= times_ns < _reachable(self.end_ns)
        return inside

    def rows(self, times_ns: Int64) -> slice:
        """Where the times inside lie among ascending ones."""
        first = 0 if self.start_ns is None else int(np.searchsorted(times_ns, _reachable(self.start_ns)))
        after = len(times_ns) if self.end_ns is None else int(np.searchsorted(times_ns, _reachable(self.end_ns)))
        return slice(first, max(first, after))

    def cut(self, stream: RecordedStream) -> RecordedStream:
        """The rows of a stream that are inside, as arrays of their own, so that nothing holds the others."""
        if self.is_everything:
            return stream
        rows = self.rows(stream.times_ns)
        clocks = {name: times_ns[rows].copy() for name, times_ns in stream.clocks.items()}
        times_ns = clocks[stream.clock]
        if stream.offsets is None:
            return replace(stream, values=stream.values[rows].copy(), times_ns=times_ns, clocks=clocks)
        if isinstance(stored := cast("object", stream.values), StoredPoints):
            part = stored.ordered(np.arange(rows.start, rows.stop))
            values = cast("npt.NDArray[np.generic]", part)
            return replace(stream, values=values, times_ns=times_ns, clocks=clocks, offsets=part.offsets)
        offsets = stream.offsets[rows.start : rows.stop + 1]
        values = stream.values[offsets[0] : offsets[-1]].copy()
        return replace(stream, values=values, times_ns=times_ns, clocks=clocks, offsets=offsets - offsets[0])

    def synthetic_rows(self, count: int, rate_hz: float) -> tuple[int, int]:
        """First row, and the first after it, of those k below `count` where k / rate may be inside, a few to spare."""
        first = 0 if self.start_ns is None else _row(self.start_ns, rate_hz, -1)
        after = count if self.end_ns is None else _row(self.end_ns, rate_hz, 1)
        first = min(max(first, 0), count)
        return first, min(max(after, first), count)


def _row(time_ns: int, rate_hz: float, side: int) -> int:
    row = _reachable(time_ns) * rate_hz / 1e9
    return int(row + side * (2 + abs(row) * 2.0**-48))  # more than the rounding of both directions


def _reachable(time_ns: int) -> int:
    """A moment that fits an int64, on the same side of every stamp that a recording can have."""
    return min(max(time_ns, -2 * REACH_NS), 2 * REACH_NS - 1)
