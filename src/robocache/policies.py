"""What to do between two samples of a stream.

A policy is the same small frozen object in an operation, in an alignment and in YAML. Durations are numbers in the
unit of the stream's times, or strings such as `"50ms"` where times are int64 nanoseconds.

| policy | between two samples | dtypes |
|---|---|---|
| `Linear` | straight line | floating |
| `Previous` | the last sample at or before the target (zero-order hold; causal) | any |
| `Nearest` | the closer sample; of two equally close, the earlier | any |
| `Slerp` | shortest arc between unit quaternions (Shoemake 1985) | floating, width a multiple of 4 |
| `Angle` | shortest way round a circle | floating |

`Window` stands beside them in an alignment: not one value for each target, but the samples before it.
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from typing import Literal

from robocache.errors import ArgumentError

Outside = Literal["clamp", "nan", "extrapolate"]
Duration = float | int | str

MOST_SAMPLES = 2**16  # of a window
_NANOSECONDS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}
_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|min)\s*")


def duration_ns(duration: str) -> int:
    """Nanoseconds of a duration such as `"50ms"`, `"1.5 s"` or `"200us"`.

    Raises:
        ArgumentError: It is not a number followed by ns, us, ms, s or min.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        message = f"{duration!r} is not a duration: write a number and one of ns, us, ms, s, min, like '50ms'"
        raise ArgumentError(message)
    nanoseconds = float(match[1]) * _NANOSECONDS[match[2]]
    if nanoseconds >= 2**63:
        raise ArgumentError(f"{duration[:40]!r} is longer than int64 nanoseconds hold, which is 292 years")
    return round(nanoseconds)


@dataclass(frozen=True)
class Policy:
    """What all policies share.

    Args:
        max_gap: Beyond it a result is not valid, inclusively (`<=` is valid, 0 means exact stamps only). `Linear`,
            `Slerp` and `Angle` measure between the two neighbours; `Nearest` and `Previous` to the sample used.
            In the unit of the times, or a string where those are nanoseconds. None: no limit.
        outside: What a target before the first or after the last sample gets: "clamp" holds the edge sample,
            "nan" gives NaN there and for every other invalid target (a gap), "extrapolate" continues the edge
            segment. Whichever it is, such a target is not valid.
    """

    max_gap: Duration | None = None
    outside: Outside = "clamp"

    def __post_init__(self) -> None:
        if self.outside not in ("clamp", "nan", "extrapolate"):
            raise ArgumentError(f"outside must be 'clamp', 'nan' or 'extrapolate', got {self.outside!r}")
        _check_gap(self.max_gap)


@dataclass(frozen=True)
class Linear(Policy):
    """A straight line between the two neighbours."""


@dataclass(frozen=True)
class _Hold(Policy):
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outside == "extrapolate":
            message = f"{type(self).__name__} has no slope to extrapolate: outside must be 'clamp' or 'nan'"
            raise ArgumentError(message)


@dataclass(frozen=True)
class Nearest(_Hold):
    """The closer of the two neighbours; of two equally close, the earlier."""


@dataclass(frozen=True)
class Previous(_Hold):
    """The last sample at or before the target: what a robot could have known at that time."""


@dataclass(frozen=True)
class Slerp(Policy):
    """Spherical interpolation of unit quaternions along the shortest arc, whatever their signs.

    Neighbours are normalised first; at an exact stamp the sample itself is returned, untouched. A stream of
    width 4k holds k quaternions side by side. Source: K. Shoemake, "Animating rotation with quaternion curves",
    SIGGRAPH 1985.

    Args:
        order: Where the scalar stands: "xyzw" (ROS, scipy) or "wxyz" (MuJoCo, BROAD). Slerp itself is the same for
            both; the order is kept so that a record says what its columns are.
    """

    order: Literal["xyzw", "wxyz"] = "xyzw"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("xyzw", "wxyz"):
            raise ArgumentError(f"order must be 'xyzw' or 'wxyz', got {self.order!r}")


@dataclass(frozen=True)
class Angle(Policy):
    """The shortest way round a circle.

    Results between stamps are wrapped into [-period/2, period/2); at an exact stamp the sample itself is returned.

    Args:
        period: One full turn, in the unit of the data: 2 pi for radians, 360 for degrees.
    """

    period: float = 2 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.period) and self.period > 0):
            raise ArgumentError(f"period must be finite and greater than 0, got {self.period!r}")


@dataclass(frozen=True)
class Window:
    """The samples of the time just before each target, as they were recorded: those in (target - span, target].

    For a fast stream beside a slow clock (the IMU samples between two camera frames). An alignment gives
    [target, samples, dim], oldest first and right-aligned: the last place holds the latest sample, and places that
    are not used hold NaN (0 for integers, False for bools) and are not valid.

    Args:
        span: How far back a window reads: a duration such as `"33ms"`, or whole nanoseconds; greater than 0. A sample
            at the target belongs to it, one exactly `span` before does not, so that windows `span` apart share none.
        samples: At most so many, the latest ones.
        max_gap: If the latest sample is older than this, no place of the window is valid; its values stay. None: no
            limit but `span`.

    Raises:
        ArgumentError: A span or number of samples that is not greater than 0, or too great, or a duration that is none.
    """

    span: str | int
    samples: int
    max_gap: Duration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.span, bool) or not isinstance(self.span, str | numbers.Integral):
            raise ArgumentError(f"span must be a duration such as '33ms' or whole nanoseconds, got {self.span!r}")
        if not 0 < self.span_ns < 2**62:
            raise ArgumentError(f"span must be greater than 0 and shorter than 146 years, got {self.span!r}")
        if isinstance(self.samples, bool) or not isinstance(self.samples, numbers.Integral) or self.samples < 1:
            raise ArgumentError(f"samples must be a whole number, 1 or more, got {self.samples!r}")
        if self.samples > MOST_SAMPLES:
            raise ArgumentError(
                f"samples must be at most {MOST_SAMPLES}: each target has room for all, got {self.samples!r}"
            )
        _check_gap(self.max_gap)

    @property
    def span_ns(self) -> int:
        """The span in nanoseconds."""
        return duration_ns(self.span) if isinstance(self.span, str) else int(self.span)


def _check_gap(max_gap: Duration | None) -> None:
    if isinstance(max_gap, str):
        duration_ns(max_gap)
    elif max_gap is not None and not max_gap >= 0:
        raise ArgumentError(f"max_gap must be 0 or more, got {max_gap!r}")
