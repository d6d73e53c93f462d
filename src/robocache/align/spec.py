"""What an alignment is: which clock, which streams, what happens between two samples. Pure description."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from robocache.align.then import Resize, Voxelize
from robocache.errors import ArgumentError
from robocache.policies import Policy, Window, duration_ns

MAX_RATE_HZ = 1_000_000_000  # one frame a nanosecond, the finest that int64 nanoseconds can tell apart
LATENCY_NS = 2**62  # half of int64, so that stamps less a latency stay within it
MIN_RATE_HZ = Fraction(1, 1_000_000)  # one frame in eleven days


@dataclass(frozen=True)
class Rate:
    """A clock of its own: frame k is at `start + round(k * 1e9 / hz)` nanoseconds, without drift.

    Args:
        hz: Frames a second, from 1e-6 to 1e9. A float means the decimal number it is written as (29.97
            is 2997/100); a `Fraction` says rates like 30000/1001 exactly.

    Raises:
        ArgumentError: It is not a number, or not in range.
    """

    hz: float | Fraction

    def __post_init__(self) -> None:
        hz: object = self.hz
        is_number = isinstance(hz, numbers.Real) and not isinstance(hz, bool)
        # Compared as it is: a ratio may be beyond every float. NaN is in no range.
        if not is_number or not MIN_RATE_HZ <= self.hz <= MAX_RATE_HZ:
            shown = _shown(hz) if is_number else repr(hz)
            raise ArgumentError(f"rate must be a number of frames a second, 0.000001 to 1e9; got {shown}")

    @property
    def exact_hz(self) -> Fraction:
        """The rate as a ratio of whole numbers."""
        if isinstance(self.hz, numbers.Rational):
            # Plain ints, since numpy's would overflow in the arithmetic of the clock.
            return Fraction(int(self.hz.numerator), int(self.hz.denominator))
        return Fraction(repr(float(self.hz)))


@dataclass(frozen=True)
class Follow:
    """The clock of one of the streams: one frame for each of its stamps, twins once.

    Args:
        stream: The stream's name in the result (the key in `Align.streams`).
    """

    stream: str


@dataclass(frozen=True)
class From:
    """Where one stream of the result comes from.

    Args:
        source: The stream's name in the recording.
        policy: What to do between two samples, or a `Window` of the samples before each frame. None: by what the stream
            holds, see `robocache.align.plan`.
        latency: How long after the event its stamp was taken, such as `"38ms"`, or int nanoseconds (negative: the
            stamp is early). It is subtracted from every stamp.
        missing: What a row with a NaN is. "drop": no sample at all, so that its neighbours are joined and `max_gap`
            decides whether that is still valid (columns that are NaN throughout do not count). "keep": a sample
            like any other, whose NaN shows in the result.
        horizon: How many frames, from a sample's last one on, a batch holds of this stream: 16 for a chunk of 16
            actions. The alignment itself does not change; a loader gathers the rows.
        then: `Resize` for images, `Voxelize` for clouds.
        optional: Whether an episode may lack the stream. It is then left out of the result, and listed in its
            `absent`, or stands there as not valid throughout, where `align_episode` is told what it is `like`.

    Raises:
        ArgumentError: The latency is not a duration, `missing` is neither, a horizon below 1, a policy that is none.
    """

    source: str
    policy: Policy | Window | None = None
    latency: str | int = 0
    missing: Literal["drop", "keep"] = "drop"
    horizon: int = 1
    then: Resize | Voxelize | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise ArgumentError(f"source must be the name of a stream, got {self.source!r}")
        if self.missing not in ("drop", "keep"):
            raise ArgumentError(f"missing must be 'drop' or 'keep', got {self.missing!r}")
        if self.policy is not None and not isinstance(self.policy, Policy | Window):
            raise ArgumentError(f"policy must be a policy such as Linear(), got {self.policy!r}")
        if isinstance(self.horizon, bool) or not isinstance(self.horizon, numbers.Integral) or self.horizon < 1:
            raise ArgumentError(f"horizon must be a whole number of frames, 1 or more, got {self.horizon!r}")
        if self.then is not None and not isinstance(self.then, Resize | Voxelize):
            raise ArgumentError(f"then must be Resize(height, width) or Voxelize(...), got {self.then!r}")
        if not isinstance(self.optional, bool):
            raise ArgumentError(f"optional must be True or False, got {self.optional!r}")
        if isinstance(self.latency, bool) or not isinstance(self.latency, str | int):
            message = f"latency must be a duration such as '38ms' or whole nanoseconds, got {self.latency!r}"
            raise ArgumentError(message)
        if not -LATENCY_NS < self.latency_ns < LATENCY_NS:
            raise ArgumentError(f"latency must be shorter than 146 years, got {self.latency!r}")

    @property
    def latency_ns(self) -> int:
        """The latency in nanoseconds."""
        return duration_ns(self.latency) if isinstance(self.latency, str) else self.latency


@dataclass(frozen=True)
class Align:
    """A whole alignment.

    Args:
        clock: `Rate(50)`, or `Follow("observation.images.top")`.
        streams: By name in the result. None: every stream of the recording, under its own name.
        span: "overlap": from the last stream's first stamp to the first stream's last stamp, where every stream has
            something to say. "union": from the very first stamp to the very last; what is outside a stream is not
            valid.

    Raises:
        ArgumentError: An empty set of streams, a clock that follows a stream that is not among them, a bad span.
    """

    clock: Rate | Follow
    streams: Mapping[str, From] | None = None
    span: Literal["overlap", "union"] = "overlap"

    def __post_init__(self) -> None:
        if not isinstance(self.clock, Rate | Follow):
            raise ArgumentError(f"clock must be Rate(hz) or Follow(stream), got {self.clock!r}")
        if self.span not in ("overlap", "union"):
            raise ArgumentError(f"span must be 'overlap' or 'union', got {self.span!r}")
        if self.streams is None:
            return
        if not self.streams:
            raise ArgumentError("streams is empty: name at least one, or pass None for all of the recording's")
        for name, source in self.streams.items():
            if not isinstance(source, From):
                raise ArgumentError(f"streams[{name!r}] must be From(source), got {source!r}")
        if isinstance(self.clock, Follow) and self.clock.stream not in self.streams:
            names = ", ".join(self.streams)
            raise ArgumentError(f"clock follows {self.clock.stream!r}, but streams has: {names}")
        # A copy, so that the caller's later edits do not reach into a frozen description.
        object.__setattr__(self, "streams", dict(self.streams))

    @classmethod
    def from_yaml(cls, source: Path | str) -> Align:
        """Read a description from YAML; docs/align.md shows every key.

        Args:
            source: A `Path`, or a string: text if it has a line break or a colon with a space behind it, a path
                otherwise.

        Raises:
            ArgumentError: It cannot be read, is no such description, or is larger than one can be; the message names
                the file, the line, the key and the nearest one that exists.
        """
        from robocache.align.yaml_reading import read_align

        return read_align(source)

    def to_yaml(self) -> str:
        """The description as YAML text, which `from_yaml` reads back as an equal one. Defaults are left out."""
        from robocache.align.yaml_writing import align_text

        return align_text(self)


def _shown(number: object) -> str:
    # Python writes no whole number of more than 4300 digits.
    if isinstance(number, numbers.Rational):
        ratio = Fraction(number)
        if max(abs(ratio.numerator), ratio.denominator) > 10**100:
            return "a number of more than 100 digits"
    return str(number)
