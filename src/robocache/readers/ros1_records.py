"""The records of a ROS 1 bag (format 2.0), read in one pass, with nothing believed that the file does not hold.

Every length is checked against what is left of the file (or chunk), and a chunk is decompressed into at most the size
it declares and the limits allow. The format has no checksums, but it counts: chunks, connections and the messages of
every chunk are counted again at the end of the file, and a bag that holds others than those is damaged. Positions in
the index are not used: a message is where it is.
"""

from __future__ import annotations

import bz2
import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robocache.errors import BackendUnavailableError, DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits
from robocache.readers.mcap_compression import decompressed
from robocache.readers.recording import open_binary

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
MAX_HEADER_BYTES = 2**20
_UINT32 = struct.Struct("<I")
REINDEX = "copy or record it again, or recover what is left with `rosbag reindex`"
Header = dict[bytes, bytes]


class RecordError(ValueError):
    """A record that is not what the format says; the reader turns it into an error that names file and byte."""


@dataclass(frozen=True)
class Block:
    """Records that lie one after the other in memory: the content of a chunk, or a single record.

    Args:
        data: Their bytes.
        offset: Where the block begins in the file.
        is_chunk: Whether it was a chunk; offsets inside then count its decompressed bytes.
    """

    data: bytes
    offset: int
    is_chunk: bool


class BagFile:
    """An open ROS 1 bag."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._file, self._process = open_binary(path), os.getpid()
        try:
            self._size = self._file.seek(0, 2)
            self._file.seek(0)
            self._check_signature()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self) -> Iterator[Block]:
        """Every chunk, and every connection and message outside of one, in the file's order.

        `check_counts` comes after the last one.
        """
        self._reopen_after_fork()
        self._chunks: set[int] = set()
        self._connections = 0
        self._infos: dict[int, Counter[int]] = {}
        at = len(MAGIC)
        self._file.seek(at)
        header, length, following = self._record(at)
        if header.get(b"op") != bytes([BAG_HEADER]):
            raise self.damage("the first record is not the header of a bag", at)
        self._take_bag_header(header, at)
        self._content(length, following - length)
        while following < self._size:
            at = following
            header, length, following = self._record(at)
            yield from self._blocks_of(header, self._content(length, following - length), at)

    def blocks_between(self, first: int, last: int) -> Iterator[Block]:
        """The blocks from one byte of the file to another, where `blocks` has found some."""
        self._reopen_after_fork()
        at = first
        while at <= last:
            self._file.seek(at)
            header, length, following = self._record(at)
            yield from self._blocks_of(header, self._content(length, following - length), at)
            at = following

    def _reopen_after_fork(self) -> None:
        # Parent and child would move one position in the file between them.
        if os.getpid() != self._process:
            self._file.close()
            self._file, self._process = open_binary(self.path), os.getpid()

    def check_counts(self, counts: dict[int, Counter[int]]) -> None:
        """Compare what was found with what the bag says at its end.

        Args:
            counts: Messages found, by offset of the chunk and by connection.

        Raises:
            DamagedRecordingError: They differ.
        """
        for what, declared, found in (
            ("chunks", self._declared[1], len(self._chunks)),
            ("connections in its index", self._declared[0], self._connections),
            ("chunks in its index", self._declared[1], len(self._infos)),
        ):
            if declared != found:
                raise self.damage(f"the bag declares {declared} {what}, but has {found}: it was truncated", self._size)
        for offset in sorted(self._chunks):
            declared_messages, found_messages = self._infos.get(offset), counts.get(offset, Counter())
            if declared_messages != found_messages:
                problem = f"the chunk there has {found_messages.total()} messages, and its index tells otherwise"
                raise self.damage(problem, offset)

    def block_at(self, at: int) -> bytes:
        """The data of a block that `blocks` gave, read again; from any thread, and from a forked process.

        Raises:
            DamagedRecordingError: It is no longer there.
        """
        number_ = self._file.fileno()
        try:
            (length,) = _UINT32.unpack(os.pread(number_, 4, at))
            header = fields(os.pread(number_, min(length, MAX_HEADER_BYTES), at + 4))
            (size,) = _UINT32.unpack(os.pread(number_, 4, at + 4 + length))
            content = os.pread(number_, min(size, self._size, self.limits.block_bytes), at + 8 + length)
            if number(header, b"op", 1) == CHUNK:
                return self._decompressed(header, content, at)
            return os.pread(number_, 8 + length + size, at)
        except (RecordError, struct.error) as error:
            raise self.damage("changed while it was read", at) from error

    def damage(self, problem: str, at: int, block: Block | None = None) -> DamagedRecordingError:
        """The error for damage at a byte of the file, or of a block."""
        if block is not None and block.is_chunk:
            problem = f"in the chunk there, at its decompressed byte {at}, {problem}"
        return DamagedRecordingError(self.path, problem, offset=at if block is None else block.offset, remedy=REINDEX)

    def _check_signature(self) -> None:
        if self._read(min(len(MAGIC), self._size), 0) != MAGIC:
            raise self.damage("does not start with the signature of a ROS 1 bag of version 2.0", 0)

    def _take_bag_header(self, header: Header, at: int) -> None:
        try:
            index_at = number(header, b"index_pos", 8)
            self._declared = (number(header, b"conn_count", 4), number(header, b"chunk_count", 4))
        except RecordError as error:
            raise self.damage(f"the header of the bag {error}", at) from error
        if header.get(b"encryptor"):
            raise self.damage(f"the bag is encrypted by {header[b'encryptor'][:40]!r}", at)
        if index_at == 0:
            raise self.damage("the bag has no index: its recording never finished", at)
        if index_at > self._size:
            problem = f"the bag puts its index at byte {index_at}, but has {self._size} bytes: it was truncated"
            kind = RecordingLimitError if index_at >= 2**48 else DamagedRecordingError
            raise kind(self.path, problem, offset=at, remedy=REINDEX)

    def _blocks_of(self, header: Header, content: bytes, at: int) -> Iterator[Block]:
        try:
            kind = number(header, b"op", 1)
            if kind == CHUNK:
                self._chunks.add(at)
                yield Block(self._decompressed(header, content, at), at, is_chunk=True)
            elif kind in (CONNECTION, MESSAGE):
                self._connections += kind == CONNECTION
                start = self._file.tell()
                self._file.seek(at)
                yield Block(self._read(start - at, at), at, is_chunk=False)
                self._file.seek(start)
            elif kind == CHUNK_INFO:
                self._take_chunk_info(header, content)
            elif kind != INDEX:
                raise self.damage(f"a record has the type {kind:#04x}, which bags do not have", at)
        except RecordError as error:
            raise self.damage(f"a record {error}", at) from error

    def _take_chunk_info(self, header: Header, content: bytes) -> None:
        if len(content) % 8:
            raise RecordError(f"about a chunk has {len(content)} bytes, which are no pairs of numbers")
        pairs = list(struct.iter_unpack("<II", content))
        if len(pairs) != number(header, b"count", 4):
            raise RecordError(f"about a chunk has {len(pairs)} connections, not {number(header, b'count', 4)}")
        self._infos[number(header, b"chunk_pos", 8)] = Counter(dict(pairs))

    def _decompressed(self, header: Header, content: bytes, at: int) -> bytes:
        compression, declared = header.get(b"compression", b""), number(header, b"size", 4)
        if compression == b"none":
            return decompressed(self.path, at, b"", memoryview(content), declared, self.limits)
        if compression == b"lz4":
            try:
                import lz4.frame  # noqa: F401 -- it serves another format as well, whose extra has another name
            except ModuleNotFoundError as error:
                problem = (
                    f'{self.path} is compressed with lz4, but lz4 is not installed; pip install "robocache[rosbag]"'
                )
                raise BackendUnavailableError(problem) from error
            return decompressed(self.path, at, b"lz4", memoryview(content), declared, self.limits)
        if compression != b"bz2":
            raise self.damage(f"a chunk is compressed with {compression[:20]!r}, which is not bz2 or lz4", at)
        cap = self.limits.decompressed_bytes(len(content))
        if declared > cap:
            problem = f"a chunk of {len(content)} bytes declares {declared} decompressed bytes, and {cap} are allowed"
            remedy = "open it with a larger Limits(block_bytes=..., expansion=...) if you trust it"
            raise RecordingLimitError(self.path, problem, offset=at, remedy=remedy)
        return self._bz2(content, declared, at)

    def _bz2(self, content: bytes, declared: int, at: int) -> bytes:
        decompressor = bz2.BZ2Decompressor()
        try:
            data = decompressor.decompress(content, max_length=declared + 1)
        except (OSError, ValueError, EOFError) as error:
            raise self.damage(f"a chunk does not decompress with bz2 ({error})", at) from error
        if len(data) != declared:
            got = f"more than {declared}" if len(data) > declared else f"{len(data)}"
            raise self.damage(f"a chunk declares {declared} decompressed bytes, but has {got}", at)
        return data

    def _record(self, at: int) -> tuple[Header, int, int]:
        """Header of the record at a byte, the length of its content, and where the next record starts."""
        (length,) = _UINT32.unpack(self._read(4, at))
        if length > min(MAX_HEADER_BYTES, self._size - at):
            problem = f"the header of a record declares {length} bytes, but {self._size - at - 4} are left"
            if length <= self._size - at:
                problem = f"the header of a record of {length} bytes is larger than {MAX_HEADER_BYTES}"
            raise self.damage(problem, at)
        try:
            header = fields(self._read(length, at))
        except RecordError as error:
            raise self.damage(f"the header of a record {error}", at) from error
        (content,) = _UINT32.unpack(self._read(4, at))
        following = at + 8 + length + content
        if following > self._size:
            problem = f"a record declares {content} bytes, but the file has {self._size - at - 8 - length} left"
            raise self.damage(problem, at)
        return header, content, following

    def _content(self, length: int, at: int) -> bytes:
        if length > self.limits.block_bytes:
            problem = f"a record of {length} bytes is larger than the limit of {self.limits.block_bytes}"
            raise RecordingLimitError(self.path, problem, offset=at, remedy="raise Limits(block_bytes=...)")
        return self._read(length, at)

    def _read(self, size: int, at: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self.damage(f"cannot be read ({error.strerror or error})", at) from error
        if len(data) != size:
            raise self.damage("ends inside a record", at)
        return data


def fields(header: bytes) -> Header:
    """The fields of a record's header.

    Raises:
        RecordError: It is not made of fields.
    """
    found, at = {}, 0
    while at < len(header):
        if len(header) - at < 4:
            raise RecordError(f"ends inside a field, at its byte {at}")
        (length,) = _UINT32.unpack_from(header, at)
        at += 4
        if length > len(header) - at:
            raise RecordError(f"has a field of {length} bytes, but {len(header) - at} are left")
        name, separator, value = header[at : at + length].partition(b"=")
        if not separator:
            raise RecordError(f"has a field without a name, {name[:40]!r}")
        found[name] = value
        at += length
    return found


def number(header: Header, name: bytes, size: int) -> int:
    """An unsigned integer of a header.

    Raises:
        RecordError: There is none of this size.
    """
    value = header.get(name, b"")
    if len(value) != size:
        raise RecordError(f"has no {name.decode()} of {size} bytes")
    return int.from_bytes(value, "little")
