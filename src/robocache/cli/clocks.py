"""How far a stream's clocks are apart, at its start and at its end: two clocks that run at two speeds drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from robocache.records import RecordedStream

EDGE_SAMPLES = 9  # few enough to see the very start, enough that one late message does not decide
DRIFT_SHOWN_NS = 1_000_000


@dataclass(frozen=True)
class ClockOffset:
    """Another clock minus the clock used, in nanoseconds.

    Args:
        first: Median of the first samples.
        median: Of all samples.
        last: Median of the last samples.
        drift_ppm: Millionths of a second that the other clock gains in a second; NaN below two stamps.
    """

    first: float
    median: float
    last: float
    drift_ppm: float

    def text(self) -> str:
        """Such as "+1.0 ms", or "+36.3 to +20.7 ms" where the clocks drift."""
        if abs(self.last - self.first) < DRIFT_SHOWN_NS:
            return f"{self.median / 1e6:+.1f} ms"
        return f"{self.first / 1e6:+.1f} to {self.last / 1e6:+.1f} ms"


def clock_offsets(stream: RecordedStream) -> dict[str, ClockOffset]:
    """Every other clock of a stream against the one it uses."""
    offsets = {}
    for name, stamps in stream.clocks.items():
        if name == stream.clock or not len(stamps):
            continue
        # Subtract as integers: a float64 of nanoseconds since 1970 is only good to 256 ns.
        apart = (stamps - stream.times_ns).astype(np.float64)
        seconds = (stream.times_ns - stream.times_ns[0]) / 1e9
        slope = _slope(seconds, apart) if seconds[-1] > 0 else float("nan")
        first, last = (float(np.median(edge)) for edge in (apart[:EDGE_SAMPLES], apart[-EDGE_SAMPLES:]))
        offsets[name] = ClockOffset(first, float(np.median(apart)), last, slope / 1e3)
    return offsets


def _slope(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Of the straight line nearest to the points, in the sense of least squares."""
    across = x - x.mean()
    # Not by `@`, for which a library may start threads that cost more than the sum.
    return float((across * (y - y.mean())).sum() / np.square(across).sum())


def offsets_text(stream: RecordedStream) -> str:
    """All of them for people; clocks that are equally far off together: "log, publish +0.4 ms"."""
    names: dict[str, list[str]] = {}
    for name, offset in clock_offsets(stream).items():
        names.setdefault(offset.text(), []).append(name)
    return "; ".join(f"{', '.join(alike)} {text}" for text, alike in names.items())
