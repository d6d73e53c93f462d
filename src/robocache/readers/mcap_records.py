"""The records of an MCAP file, read in one pass, with nothing believed that the file does not hold.

Every length is checked against what is left of the file (or chunk), a chunk is decompressed into at most the size it
declares and the limits allow, and all checksums that the file has are verified: of chunks, of the data section, of
the summary. The summary itself is not used: a message is where it is, whatever an index says.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits, MiB
from robocache.readers.mcap_compression import decompressed
from robocache.readers.recording import open_binary

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F
_CONTENT = frozenset({HEADER, SCHEMA, CHANNEL, MESSAGE, CHUNK})
_PREFIX = struct.Struct("<BQ")
_CHUNK = struct.Struct("<QQQII")
_FOOTER = struct.Struct("<QQI")
RECOVER = "copy or record it again, or recover what is left with `mcap recover`"


@dataclass(frozen=True)
class Block:
    """Records that lie one after the other in memory.

    Args:
        data: Their bytes.
        start: Where the first record begins in `data`.
        end: Where the last one ends.
        offset: Where the block begins in the file.
        is_chunk: Whether it was a chunk (offsets then count its decompressed bytes) or a single record.
    """

    data: bytes
    start: int
    end: int
    offset: int
    is_chunk: bool


class McapFile:
    """An open MCAP file whose first and last bytes are those of a finished one."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._file, self._process, self._checksum = open_binary(path), os.getpid(), 0
        try:
            self._size = self._file.seek(0, 2)
            self._check_ends()
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self) -> Iterator[Block]:
        """Every chunk, and every header, schema, channel and message outside of one, in the file's order."""
        self._reopen_after_fork()
        self._file.seek(0)
        self._checksum = 0
        self._read(len(MAGIC), 0, "signature")
        at = len(MAGIC)
        while True:
            before = self._checksum
            prefix = self._read(_PREFIX.size, at, "record")
            opcode, length = _PREFIX.unpack(prefix)
            left = self._size - len(MAGIC) - at - _PREFIX.size
            if length > left:
                problem = f"a record (type {opcode:#04x}) declares {length} bytes, but the file has {max(left, 0)} left"
                kind = RecordingLimitError if length >= 2**48 else DamagedRecordingError
                raise kind(self.path, problem, offset=at, remedy=RECOVER)
            if opcode == DATA_END:
                self._end_of_data(at, length, before)
                return
            if opcode in (0, FOOTER):
                what = "the summary" if opcode else "a record of type 0"
                raise self._damage(f"{what} comes before the end of the data", at)
            if opcode in _CONTENT:
                yield self._block(opcode, prefix, at, length)
            else:
                self._skip(length, at)
            at += _PREFIX.size + length

    def blocks_between(self, first: int, last: int) -> Iterator[Block]:
        """The blocks from one byte of the file to another, where `blocks` has found some."""
        self._reopen_after_fork()
        self._file.seek(first)
        at = first
        while at <= last:
            prefix = self._read(_PREFIX.size, at, "record")
            opcode, length = _PREFIX.unpack(prefix)
            if length > self._size - at - _PREFIX.size:
                raise self._damage("changed while it was open", at)
            if opcode in _CONTENT:
                yield self._block(opcode, prefix, at, length)
            else:
                self._skip(length, at)
            at += _PREFIX.size + length

    def _reopen_after_fork(self) -> None:
        # Parent and child would move one position in the file between them.
        if os.getpid() != self._process:
            self._file.close()
            self._file, self._process = open_binary(self.path), os.getpid()

    def _block(self, opcode: int, prefix: bytes, at: int, length: int) -> Block:
        if length > self.limits.block_bytes:
            problem = f"a record of {length} bytes is larger than the limit of {self.limits.block_bytes}"
            raise RecordingLimitError(self.path, problem, offset=at, remedy="raise Limits(block_bytes=...)")
        return self._parsed(opcode, prefix, self._read(length, at, "record"), at)

    def block_at(self, at: int) -> bytes:
        """The data of a block that `blocks` gave, read again; from any thread, and from a forked process.

        Raises:
            DamagedRecordingError: It is no longer there.
        """
        number = self._file.fileno()
        prefix = os.pread(number, _PREFIX.size, at)
        opcode, length = _PREFIX.unpack(prefix) if len(prefix) == _PREFIX.size else (0, 0)
        content = os.pread(number, length, at + _PREFIX.size) if length <= self._size else b""
        if opcode not in _CONTENT or len(content) != length:
            raise self._damage("changed while it was read", at)
        return self._parsed(opcode, prefix, content, at).data

    def _parsed(self, opcode: int, prefix: bytes, content: bytes, at: int) -> Block:
        length = len(content)
        if opcode != CHUNK:
            return Block(prefix + content, 0, len(prefix) + length, at, is_chunk=False)
        if length < _CHUNK.size:
            raise self._damage(f"a chunk of {length} bytes is too short for its own header", at)
        _, _, declared, checksum, name_length = _CHUNK.unpack_from(content)
        start = _CHUNK.size + name_length + 8
        if start > length:
            raise self._damage(f"a chunk declares a compression name of {name_length} bytes, beyond its end", at)
        compression = content[_CHUNK.size : start - 8]
        (stored,) = struct.unpack_from("<Q", content, start - 8)
        if stored != length - start:
            raise self._damage(f"a chunk declares {stored} stored bytes, but has {length - start}", at)
        data = decompressed(self.path, at, compression, memoryview(content)[start:], declared, self.limits)
        if checksum and zlib.crc32(data) != checksum:
            raise self._damage(
                f"the checksum of a chunk is {zlib.crc32(data):#010x}, but {checksum:#010x} is recorded", at
            )
        return Block(data, 0, len(data), at, is_chunk=True)

    def _end_of_data(self, at: int, length: int, checksum: int) -> None:
        if length < 4:
            raise self._damage(f"the end of the data has {length} bytes, not 4", at)
        (recorded,) = struct.unpack_from("<I", self._read(length, at, "record"))
        if recorded and recorded != checksum:
            problem = f"the checksum of the data before it is {checksum:#010x}, but {recorded:#010x} is recorded"
            raise self._damage(problem, at)
        self._check_summary(at + _PREFIX.size + length)

    def _check_summary(self, summary_at: int) -> None:
        footer_at = self._size - len(MAGIC) - _PREFIX.size - _FOOTER.size
        if footer_at < summary_at:
            raise self._damage("the file ends without a footer", summary_at)
        self._checksum = 0
        self._skip(footer_at - summary_at, summary_at)
        before = self._checksum
        footer = self._read(_PREFIX.size + _FOOTER.size, footer_at, "footer")
        opcode, length = _PREFIX.unpack_from(footer)
        if (opcode, length) != (FOOTER, _FOOTER.size):
            raise self._damage("the last record is not a footer", footer_at)
        start, _, recorded = _FOOTER.unpack_from(footer, _PREFIX.size)
        if start not in (0, summary_at):
            raise self._damage(f"the footer puts the summary at byte {start}, but it is at {summary_at}", footer_at)
        checksum = zlib.crc32(footer[:-4], before)
        if recorded and recorded != checksum:
            problem = f"the checksum of the summary is {checksum:#010x}, but {recorded:#010x} is recorded"
            raise self._damage(problem, footer_at)

    def _check_ends(self) -> None:
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise self._damage("does not start with the signature of MCAP", 0)
        if self._size < 2 * len(MAGIC) + _PREFIX.size:
            raise self._damage(f"has only {self._size} bytes: it was truncated", self._size)
        self._file.seek(-len(MAGIC), 2)
        if self._file.read(len(MAGIC)) != MAGIC:
            problem = "does not end with the signature of MCAP: it was truncated, or its recording never finished"
            raise self._damage(problem, self._size - len(MAGIC))

    def _read(self, size: int, at: int, what: str) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._damage(f"cannot be read ({error.strerror or error})", at) from error
        if len(data) != size:
            raise self._damage(f"ends inside a {what}", at)
        self._checksum = zlib.crc32(data, self._checksum)
        return data

    def _skip(self, size: int, at: int) -> None:
        while size:
            size -= len(self._read(min(size, MiB), at, "record"))

    def _damage(self, problem: str, at: int) -> DamagedRecordingError:
        return DamagedRecordingError(self.path, problem, offset=at, remedy=RECOVER)
