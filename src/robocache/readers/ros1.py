"""ROS 1 bags (format 2.0), without a ROS installation.

Container and messages are decoded here, with every declared size checked; only lz4 chunks need the `rosbag` extra.
The format has no checksums (bz2 and lz4 chunks have their own): elsewhere a flipped bit inside a message is a wrong
number that no reader can notice.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robocache.readers.limits import Limits
from robocache.readers.messages import MessageRecording, Segment, Unit
from robocache.readers.ros1_records import CONNECTION, MESSAGE, BagFile, Block, Header, RecordError, fields, number
from robocache.readers.topics import AnyTopic, Topics
from robocache.records import Int64

_UINT32 = struct.Struct("<I")


@dataclass
class _Contents:
    """What one pass over the file has found."""

    topics: Topics
    connections: dict[int, tuple[str, AnyTopic | None]] = field(default_factory=dict)
    counts: dict[int, Counter[int]] = field(default_factory=dict)
    definitions: dict[int, tuple[Header, bytes]] = field(default_factory=dict)


class Ros1Recording(MessageRecording):
    """A ROS 1 bag as a `Recording` of one episode, named after the file.

    A message becomes the same rows and streams as in an MCAP file. The clocks are "header" (where every message has a
    stamp; then it is the one used) and "log", the time in the bag. Topics that cannot become numbers are listed, with
    the reason, in the episode's attributes under "skipped".

    Args:
        path: The file.
        limits: What it may make the reader allocate.
    """

    format = "ros1"

    def __init__(self, path: Path, *, limits: Limits) -> None:
        super().__init__(str(path), (path.stem,))
        self._limits = limits
        self._file = BagFile(path, limits)
        self._definitions: dict[int, tuple[Header, bytes]] = {}

    def close(self) -> None:
        """Close the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._file.close()

    def _topics(self, streams: Collection[str] | None) -> Topics:
        return Topics(self.path, self._limits, streams, ros1=True)

    def _pass(self, topics: Topics) -> Iterator[Unit]:
        contents = _Contents(topics)
        for block in self._file.blocks():
            self._read_block(block, contents)
            yield (0, block.offset), (0, block.offset)
        self._file.check_counts(contents.counts)
        self._definitions = contents.definitions

    def _again(self, topics: Topics, segment: Segment) -> Iterator[Unit]:
        contents = _Contents(topics)
        for header, content in self._definitions.values():
            _take_connection(header, content, contents)
        for block in self._file.blocks_between(segment.first[1], segment.last[1]):
            self._read_block(block, contents)
            yield (0, block.offset), (0, block.offset)

    def _attributes(self) -> dict[str, Any]:
        return {"profile": "ros1"}

    def _payloads(self, places: Int64) -> Iterator[bytes]:
        self._check_episode(0)
        at, data = -1, b""
        for block, start, size in places.tolist():
            if block != at:
                at, data = block, self._file.block_at(block)
            yield data[start : start + size]

    def _read_block(self, block: Block, contents: _Contents) -> None:
        at = 0
        while at < len(block.data):
            header, start = self._part(block, at)
            content, following = self._part(block, start)
            try:
                self._take_record(fields(header), content, (block, following - len(content)), contents)
            except RecordError as error:
                raise self._file.damage(f"a record {error}", at, block) from error
            at = following

    def _part(self, block: Block, at: int) -> tuple[bytes, int]:
        """The bytes behind a length word, and where they end."""
        left = len(block.data) - at - 4
        if left < 0:
            raise self._file.damage("it ends inside a record", at, block)
        (length,) = _UINT32.unpack_from(block.data, at)
        if length > left:
            raise self._file.damage(f"a record declares {length} bytes, but {left} are left", at, block)
        return block.data[at + 4 : at + 4 + length], at + 4 + length

    def _take_record(self, header: Header, content: bytes, place: tuple[Block, int], contents: _Contents) -> None:
        kind = number(header, b"op", 1)
        if kind == MESSAGE:
            self._take_message(header, content, place, contents)
        elif kind == CONNECTION:
            _take_connection(header, content, contents)
        else:
            raise RecordError(f"has the type {kind:#04x}, which a chunk does not hold")

    def _take_message(self, header: Header, content: bytes, place: tuple[Block, int], contents: _Contents) -> None:
        block, start = place
        connection = number(header, b"conn", 4)
        if connection not in contents.connections:
            raise RecordError(f"is a message of connection {connection}, which nothing before it defines")
        stamp = number(header, b"time", 8)
        if block.is_chunk:
            contents.counts.setdefault(block.offset, Counter())[connection] += 1
        topic = contents.connections[connection][1]
        if topic is not None:
            log_ns = (stamp & 0xFFFFFFFF) * 1_000_000_000 + (stamp >> 32)
            contents.topics.add(topic, content, log_ns, place=(block.offset, start))


def _take_connection(header: Header, content: bytes, contents: _Contents) -> None:
    """A connection stands before its first message, and again in the index."""
    connection = number(header, b"conn", 4)
    declared = fields(content)
    try:
        name, type_name = (text.decode() for text in (header[b"topic"], declared[b"type"]))
        definition = declared[b"message_definition"]
        known = contents.connections.get(connection)
        if known is None:
            contents.definitions[connection] = (header, content)
            contents.connections[connection] = (name, contents.topics.topic(name, type_name, definition))
        elif known[0] != name:
            raise RecordError(f"says that connection {connection} is {name!r}, but it was {known[0]!r} before")
    except KeyError as error:
        raise RecordError(f"defines connection {connection} without {error.args[0].decode()}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"defines connection {connection} by what is no text ({error.reason})") from error
