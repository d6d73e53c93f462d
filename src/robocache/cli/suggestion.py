"""`robocache inspect --suggest`: a description to begin with, from what a recording holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robocache.align import Align
from robocache.align.lerobot import feature_name
from robocache.align.plan import default_policy
from robocache.align.yaml_schema import POLICIES
from robocache.align.yaml_writing import dump, form_mapping
from robocache.cli.clocks import clock_offsets
from robocache.cli.console import milliseconds, number
from robocache.errors import ArgumentError

if TYPE_CHECKING:
    from robocache.readers import StreamStatistics
    from robocache.records import Episode, RecordedStream

MAX_RATE_HZ = 50.0  # of recordings without images; a policy that acts more often is rare
NEAR_WHOLE = 0.02  # a camera of 29.97 or 30.04 Hz is asked for 30 frames a second
MAX_LATENCY_NS = 10 * 10**9  # clocks further apart count from different zeros
_ACTIONS = ("action", "actions", "cmd_vel", "command", "cmd")
_GROUPS = ("observation/", "observations/", "obs/")
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))


@dataclass
class _Seen:
    measured: StreamStatistics
    kind: str
    policy: dict[str, Any] | str
    clocks: list[str]
    then: dict[str, Any] | None = None
    problem: str | None = None
    episodes: int = 0


class Suggestion:
    """Collects what the episodes of a recording hold, and keeps numbers only.

    Args:
        path: The recording, for the comments.
        form: Its format.
    """

    def __init__(self, path: str, form: str) -> None:
        self._path, self._form = path, form
        self._seen: dict[str, _Seen] = {}
        self._episodes = 0
        self._spans: list[dict[str, tuple[int, int]]] = []

    def see(self, episode: Episode, statistics: Iterable[StreamStatistics]) -> None:
        """Take in one episode.

        Args:
            episode: As read.
            statistics: Of its streams.
        """
        self._episodes += 1
        spans: dict[str, tuple[int, int]] = {}
        for measured in statistics:
            stream = episode.streams[measured.name]
            if measured.name not in self._seen:
                self._seen[measured.name] = _first_look(stream, measured)
            seen = self._seen[measured.name]
            seen.episodes += 1
            seen.problem = seen.problem or _problem(stream, measured, episode.name)
            if measured.start_ns is not None and measured.end_ns is not None:
                spans[measured.name] = (measured.start_ns, measured.end_ns)
        self._spans.append(spans)

    def text(self) -> str:
        """The description, commented.

        Raises:
            ArgumentError: No stream can be aligned.
        """
        usable = {name: seen for name, seen in self._seen.items() if seen.problem is None}
        if not usable:
            raise ArgumentError(f"{self._path}: no stream that could be aligned, so there is nothing to suggest")
        rate, reason = _rate(usable)
        lines = [
            _comment(
                f"How to align {self._path} ({self._form}, episodes: {self._episodes}); docs/align.md has every key."
            ),
            _comment("robocache align RECORDING --spec THIS_FILE --out DIR, or rc.Align.from_yaml(THIS_FILE)"),
            "",
            _comment(f"Frames a second: {reason}"),
            f"clock: {{rate: {rate}}}",
        ]
        if not self._overlaps(usable):
            lines += [_comment("there is no time at which every stream has data"), "span: union"]
        lines.append("streams:")
        taken: set[str] = set()
        for name, seen in self._seen.items():
            lines += ["", *_facts(name, seen)]
            if seen.problem is not None:
                lines.append(_comment(f"left out: {seen.problem}", indent=2))
                continue
            lines += self._entry(_unique(result_name(name, seen.kind), taken), name, seen)
        text = "\n".join(lines) + "\n"
        Align.from_yaml(text)  # what is suggested must be readable
        return text

    def _entry(self, result: str, name: str, seen: _Seen) -> list[str]:
        mapping: dict[str, Any] = {"source": name, "policy": seen.policy}
        if seen.then is not None:
            mapping["then"] = seen.then
        if seen.episodes < self._episodes:
            mapping["optional"] = True
        return ["  " + line for line in dump({result: mapping}).rstrip("\n").split("\n")] + [
            _comment(clock, indent=4) for clock in seen.clocks
        ]

    def _overlaps(self, usable: dict[str, _Seen]) -> bool:
        for spans in self._spans:
            mine = [span for name, span in spans.items() if name in usable]
            if mine and max(start for start, _ in mine) > min(end for _, end in mine):
                return False
        return True


def result_name(stream: str, kind: str) -> str:
    """A name as LeRobot would call the stream: "action", or something under "observation.".

    Args:
        stream: Its name in the recording.
        kind: What it holds.
    """
    bare = stream.strip("/")
    for group in _GROUPS:
        bare = bare.removeprefix(group)
    if bare.split("/")[-1] in _ACTIONS and kind not in ("image", "points"):
        return "action"
    return feature_name(bare, is_image=kind == "image")


def _first_look(stream: RecordedStream, measured: StreamStatistics) -> _Seen:
    policy: dict[str, Any] | str = "previous"
    if stream.values.dtype.kind in "fiub":
        policy = form_mapping(default_policy(stream, stream.times_ns), POLICIES)
        if isinstance(policy, dict) and isinstance(policy.get("max_gap"), int):
            policy["max_gap"] = duration_text(policy["max_gap"])
    clocks = []
    for name, offset in clock_offsets(stream).items():
        if 0 < abs(offset.median) <= MAX_LATENCY_NS:
            clocks.append(
                f"latency: {-round(offset.median)}  # nanoseconds; would put it on its clock {name!r},"
                f" which is {offset.text()} from {stream.clock!r}"
            )
    return _Seen(measured, stream.kind, policy, clocks, _even(stream))


def _even(stream: RecordedStream) -> dict[str, Any] | None:
    """What makes images fit a video, whose sides must be even."""
    if stream.frames is None:
        return None
    height, width, _ = stream.frames.shape
    if height % 2 == 0 and width % 2 == 0:
        return None
    return {"type": "resize", "height": height + height % 2, "width": width + width % 2}


def _problem(stream: RecordedStream, measured: StreamStatistics, episode: str) -> str | None:
    if stream.values.dtype.kind not in "fiub" or stream.values.dtype.itemsize > 8:
        return f"{stream.values.dtype} is neither a number nor a bool"
    if not measured.count:
        return f"it has no samples in {episode}"
    if measured.nan_fraction == 1:
        return f"it has nothing but NaN in {episode}"
    return None


def duration_text(duration_ns: int) -> str:
    """A duration for people that is not shorter: 100.00001 ms is "100.01ms".

    Args:
        duration_ns: Nanoseconds.
    """
    for unit_ns, unit in _UNITS:
        if duration_ns >= unit_ns:
            hundredths = -(-duration_ns * 100 // unit_ns)
            return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + unit
    return f"{duration_ns}ns"


def _rate(usable: dict[str, _Seen]) -> tuple[str, str]:
    rates = {name: s.measured.rate_hz for name, s in usable.items() if math.isfinite(s.measured.rate_hz)}
    images = {name: rate for name, rate in rates.items() if usable[name].kind == "image"}
    if not rates:
        return "10", "no stream has two different stamps to measure a rate by"
    chosen = images or rates
    fastest = max(chosen, key=lambda name: chosen[name])
    hz = min(max(chosen[fastest], 0.001), 1e9)
    what = "that of the images" if images else "that of the fastest stream"
    if not images and hz > MAX_RATE_HZ:
        return f"{MAX_RATE_HZ:g}", f"{fastest} comes at {number(hz, 4)} Hz; {MAX_RATE_HZ:g} is usual for a policy"
    nearest = round(hz)
    is_near = nearest >= 1 and abs(hz - nearest) <= NEAR_WHOLE * nearest
    return (str(nearest) if is_near else f"{hz:.4f}".rstrip("0")), f"{what}, {fastest}, {number(hz, 4)} Hz"


def _facts(name: str, seen: _Seen) -> list[str]:
    measured = seen.measured
    parts = [f"{name}: {seen.kind}, {measured.count} samples"]
    if math.isfinite(measured.rate_hz):
        parts.append(f"{number(measured.rate_hz, 4)} Hz, jitter {milliseconds(measured.jitter_ns)}")
    parts.append(f"clock {measured.clock!r}")
    if measured.gaps:
        parts.append(f"{len(measured.gaps)} gaps")
    if measured.nan_fraction:
        parts.append(f"{measured.nan_fraction:.1%} NaN")
    return [_comment(", ".join(parts), indent=2)]


def _unique(name: str, taken: set[str]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def _comment(text: str, *, indent: int = 0) -> str:
    # Names come from the file: one with a line break must not end the comment.
    return " " * indent + "# " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
