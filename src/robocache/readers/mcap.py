"""MCAP files of ROS 2 messages (CDR), without a ROS installation.

Files and messages are decoded here, with numpy, so that many equal messages cost what one does, and with every
declared size checked; only zstd and lz4 chunks need the `mcap` extra.

Checksums are verified where the writer made them (the mcap library does, some bag converters do not): in a file
without, a flipped bit inside a message is a wrong number that no reader can notice.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import REACH_NS, Limits
from robocache.readers.mcap_records import CHANNEL, HEADER, MESSAGE, RECOVER, SCHEMA, Block, McapFile
from robocache.readers.recording import OpenRecording, requested_streams
from robocache.readers.ros2_layout import LayoutError
from robocache.readers.ros2_recipes import READS
from robocache.readers.ros2_schema import SchemaError, parse_definitions, short_name
from robocache.readers.ros2_topic import Topic
from robocache.records import Episode, RecordedStream

_PREFIX = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<BQHIQQ")


@dataclass
class _Contents:
    """What one pass over the file has found."""

    schemas: dict[int, tuple[str, str, bytes]] = field(default_factory=dict)
    channels: dict[int, tuple[str, Topic | None]] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    profile: str = ""
    library: str = ""


class McapRecording(OpenRecording):
    """An MCAP file as a `Recording` of one episode, named after the file.

    A message becomes one row of one or several streams, called topic + "." + part: "/imu/data.orientation",
    "/imu/data.angular_velocity", "/joint_states.position", "/points.points". The clocks are "header" (where every
    message has a stamp; then it is the one used), "log" and "publish". Topics that cannot become numbers are listed,
    with the reason, in the episode's attributes under "skipped".

    Args:
        path: The file.
        limits: What it may make the reader allocate.
    """

    format = "mcap"

    def __init__(self, path: Path, *, limits: Limits) -> None:
        super().__init__(str(path), (path.stem,))
        self._limits = limits
        self._file = McapFile(path, limits)

    def close(self) -> None:
        """Close the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._file.close()

    def read_episode(self, index: int, streams: Collection[str] | None = None) -> Episode:
        """Read the file, in one pass; see `Recording.read_episode`."""
        self._check_episode(index)
        contents, found = self._read(streams)
        if streams is not None and any(name not in found for name in streams):
            _, everything = self._read(None)
            requested_streams(self.path, streams, everything)
        names = requested_streams(self.path, streams, found)
        attributes = {"profile": contents.profile, "library": contents.library, "skipped": contents.skipped}
        return Episode(self.episode_names[0], {name: found[name] for name in names}, self.path, attributes)

    def _read(self, streams: Collection[str] | None) -> tuple[_Contents, dict[str, RecordedStream]]:
        contents = _Contents()
        for block in self._file.blocks():
            self._read_block(block, contents, streams)
            self._check_held(sum(topic.nbytes for topic in contents.topics.values()))
        found: dict[str, RecordedStream] = {}
        for topic in contents.topics.values():
            try:
                found.update((stream.name, stream) for stream in topic.streams())
            except LayoutError as error:
                raise self._unfit(topic, error) from error
            self._check_held(sum(topic.nbytes for topic in contents.topics.values()))
        return contents, found

    def _check_held(self, held: int) -> None:
        if held > self._limits.episode_bytes:
            problem = f"its streams take {held} bytes or more, and the limit is {self._limits.episode_bytes}"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, remedy=remedy)

    def _read_block(self, block: Block, contents: _Contents, streams: Collection[str] | None) -> None:
        data, at, end = block.data, block.start, block.end
        while at < end:
            if end - at < _PREFIX.size:
                raise self._damage(block, at, f"ends inside a record, {end - at} bytes after its start")
            opcode, length = _PREFIX.unpack_from(data, at)
            following = at + _PREFIX.size + length
            if following > end:
                raise self._damage(
                    block, at, f"a record declares {length} bytes, but {end - at - _PREFIX.size} are left"
                )
            if opcode == MESSAGE:
                self._read_message(block, at, following, contents)
            elif opcode in (HEADER, SCHEMA, CHANNEL):
                try:
                    self._read_definition(opcode, data[at + _PREFIX.size : following], contents, streams)
                except (struct.error, UnicodeDecodeError, IndexError) as error:
                    raise self._damage(block, at, f"a record of type {opcode:#04x} is malformed ({error})") from error
            at = following

    def _read_message(self, block: Block, at: int, following: int, contents: _Contents) -> None:
        if following - at < _MESSAGE.size:
            raise self._damage(block, at, f"a message of {following - at} bytes is too short for its own header")
        _, _, channel, _, log_ns, publish_ns = _MESSAGE.unpack_from(block.data, at)
        try:
            topic = contents.channels[channel][1]
        except KeyError:
            raise self._damage(
                block, at, f"a message is of channel {channel}, which nothing before it defines"
            ) from None
        if topic is None:
            return
        if log_ns > REACH_NS or publish_ns > REACH_NS:
            raise self._damage(block, at, f"a message is stamped {max(log_ns, publish_ns)} ns, after the year 2116")
        try:
            topic.add(block.data[at + _MESSAGE.size : following], log_ns, publish_ns)
        except LayoutError as error:
            raise self._unfit(topic, error) from error

    def _read_definition(
        self, opcode: int, record: bytes, contents: _Contents, streams: Collection[str] | None
    ) -> None:
        fields = _FieldReader(record)
        if opcode == HEADER:
            contents.profile, contents.library = fields.text(), fields.text()
        elif opcode == SCHEMA:
            number = fields.uint16()
            contents.schemas[number] = (fields.text(), fields.text(), fields.block())
        else:
            number, schema, name, encoding = fields.uint16(), fields.uint16(), fields.text(), fields.text()
            known = contents.channels.get(number)
            if known is not None and known[0] != name:
                raise IndexError(f"channel {number} is {name}, but was {known[0]} before")
            if known is None:
                contents.channels[number] = (name, self._topic(name, schema, encoding, contents, streams))

    def _topic(
        self, name: str, schema: int, encoding: str, contents: _Contents, streams: Collection[str] | None
    ) -> Topic | None:
        """Where the messages of a channel go; None when they are skipped, or not asked for."""
        if schema and schema not in contents.schemas:
            raise IndexError(f"channel {name} refers to schema {schema}, which nothing before it defines")
        type_name, schema_encoding, text = contents.schemas.get(schema, ("", "", b""))
        if encoding != "cdr" or schema_encoding != "ros2msg":
            contents.skipped[name] = f"{encoding or 'unknown'} messages with a {schema_encoding or 'missing'} schema"
            return None
        if short_name(type_name) not in READS:
            contents.skipped[name] = f"{type_name} is not a message that becomes numbers"
            return None
        if streams is not None and not any(_belongs(stream, name) for stream in streams):
            return None
        try:
            definitions = parse_definitions(type_name, text.decode("utf-8"))
        except SchemaError as error:
            contents.skipped[name] = f"its schema cannot be understood: {error}"
            return None
        if name not in contents.topics:
            contents.topics[name] = Topic(name, type_name, definitions)
        return contents.topics[name]

    def _damage(self, block: Block, at: int, problem: str) -> DamagedRecordingError:
        if block.is_chunk:
            problem = f"in the chunk there, at its decompressed byte {at}, {problem}"
        return DamagedRecordingError(self.path, problem, offset=block.offset, remedy=RECOVER)

    def _unfit(self, topic: Topic, error: LayoutError) -> DamagedRecordingError:
        problem = f"a {topic.type_name} message {error}"
        remedy = "record it again, or leave the topic out with streams=[...]"
        return DamagedRecordingError(self.path, problem, place=f"topic {topic.name}", remedy=remedy)


class _FieldReader:
    """Reads the length-prefixed fields of a small record; too short is a `struct.error`."""

    def __init__(self, record: bytes) -> None:
        self.record = record
        self.at = 0

    def uint16(self) -> int:
        (value,) = struct.unpack_from("<H", self.record, self.at)
        self.at += 2
        return int(value)

    def block(self) -> bytes:
        (length,) = struct.unpack_from("<I", self.record, self.at)
        start = self.at + 4
        self.at = start + length
        if self.at > len(self.record):
            raise struct.error(f"a field of {length} bytes ends behind the record of {len(self.record)}")
        return self.record[start : self.at]

    def text(self) -> str:
        return self.block().decode("utf-8")


def _belongs(stream: str, topic: str) -> bool:
    """Whether a stream's name, such as "/imu.orientation" or "/joints#2.position", is one of a topic's."""
    return stream.rpartition(".")[0].partition("#")[0] == topic
