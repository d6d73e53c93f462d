"""CARMEN text logs (odometry and planar laser scans), plain, bzip2 or gzip, with a parser of our own.

A plain log has no checksum: a flipped digit is a wrong number that no reader can notice.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.carmen_lines import COPY, numbered_lines
from robocache.readers.limits import REACH_NS, Limits, MiB
from robocache.readers.recording import OpenRecording, ascending_stream, requested_streams
from robocache.readers.span import Span
from robocache.records import Episode, Int64, Kind, RecordedStream

_STAMP = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]{0,40}))?")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,63}")
_COUNT = re.compile(rb"[0-9]{1,20}")
_CLOCK = "ipc"
_TAIL = 3  # ipc_timestamp, host, logger_timestamp
_ODOMETRY = ("x", "y", "theta", "tv", "rv", "accel")
_POSES = ("x", "y", "theta", "odom_x", "odom_y", "odom_theta")
_SCANS = ("FLASER", "RLASER")
_MAX_NAMES = 1000
_MAX_PARAMETER_BYTES = MiB


class CarmenRecording(OpenRecording):
    """A CARMEN log as a `Recording` of one episode, named after the file.

    `ODOM` lines become "odom" (x, y, tv, rv, accel) and "odom.theta"; `FLASER` lines "flaser" (one column a beam),
    "flaser.position" (x, y, odom_x, odom_y) and "flaser.theta" (theta, odom_theta); `RLASER` lines the same under
    "rlaser". Headings have streams of their own because they wrap. The clocks are "ipc" (when the message was sent;
    the one used) and "logger" (seconds since the logger started, in most logs).

    `PARAM` lines are the attribute "parameters"; other messages are counted under "skipped".

    Args:
        path: The file.
        limits: What it may make the reader allocate.
    """

    format = "carmen"

    def __init__(self, path: Path, *, limits: Limits) -> None:
        name = path.stem if path.suffix in (".bz2", ".gz") else path.name
        super().__init__(str(path), (Path(name).stem,))
        self._location = path
        self._limits = limits

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read the file, in one pass."""
        del index  # a file is one episode
        log = _Log(self._location, self._limits, streams)
        for number, line in numbered_lines(self._location, self._limits):
            if not line.startswith(b"#"):
                log.add(number, line)
        available = [name for message in log.messages.values() for name in message.stream_names()]
        if not available:
            remedy = "is this a CARMEN log?"
            raise UnknownFormatError(self.path, "has no ODOM, FLASER or RLASER line", remedy=remedy)
        names = requested_streams(self.path, streams, available)
        made = {stream.name: stream for message in log.messages.values() for stream in message.streams(names)}
        skipped = {name: f"{count} messages of a kind that is not read" for name, count in log.skipped.items()}
        attributes = {"parameters": log.parameters, "skipped": skipped}
        return Episode(self.episode_names[0], {name: span.cut(made[name]) for name in names}, self.path, attributes)


@dataclass
class _Message:
    """The lines of one kind, as columns that grow."""

    name: str
    labels: tuple[str, ...]
    is_wanted: bool
    beams: int | None = None
    ranges: array[float] = field(default_factory=lambda: array("d"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    ipc: array[int] = field(default_factory=lambda: array("q"))
    logger: array[int] = field(default_factory=lambda: array("q"))

    @property
    def nbytes(self) -> int:
        return 8 * (len(self.ranges) + len(self.numbers) + len(self.ipc) + len(self.logger))

    def stream_names(self) -> tuple[str, ...]:
        if self.beams is None:
            return (self.name, f"{self.name}.theta")
        return (self.name, f"{self.name}.position", f"{self.name}.theta")

    def streams(self, names: Collection[str]) -> list[RecordedStream]:
        """Those of its streams that are in `names`."""
        numbers = np.frombuffer(self.numbers).reshape(-1, len(self.labels))
        angles = tuple(label for label in self.labels if label.endswith("theta"))
        others = tuple(label for label in self.labels if label not in angles)
        parts: dict[str, tuple[npt.NDArray[np.float64], tuple[str, ...], Kind]] = {}
        if self.beams is not None:
            ranges = np.frombuffer(self.ranges).reshape(-1, self.beams)
            parts[self.name] = (ranges, tuple(f"range_{beam}" for beam in range(self.beams)), "vector")
        parts[self.stream_names()[-2]] = (self._columns(numbers, others), others, "vector")
        parts[self.stream_names()[-1]] = (self._columns(numbers, angles), angles, "angle")
        clocks: dict[str, Int64] = {
            _CLOCK: np.frombuffer(self.ipc, np.int64),
            "logger": np.frombuffer(self.logger, np.int64),
        }
        return [
            ascending_stream(name, values, clocks, _CLOCK, columns=columns, kind=kind)
            for name, (values, columns, kind) in parts.items()
            if name in names
        ]

    def _columns(self, numbers: npt.NDArray[np.float64], labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
        return numbers[:, [self.labels.index(label) for label in labels]]


class _Log:
    """What the lines read so far have said."""

    def __init__(self, path: Path, limits: Limits, requested: Collection[str] | None) -> None:
        self.path = path
        self.limits = limits
        self.requested = requested
        self.messages: dict[str, _Message] = {}
        self.parameters: dict[str, str] = {}
        self.skipped: dict[str, int] = {}
        self._parameter_bytes = 0

    def add(self, number: int, line: bytes) -> None:
        """Take one line."""
        fields = line.split()
        if not fields:
            return
        if not _NAME.fullmatch(fields[0]):
            raise self._damage(number, f"starts with {fields[0][:20]!r}, which is no name of a message")
        name = fields[0].decode("ascii")
        if name == "ODOM":
            self._add_numbers(number, self._message(name, _ODOMETRY), fields, first=1)
        elif name in _SCANS:
            self._add_scan(number, name, fields)
        elif name == "PARAM":
            self._add_parameter(number, line, fields)
        else:
            self.skipped[name] = self.skipped.get(name, 0) + 1
            if len(self.skipped) > _MAX_NAMES:
                raise self._damage(number, f"is the {_MAX_NAMES + 1}st kind of message: this is not a log")

    def _add_scan(self, number: int, name: str, fields: list[bytes]) -> None:
        message = self._message(name, _POSES)
        if len(fields) < 2 or not _COUNT.fullmatch(fields[1]):
            raise self._damage(number, f"{name} does not say how many ranges it has")
        count, found = int(fields[1]), len(fields) - 2 - len(_POSES) - _TAIL
        if count != found or count == 0:
            raise self._damage(number, f"{name} declares {count} ranges, but its fields leave room for {found}")
        if message.beams is None:
            message.beams = count
        if message.beams != count:
            raise self._damage(number, f"{name} has {count} ranges, but those before it have {message.beams}")
        self._add_numbers(number, message, fields, first=2)

    def _add_numbers(self, number: int, message: _Message, fields: list[bytes], *, first: int) -> None:
        beams = message.beams or 0
        expected = first + beams + len(message.labels) + _TAIL
        if len(fields) != expected:
            raise self._damage(number, f"{message.name.upper()} has {len(fields)} fields instead of {expected}")
        stamps = self._stamp(number, fields[-3]), self._stamp(number, fields[-1])
        if not message.is_wanted:
            return
        values = self._floats(number, fields[first:-_TAIL])
        message.ranges.extend(values[:beams])
        message.numbers.extend(values[beams:])
        message.ipc.append(stamps[0])
        message.logger.append(stamps[1])
        held = sum(other.nbytes for other in self.messages.values())
        if held > self.limits.episode_bytes:
            problem = f"its streams take {held} bytes or more, and the limit is {self.limits.episode_bytes}"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, place="line", offset=number, remedy=remedy)

    def _floats(self, number: int, fields: list[bytes]) -> array[float]:
        """The numbers of a line; "nan" and "inf", which some drivers print for no echo, are kept as such."""
        try:
            values = array("d", map(float, fields))
        except ValueError:
            values = array("d")
        if len(values) != len(fields) or b"_" in b"".join(fields):  # float() would read 1_0 as ten
            raise self._damage(number, f"{_first_non_number(fields)!r} is not a number")
        return values

    def _stamp(self, number: int, text: bytes) -> int:
        stamp = stamp_ns(text)
        if stamp is None or abs(stamp) > REACH_NS:
            raise self._damage(number, f"{text[:30]!r} is not a time in seconds within 146 years of zero")
        return stamp

    def _add_parameter(self, number: int, line: bytes, fields: list[bytes]) -> None:
        if len(fields) < 2 + _TAIL:
            raise self._damage(number, f"PARAM has {len(fields)} fields, and needs 5 or more")
        self._parameter_bytes += len(line)
        if self._parameter_bytes > _MAX_PARAMETER_BYTES:
            raise self._damage(number, f"the PARAM lines take more than {_MAX_PARAMETER_BYTES} bytes")
        key, value = (text.decode("utf-8", "backslashreplace") for text in (fields[1], b" ".join(fields[2:-_TAIL])))
        self.parameters[key] = value

    def _message(self, name: str, labels: tuple[str, ...]) -> _Message:
        if name not in self.messages:
            own = name.lower()
            is_wanted = self.requested is None or any(stream.split(".")[0] == own for stream in self.requested)
            self.messages[name] = _Message(own, labels, is_wanted)
        return self.messages[name]

    def _damage(self, number: int, problem: str) -> DamagedRecordingError:
        return DamagedRecordingError(self.path, problem, place="line", offset=number, remedy=COPY)


def stamp_ns(text: bytes) -> int | None:
    """Decimal seconds in nanoseconds without a float between, a tenth decimal rounded half up; None if it is none."""
    match = _STAMP.fullmatch(text)
    if match is None:
        return None
    sign, seconds, decimals = match.groups(b"")
    nanoseconds = int(seconds) * 1_000_000_000 + int(decimals[:9].ljust(9, b"0")) + (decimals[9:10] >= b"5")
    return -nanoseconds if sign else nanoseconds


def _first_non_number(fields: list[bytes]) -> bytes:
    for text in fields:
        try:
            float(text)
        except ValueError:
            return text[:20]
        if b"_" in text:
            return text[:20]
    return b""
