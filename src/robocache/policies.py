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
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from robocache.errors import ArgumentError

Outside = Literal["clamp", "nan", "extrapolate"]
Duration = float | int | str

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
        if isinstance(self.max_gap, str):
            duration_ns(self.max_gap)
        elif self.max_gap is not None and not self.max_gap >= 0:
            raise ArgumentError(f"max_gap must be 0 or more, got {self.max_gap!r}")


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
