"""MCAP files of ROS 2 messages (CDR), or of ROS 1 messages as bags are converted to, without a ROS installation.

Files and messages are decoded here, with numpy, so that many equal messages cost what one does, and with every
declared size checked; only zstd and lz4 chunks need the `mcap` extra.

Checksums are verified where the writer made them (the mcap library does, some bag converters do not): in a file
without, a flipped bit inside a message is a wrong number that no reader can notice.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from robocache.errors import DamagedRecordingError
from robocache.readers.limits import REACH_NS, Limits
from robocache.readers.mcap_records import CHANNEL, HEADER, MAGIC, MESSAGE, RECOVER, SCHEMA, Block, McapFile
from robocache.readers.messages import MessageRecording, Segment, Unit
from robocache.readers.ros2_topic import Topic
from robocache.readers.ros_places import PlacedTopic
from robocache.readers.topics import AnyTopic, Topics
from robocache.records import Int64

_PREFIX = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<BQHIQQ")
_IS_ROS1 = {("cdr", "ros2msg"): False, ("ros1", "ros1msg"): True}  # by the encodings of messages and of their schema
RUN_BYTES = 4 * 2**20  # of messages that wait for their topic


class _Run:
    """Messages of one topic, one after the other, on their way to it."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.payloads: list[bytes] = []
        self.stamps = array("q")  # log and publish of each in turn


@dataclass
class _Contents:
    """What one pass over a file has found."""

    topics: Topics
    path: Path
    start: int = 0  # of the file among all files
    last_block: int = 0
    runs: dict[int, _Run | None] = field(default_factory=dict)  # by channel; None: its messages are left out
    schemas: dict[int, tuple[str, str, bytes]] = field(default_factory=dict)
    channels: dict[int, tuple[str, AnyTopic | None]] = field(default_factory=dict)
    definitions: dict[bytes, int] = field(default_factory=dict)
    profile: str = ""
    library: str = ""

    def run(self, topic: Topic) -> _Run:
        """The one of a topic, also where it has several channels: its messages stay in the file's order."""
        known = (run for run in self.runs.values() if run is not None and run.topic is topic)
        return next(known, None) or _Run(topic)

    def damage(self, block: Block, at: int, problem: str) -> DamagedRecordingError:
        """The error for a byte of a block."""
        if block.is_chunk:
            problem = f"in the chunk there, at its decompressed byte {at}, {problem}"
        return DamagedRecordingError(self.path, problem, offset=block.offset, remedy=RECOVER)


class McapRecording(MessageRecording):
    """An MCAP file as a `Recording` of one episode, named after the file; or several that one recording was split into.

    A message becomes one row of one or several streams, called topic + "." + part: "/imu/data.orientation",
    "/imu/data.angular_velocity", "/joint_states.position", "/points.points". The clocks are "header" (where every
    message has a stamp; then it is the one used), "log" and "publish". Topics that cannot become numbers are listed,
    with the reason, in the episode's attributes under "skipped".

    Args:
        path: The file, or the folder of several.
        limits: What one may make the reader allocate.
        files: The several, in their order.
    """

    format = "mcap"

    def __init__(self, path: Path, *, limits: Limits, files: Sequence[Path] = ()) -> None:
        super().__init__(str(path), (path.absolute().name if files else path.stem,))
        self._limits = limits
        self._files: list[McapFile] = []
        try:
            for file in files or (path,):
                self._files.append(McapFile(file, limits))
        except BaseException:
            self.close()
            raise
        # A block is known by its place in all files together.
        self._starts = [0, *accumulate(file.size for file in self._files)]
        self._contents = [_Contents(self._topics(()), file.path) for file in self._files]

    def close(self) -> None:
        """Close the files. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        for file in self._files:
            file.close()

    def _topics(self, streams: Collection[str] | None) -> Topics:
        return Topics(self.path, self._limits, streams)

    def _pass(self, topics: Topics) -> Iterator[Unit]:
        found = []
        for number, file in enumerate(self._files):
            contents = _Contents(topics, file.path, self._starts[number])
            for block in file.blocks():
                contents.last_block = block.offset
                self._read_block(block, contents)
                yield (number, block.offset), (number, block.offset)
            found.append(contents)
        self._contents = found

    def _again(self, topics: Topics, segment: Segment) -> Iterator[Unit]:
        (first_file, first), (last_file, last) = segment.first, segment.last
        for number in range(first_file, last_file + 1):
            known = self._contents[number]
            contents = _Contents(topics, known.path, known.start)
            for record, opcode in known.definitions.items():
                self._read_definition(opcode, record, contents)
            begin = first if number == first_file else len(MAGIC)
            end = last if number == last_file else known.last_block
            for block in self._files[number].blocks_between(begin, end):
                self._read_block(block, contents)
                yield (number, block.offset), (number, block.offset)

    def _attributes(self) -> dict[str, Any]:
        return {"profile": self._contents[0].profile, "library": self._contents[0].library}

    def _payloads(self, places: Int64) -> Iterator[bytes]:
        self._check_episode(0)
        at, data = -1, b""
        for block, start, size in places.tolist():
            if block != at:
                number = bisect_right(self._starts, block) - 1
                at, data = block, self._files[number].block_at(block - self._starts[number])
            yield data[start : start + size]

    def _read_block(self, block: Block, contents: _Contents) -> None:
        at = block.start
        while at < block.end:
            at = self._read_messages(block, at, contents)
            if at < block.end:
                at = self._read_record(block, at, contents)

    def _read_messages(self, block: Block, at: int, contents: _Contents) -> int:
        """Take messages up to the first record that is something else, or has something wrong; say where that is."""
        data, runs, last = block.data, contents.runs, block.end - _MESSAGE.size
        stop = min(block.end, at + RUN_BYTES)
        while at <= last:
            opcode, length, channel, _, log_ns, publish_ns = _MESSAGE.unpack_from(data, at)
            following = at + _PREFIX.size + length
            if opcode != MESSAGE or following > stop or channel not in runs:
                break
            start = at + _MESSAGE.size
            if following < start or log_ns > REACH_NS or publish_ns > REACH_NS:
                break
            run = runs[channel]
            if run is not None:
                run.payloads.append(data[start:following])
                run.stamps.append(log_ns)
                run.stamps.append(publish_ns)
            at = following
        for run in runs.values():
            if run is not None and run.payloads:
                contents.topics.add_many(run.topic, run.payloads, run.stamps)
                run.payloads, run.stamps = [], array("q")
        return at

    def _read_record(self, block: Block, at: int, contents: _Contents) -> int:
        """Take one record, whatever it is; say where the next one begins."""
        data, end = block.data, block.end
        if end - at < _PREFIX.size:
            raise contents.damage(block, at, f"ends inside a record, {end - at} bytes after its start")
        opcode, length = _PREFIX.unpack_from(data, at)
        following: int = at + _PREFIX.size + length
        if following > end:
            raise contents.damage(
                block, at, f"a record declares {length} bytes, but {end - at - _PREFIX.size} are left"
            )
        if opcode == MESSAGE:
            self._read_message(block, at, following, contents)
        elif opcode in (HEADER, SCHEMA, CHANNEL):
            try:
                self._read_definition(opcode, data[at + _PREFIX.size : following], contents)
            except (struct.error, UnicodeDecodeError, IndexError) as error:
                raise contents.damage(block, at, f"a record of type {opcode:#04x} is malformed ({error})") from error
        return following

    def _read_message(self, block: Block, at: int, following: int, contents: _Contents) -> None:
        if following - at < _MESSAGE.size:
            raise contents.damage(block, at, f"a message of {following - at} bytes is too short for its own header")
        _, _, channel, _, log_ns, publish_ns = _MESSAGE.unpack_from(block.data, at)
        try:
            topic = contents.channels[channel][1]
        except KeyError:
            raise contents.damage(
                block, at, f"a message is of channel {channel}, which nothing before it defines"
            ) from None
        if topic is None:
            return
        if log_ns > REACH_NS or publish_ns > REACH_NS:
            raise contents.damage(block, at, f"a message is stamped {max(log_ns, publish_ns)} ns, after the year 2116")
        start = at + _MESSAGE.size
        place = (contents.start + block.offset, start)
        contents.topics.add(topic, block.data[start:following], log_ns, publish_ns, place=place)

    def _read_definition(self, opcode: int, record: bytes, contents: _Contents) -> None:
        fields = _FieldReader(record)
        if opcode != HEADER:
            contents.definitions.setdefault(record, opcode)
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
                topic = self._topic(name, schema, encoding, contents)
                contents.channels[number] = (name, topic)
                if not isinstance(topic, PlacedTopic):  # of which places are kept, message by message
                    contents.runs[number] = None if topic is None else contents.run(topic)

    def _topic(self, name: str, schema: int, encoding: str, contents: _Contents) -> AnyTopic | None:
        """Where the messages of a channel go; None when they are skipped, or not asked for."""
        if schema and schema not in contents.schemas:
            raise IndexError(f"channel {name} refers to schema {schema}, which nothing before it defines")
        type_name, schema_encoding, text = contents.schemas.get(schema, ("", "", b""))
        if (encoding, schema_encoding) not in _IS_ROS1:
            contents.topics.skipped[name] = (
                f"{encoding or 'unknown'} messages with a {schema_encoding or 'missing'} schema"
            )
            return None
        return contents.topics.topic(name, type_name, text, ros1=_IS_ROS1[encoding, schema_encoding])


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
