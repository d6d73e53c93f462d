"""From a description and one episode to exact numbers: target stamps, the rows that count, a policy for each stream.

| a stream holds | default policy | `max_gap` |
|---|---|---|
| floating vectors | `Linear` | 3 median periods between the neighbours |
| quaternions | `Slerp` in the stream's order | the same |
| angles | `Angle` (radians) | the same |
| integers, bools | `Previous` | 3 median periods since the sample |
| points, images | `Nearest` scan or image | 1.5 median periods to it |
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from robocache.align.absent import stand_in
from robocache.align.fit import check_fit
from robocache.align.spec import Align, Follow, From
from robocache.align.then import Resize, Voxelize
from robocache.errors import ArgumentError, UnknownStreamError
from robocache.policies import Angle, Linear, Nearest, Policy, Previous, Slerp, Window, duration_ns
from robocache.records import Episode, Int64, RecordedStream

GAP_PERIODS = 3
MAX_FRAMES = 50_000_000  # eleven days at 50 Hz; more is a typing error, and would fill the memory before it shows


@dataclass(frozen=True)
class PlannedStream:
    """One stream, ready to be computed.

    Args:
        name: Its name in the result.
        stream: What the reader gave.
        policy: Resolved: never None, durations in int nanoseconds.
        rows: [samples] int64: the rows of the stream that count, ascending; those with a NaN are left out.
        times_ns: [samples] int64: their stamps, latency subtracted.
        horizon: As `From` says; so are `then` and what follows from it.
        then: What becomes of its images or clouds.
        is_absent: The episode lacks it: `stream` is a stand-in of one row, which is never valid.
    """

    name: str
    stream: RecordedStream
    policy: Policy | Window
    rows: Int64
    times_ns: Int64
    horizon: int = 1
    then: Resize | Voxelize | None = None
    is_absent: bool = False

    @property
    def dropped(self) -> int:
        """How many rows were left out because of a NaN."""
        return len(self.stream.times_ns) - len(self.rows)


@dataclass(frozen=True)
class Plan:
    """Every number that an alignment of one episode needs.

    Args:
        times_ns: [frames] int64, strictly ascending: the clock of the result.
        streams: In the order of the result.
        absent: Optional streams that the episode does not have, by their names in the result.
    """

    times_ns: Int64
    streams: tuple[PlannedStream, ...]
    absent: tuple[str, ...] = ()


def plan_alignment(episode: Episode, spec: Align, *, like: Mapping[str, RecordedStream] | None = None) -> Plan:
    """Work out the target stamps and the rows, policy and stamps of every stream.

    Args:
        episode: As a reader gives it.
        spec: Which clock, which streams, which policies.
        like: By the names in recordings: streams of other episodes, which say what an absent one would be like.

    Raises:
        UnknownStreamError: The description names a stream that the episode does not have.
        ArgumentError: A stream without samples, streams that do not overlap, more frames than can be meant.
    """
    given: object = spec
    if not isinstance(given, Align):
        raise ArgumentError(f"spec must be an Align, got {given!r}")
    wanted = spec.streams if spec.streams is not None else {name: From(name) for name in episode.streams}
    if not wanted:
        raise ArgumentError(f"{episode.source}, {episode.name}: no streams to align; name a recording that has some")
    absent = tuple(n for n, source in wanted.items() if source.optional and source.source not in episode.streams)
    present = {n: _plan_stream(episode, n, source) for n, source in wanted.items() if n not in absent}
    if not present:
        names = ", ".join(repr(source.source) for source in wanted.values())
        message = f"{episode.source}, {episode.name}: none of the streams is there: {names}"
        raise ArgumentError(f"{message}; name one that is, or leave the episode out")
    times_ns = _clock(spec, present, absent, episode)
    planned: list[PlannedStream] = []
    for name, source in wanted.items():
        if name in present:
            planned.append(present[name])
        elif like is not None and source.source in like:
            planned.append(_plan_absent(name, source, like[source.source], times_ns))
    return Plan(times_ns, tuple(planned), absent)


def _clock(spec: Align, present: Mapping[str, PlannedStream], absent: tuple[str, ...], episode: Episode) -> Int64:
    start_ns, end_ns = _span(tuple(present.values()), spec.span, episode)
    if not isinstance(spec.clock, Follow):
        return rate_clock(start_ns, end_ns, spec.clock.exact_hz)
    followed = present.get(spec.clock.stream)
    if followed is None:
        if spec.clock.stream in absent:
            message = f"{episode.source}: the clock follows {spec.clock.stream!r}, which {episode.name} does not have"
            raise ArgumentError(f"{message}; leave the episode out, or take Rate(hz) for a clock")
        raise unknown_stream(spec.clock.stream, episode)
    times_ns = np.unique(followed.times_ns)
    return times_ns[(times_ns >= start_ns) & (times_ns <= end_ns)]


def rate_clock(start_ns: int, end_ns: int, hz: Fraction) -> Int64:
    """Stamps `start + round(k * 1e9 / hz)` up to and including `end`: [frames] int64, exact for every k.

    Whole-number arithmetic, so frame one million is as exact as frame one; halves round up.

    Raises:
        ArgumentError: That would be more than `MAX_FRAMES` frames.
    """
    numerator, denominator = 1_000_000_000 * hz.denominator, hz.numerator
    # The last k with floor((2 k n + d) / 2 d) <= span, that is 2 k n + d < 2 d (span + 1).
    last = (2 * denominator * (end_ns - start_ns + 1) - denominator - 1) // (2 * numerator)
    if last >= MAX_FRAMES:
        message = f"rate {float(hz):g} Hz over {(end_ns - start_ns) / 1e9:.1f} s makes {last + 1} frames"
        raise ArgumentError(f"{message}, more than {MAX_FRAMES}; lower the rate")
    if 2 * (max(last, 1) * numerator + denominator) < 2**63:
        return start_ns + (np.arange(last + 1) * (2 * numerator) + denominator) // (2 * denominator)
    steps = ((2 * k * numerator + denominator) // (2 * denominator) for k in range(last + 1))
    return start_ns + np.fromiter(steps, np.int64, last + 1)


def default_policy(stream: RecordedStream, times_ns: Int64) -> Policy:
    """What to do between two samples when the description does not say: by kind and dtype, see the table above."""
    period_ns = median_period_ns(times_ns)
    max_gap = None if period_ns is None else GAP_PERIODS * period_ns
    if stream.kind in ("points", "image"):
        return Nearest(max_gap=None if max_gap is None else max_gap // 2)
    if not np.issubdtype(stream.values.dtype, np.floating):
        return Previous(max_gap=max_gap)
    if stream.kind == "quaternion_xyzw":
        return Slerp(max_gap=max_gap, order="xyzw")
    if stream.kind == "quaternion_wxyz":
        return Slerp(max_gap=max_gap, order="wxyz")
    if stream.kind == "angle":
        return Angle(max_gap=max_gap)
    return Linear(max_gap=max_gap)


def median_period_ns(times_ns: Int64) -> int | None:
    """The middle distance between two different stamps; None when there are not two."""
    distances = np.diff(times_ns)
    distances = distances[distances > 0]
    return int(np.median(distances)) if len(distances) else None


def unknown_stream(name: str, episode: Episode) -> UnknownStreamError:
    """The error for a name that the episode does not have: says which it has, and the likely one first."""
    close = difflib.get_close_matches(name, episode.streams, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    names = ", ".join(episode.streams) or "no streams"
    return UnknownStreamError(f"{episode.source}: no stream {name!r} in {episode.name}; {hint}it has: {names}")


def _plan_stream(episode: Episode, name: str, source: From) -> PlannedStream:
    stream = episode.streams.get(source.source)
    if stream is None:
        raise unknown_stream(source.source, episode)
    rows = np.arange(len(stream.times_ns), dtype=np.int64)
    if source.missing == "drop" and stream.offsets is None and np.issubdtype(stream.values.dtype, np.floating):
        rows = _rows_without_nan(stream)
    if not len(rows):
        what = "no samples" if not len(stream.times_ns) else "no sample without a NaN"
        message = f"{episode.source}: stream {source.source!r} of {episode.name} has {what}"
        raise ArgumentError(f"{message}; leave it out by naming the streams that you want")
    times_ns = stream.times_ns[rows] - source.latency_ns
    policy = _policy(name, source, stream, times_ns)
    return PlannedStream(name, stream, policy, rows, times_ns, source.horizon, source.then)


def _policy(name: str, source: From, stream: RecordedStream, times_ns: Int64) -> Policy | Window:
    check_fit(name, source, stream)
    policy = source.policy if source.policy is not None else default_policy(stream, times_ns)
    if isinstance(policy.max_gap, str):
        policy = dataclasses.replace(policy, max_gap=duration_ns(policy.max_gap))
    if isinstance(policy, Window):
        policy = dataclasses.replace(policy, span=policy.span_ns)
    return policy


def _plan_absent(name: str, source: From, like: RecordedStream, times_ns: Int64) -> PlannedStream:
    stream = stand_in(like, at_ns=int(times_ns[0]) if len(times_ns) else 0)
    policy = _policy(name, source, stream, stream.times_ns)
    rows = np.zeros(1, np.int64)
    return PlannedStream(name, stream, policy, rows, stream.times_ns, source.horizon, source.then, is_absent=True)


def _rows_without_nan(stream: RecordedStream) -> Int64:
    missing = np.isnan(stream.values)
    # A sensor that never fills a column (a covariance, an altitude) has not lost its other columns.
    judged = ~missing.all(axis=0)
    if not judged.any():
        judged[:] = True
    return np.flatnonzero(~missing[:, judged].any(axis=1)).astype(np.int64, copy=False)


def _span(streams: tuple[PlannedStream, ...], span: str, episode: Episode) -> tuple[int, int]:
    starts = {stream.name: int(stream.times_ns[0]) for stream in streams}
    ends = {stream.name: int(stream.times_ns[-1]) for stream in streams}
    if span == "union":
        return min(starts.values()), max(ends.values())
    latest, earliest = max(starts, key=lambda name: starts[name]), min(ends, key=lambda name: ends[name])
    if starts[latest] > ends[earliest]:
        behind_s = (starts[latest] - ends[earliest]) / 1e9
        message = f"{episode.source}, {episode.name}: no time at which every stream has data: {latest!r} starts"
        message += f" {behind_s:.3f} s after {earliest!r} ends"
        raise ArgumentError(f"{message}; leave one out, or align with span='union'")
    return starts[latest], ends[earliest]
