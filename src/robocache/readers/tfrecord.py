"""The framing of TFRecord files: length, its checksum, data, their checksum. No TensorFlow."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingError, RecordingLimitError
from robocache.readers.gzip_stream import GZIP_MAGIC, GzipStream, GzipStreams
from robocache.readers.limits import Limits, MiB
from robocache.readers.recording import open_binary, unreadable
from robocache.records import Int64

COPY = "copy or download it again"
MAX_RECORDS = 100_000  # in one file, a hundred times what data sets put there
_HEADER = struct.Struct("<QI")  # length of the data, masked checksum of those eight bytes
_HEADER_ROW = np.dtype([("length", "<u8"), ("checksum", "<u4")])
_FOOTER = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), reflected
_SEGMENT = 256
_Table = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Record:
    """Where one record's data lie.

    Args:
        file: Which holds it.
        offset: First byte of the data; of the content, where the file is compressed.
        length: How many bytes it has.
    """

    file: RecordFile
    offset: int
    length: int


def is_tfrecord(path: Path) -> bool:
    """Whether a file, or what a gzip file holds, starts with a length and the checksum that belongs to it."""
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if head.startswith(GZIP_MAGIC) and not _is_header(head):
                file.seek(0)
                with GzipStream(file, path, Limits(), None) as stream:
                    head = stream.read(_HEADER.size)
    except (OSError, RecordingError):
        return False
    return _is_header(head)


def _is_header(head: bytes) -> bool:
    return len(head) == _HEADER.size and bool(_HEADER.unpack(head)[1] == masked_crc32c(head[:8]))


class RecordFile:
    """A TFRecord file, plain or compressed with gzip as a whole.

    Args:
        path: The file.
        gzips: Opens those that are compressed.

    Raises:
        RecordingNotFoundError: It cannot be read.
    """

    def __init__(self, path: Path, gzips: GzipStreams) -> None:
        self.path = path
        self._gzips = gzips
        with open_binary(path) as file:
            head = file.read(_HEADER.size)
        self.is_compressed = head.startswith(GZIP_MAGIC) and not _is_header(head)

    def opened(self) -> BinaryIO | GzipStream:
        """Its content, to be sought and read; a context manager that closes the file."""
        file = open_binary(self.path)
        return self._gzips.opened(file, self.path) if self.is_compressed else file

    def index(self) -> tuple[Int64, Int64]:
        """Offset and length of the data of every record, with the checksums of the lengths verified.

        Of a compressed file all is decompressed for it, and none of it kept.

        Raises:
            DamagedRecordingError: A length does not have its checksum, or the file ends inside a record.
            RecordingLimitError: A record declares more than the file holds, or there are more than 100 000.
        """
        heads, starts = bytearray(), array("q")
        try:
            error = self._walk(heads, starts)
        except OSError as problem:
            raise unreadable(self.path, problem) from problem
        # Together they take a hundredth of the time; a wrong length leads astray, but never out of the file.
        table = np.frombuffer(heads, _HEADER_ROW)
        wrong = np.flatnonzero(_masked_checksums(heads) != table["checksum"])
        if len(wrong):
            problem_text = f"a record's length, {table['length'][wrong[0]]}, does not have its checksum"
            raise DamagedRecordingError(self.path, problem_text, offset=starts[int(wrong[0])], remedy=COPY)
        if error is not None:
            raise error
        if not starts:
            raise DamagedRecordingError(self.path, "is empty", remedy=COPY)
        return np.array(starts, np.int64) + _HEADER.size, table["length"].astype(np.int64)

    def _walk(self, heads: bytearray, starts: array[int]) -> RecordingError | None:
        """Note every record's header, and where it starts; the first that goes too far is returned."""
        # A buffer would be filled anew for the header of every record.
        with self.path.open("rb", buffering=0) as file:
            size, at = file.seek(0, 2), 0
            content = self._gzips.opened(file, self.path, is_kept=False) if self.is_compressed else file
            while content.seek(at) == at and (head := content.read(_HEADER.size)):
                error = _header_error(self.path, head, at, None if self.is_compressed else size, len(starts))
                if len(head) == _HEADER.size:
                    heads += head
                    starts.append(at)
                    at += _HEADER.size + int(_HEADER.unpack(head)[0]) + _FOOTER.size
                if error is not None:
                    return error
            end = content.seek(at)
        if end == at:
            return None
        at = starts[-1]
        length, left = int(_HEADER.unpack(heads[-_HEADER.size :])[0]), end - at - _HEADER.size - _FOOTER.size
        return _too_long(self.path, length, left, at)


def _header_error(path: Path, head: bytes, at: int, size: int | None, count: int) -> RecordingError | None:
    """What is wrong with a record's header, its checksum apart; None for a size that is not known yet."""
    if len(head) < _HEADER.size:
        return DamagedRecordingError(path, "ends inside the header of a record", offset=at, remedy=COPY)
    if count == MAX_RECORDS:
        return RecordingLimitError(path, f"has more than {MAX_RECORDS} records", offset=at, remedy="split it")
    length, left = int(_HEADER.unpack(head)[0]), 2**62 if size is None else size - at - _HEADER.size - _FOOTER.size
    return _too_long(path, length, left, at) if length > left else None


def _too_long(path: Path, length: int, left: int, at: int) -> RecordingError:
    problem = f"a record declares {length} bytes, but {max(left, 0)} are left: it was truncated"
    return RecordingLimitError(path, problem, offset=at, remedy=COPY)


def _masked_checksums(heads: bytearray) -> npt.NDArray[np.uint64]:
    """The masked checksum of the length in every header."""
    rows = np.frombuffer(heads, np.uint8).reshape(-1, _HEADER.size)
    states, table = np.full(len(rows), 0xFFFFFFFF, np.uint32), _table()
    for column in rows[:, :8].T:
        states = table[(states ^ column) & 255] ^ states >> 8
    states ^= np.uint32(0xFFFFFFFF)
    rotated = (states >> 15 | states << 17).astype(np.uint64)
    return rotated + np.uint64(0xA282EAD8) & np.uint64(0xFFFFFFFF)


def read_record(record: Record, limits: Limits) -> bytes:
    """The data of one record, with its checksum verified.

    Raises:
        DamagedRecordingError: The data do not have their checksum.
        RecordingLimitError: The record is larger than `Limits.block_bytes`.
    """
    path, offset, length = record.file.path, record.offset, record.length
    if length > limits.block_bytes:
        problem = f"a record has {length} bytes, and the limit is {limits.block_bytes}"
        raise RecordingLimitError(path, problem, offset=offset, remedy="raise Limits(block_bytes=...)")
    try:
        with record.file.opened() as file:
            file.seek(offset)
            data, footer = file.read(length), file.read(_FOOTER.size)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) < length or len(footer) < _FOOTER.size:
        raise DamagedRecordingError(path, "became shorter while it was read", offset=offset, remedy=COPY)
    if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
        raise DamagedRecordingError(path, "a record's data do not have their checksum", offset=offset, remedy=COPY)
    return data


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated and shifted, so that a checksum of checksums is none."""
    checksum = crc32c(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C: segments of 256 bytes side by side in numpy, joined one after the other; the rest byte by byte."""
    state, whole = 0xFFFFFFFF, len(data) // _SEGMENT * _SEGMENT
    for start in range(0, whole, MiB):
        low, second, third, high = _through_zeros()
        for part in _segments(data, start, min(MiB, whole - start)):
            # The checksum is linear: the state so far, taken through as many zeros, and the segment's own add up.
            state = low[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ high[state >> 24] ^ part
    numbers = _numbers()
    for byte in data[whole:]:
        state = numbers[(state ^ byte) & 255] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _segments(data: bytes, start: int, size: int) -> list[int]:
    """The checksum of every segment on its own, from the state 0 on."""
    columns = np.ascontiguousarray(np.frombuffer(data, np.uint8, size, start).reshape(-1, _SEGMENT).T)
    states = np.zeros(columns.shape[1], np.uint32)
    table = _table()
    for column in columns:
        states = table[(states ^ column) & 255] ^ states >> 8
    return [int(state) for state in states.tolist()]


@cache
def _table() -> _Table:
    states = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        states = np.where(states & 1, states >> 1 ^ np.uint32(_POLYNOMIAL), states >> 1)
    return states


@cache
def _numbers() -> tuple[int, ...]:
    return tuple(int(number) for number in _table().tolist())


@cache
def _through_zeros() -> tuple[list[int], ...]:
    """What a segment of zeros makes of a state, for each value of each of its four bytes."""
    table, found = _table(), []
    for shift in (0, 8, 16, 24):
        states = np.arange(256, dtype=np.uint32) << np.uint32(shift)
        for _ in range(_SEGMENT):
            states = table[states & 255] ^ states >> 8
        found.append([int(state) for state in states.tolist()])
    return tuple(found)
