"""What a stream's stamps and values look like: rate, jitter, gaps, duplicates, clock offsets, missing values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robocache.errors import BackendUnavailableError
from robocache.readers.stored_points import POINTS_AT_ONCE, scan_runs
from robocache.records import Int64, RecordedStream

GAP_PERIODS = 3
END_SAMPLES = 100


@dataclass(frozen=True)
class StreamStatistics:
    """Facts of one recorded stream; all durations in nanoseconds of the clock the stream uses.

    Args:
        name: The stream.
        count: Samples (scans, for a cloud).
        clock: The clock that the other numbers are measured with.
        start_ns: The first stamp, or None of an empty stream.
        end_ns: The last stamp, or None of an empty stream.
        rate_hz: Samples a second from the first stamp to the last, gaps included; NaN below two distinct stamps.
        period_ns: Median time between two distinct stamps that follow each other; NaN below two of them.
        jitter_ns: Standard deviation of those times, gaps left out; NaN below two distinct stamps.
        gaps: Where more than three median periods passed without a sample: (last stamp before, first stamp after).
        duplicates: Samples whose stamp equals that of the sample before.
        clock_offsets_ns: For every other clock, the median of (other clock - the clock used).
        clock_offset_ends_ns: The same of the first and of the last hundred samples: two clocks that drift apart
            (a Husky's IMU by 15 ms in six minutes) have no single offset.
        nan_fraction: Part of the values that is NaN: 0 to 1; 0 of an empty stream.
        image_shape: Height, width and channels of images; None of other streams, and where no library reads them.
    """

    name: str
    count: int
    clock: str
    start_ns: int | None
    end_ns: int | None
    rate_hz: float
    period_ns: float
    jitter_ns: float
    gaps: tuple[tuple[int, int], ...]
    duplicates: int
    clock_offsets_ns: Mapping[str, float] = field(default_factory=dict)
    clock_offset_ends_ns: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    nan_fraction: float = 0.0
    image_shape: tuple[int, int, int] | None = None

    @property
    def duration_ns(self) -> int:
        """From the first stamp to the last; 0 of an empty stream."""
        return 0 if self.start_ns is None or self.end_ns is None else self.end_ns - self.start_ns


def stream_statistics(stream: RecordedStream) -> StreamStatistics:
    """Measure one recorded stream; its times must ascend, as every reader guarantees."""
    times = stream.times_ns
    intervals = np.diff(times)
    distinct = intervals[intervals > 0]
    rate_hz = period_ns = jitter_ns = float("nan")
    gaps: tuple[tuple[int, int], ...] = ()
    if len(distinct):
        period_ns = float(np.median(distinct))
        is_gap = intervals > GAP_PERIODS * period_ns
        gaps = tuple((int(times[at]), int(times[at + 1])) for at in np.flatnonzero(is_gap))
        jitter_ns = float(np.std(intervals[(intervals > 0) & ~is_gap]))
        rate_hz = (len(times) - 1) * 1e9 / float(times[-1] - times[0])
    differences = _clock_differences_ns(stream.clocks, stream.clock)
    return StreamStatistics(
        name=stream.name,
        count=len(times),
        clock=stream.clock,
        start_ns=int(times[0]) if len(times) else None,
        end_ns=int(times[-1]) if len(times) else None,
        rate_hz=rate_hz,
        period_ns=period_ns,
        jitter_ns=jitter_ns,
        gaps=gaps,
        duplicates=int(np.count_nonzero(intervals == 0)),
        clock_offsets_ns={other: float(np.median(late)) for other, late in differences.items()},
        clock_offset_ends_ns={
            other: (float(np.median(late[:END_SAMPLES])), float(np.median(late[-END_SAMPLES:])))
            for other, late in differences.items()
        },
        nan_fraction=_nan_fraction(stream),
        image_shape=_image_shape(stream),
    )


def _clock_differences_ns(clocks: Mapping[str, Int64], used: str) -> dict[str, Int64]:
    # Subtract as integers: a float64 of nanoseconds since 1970 is only good to 256 ns.
    return {other: stamps - clocks[used] for other, stamps in clocks.items() if other != used and len(stamps)}


def _image_shape(stream: RecordedStream) -> tuple[int, int, int] | None:
    if stream.frames is None:
        return None
    try:
        return stream.frames.shape
    except BackendUnavailableError:  # what a stream holds is known without the library that decodes it
        return None


def _nan_fraction(stream: RecordedStream) -> float:
    values = stream.values
    if values.size == 0 or not np.issubdtype(values.dtype, np.floating):
        return 0.0
    if stream.offsets is None:
        return float(np.count_nonzero(np.isnan(values))) / values.size
    runs = scan_runs(np.arange(len(stream.times_ns)), stream.offsets, POINTS_AT_ONCE)
    pieces = (values[stream.offsets[first] : stream.offsets[after]] for first, after in runs)
    return float(sum(np.count_nonzero(np.isnan(piece)) for piece in pieces)) / values.size
