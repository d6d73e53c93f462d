"""The pages of a Parquet column, found by their headers, whose sizes pyarrow would believe.

A header is Thrift's compact protocol, of which it needs numbers, truths, bytes (statistics) and structures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits, MiB

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnChunkMetaData

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
_INDEX = 1
_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, 12
_DOUBLE_BYTES = 8
_DEEPEST = 4
_FIRST_LOOK = 512
MAX_HEADER_BYTES = MiB
REMEDY = "download or write it again"
TRUST = "open it with larger Limits(...) if you trust it"


@dataclass(frozen=True)
class Page:
    """What a page's header declares.

    Args:
        kind: `DATA`, `DICTIONARY` or `DATA_V2`.
        offset: Where its bytes begin, behind the header.
        stored: How many they are.
        declared: How many they become.
        values: How many values it has, missing ones included.
        encoding: Of its values, by Parquet's numbers.
        checksum: CRC-32 of the stored bytes; None where the writer made none.
        level_bytes: Of a `DATA_V2` page: its bytes of levels, which are never compressed.
        is_compressed: Whether the rest of it is, where the column is.
    """

    kind: int
    offset: int
    stored: int
    declared: int
    values: int
    encoding: int
    checksum: int | None
    level_bytes: int
    is_compressed: bool


class _ShortError(ValueError):
    """A header goes on beyond the bytes at hand."""


class _Header:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise _ShortError("ends inside the header of a page")
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while shift < 70:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise ValueError("has a number of more than 64 bits in the header of a page")

    def _signed(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)

    def fields(self, depth: int = 0) -> dict[int, Any]:
        """A structure: what each of its fields holds, by number."""
        found: dict[int, Any] = {}
        name = 0
        while kind_and_step := self._byte():
            kind, step = kind_and_step & 15, kind_and_step >> 4
            name = name + step if step else self._signed()
            found[name] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401 -- a number, a truth, a structure, or nothing
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT and depth < _DEEPEST:
            return self.fields(depth + 1)
        if kind not in (_BYTE, _DOUBLE, _BINARY):
            raise ValueError(f"has a field of type {kind} in the header of a page")
        size = {_BYTE: 1, _DOUBLE: _DOUBLE_BYTES}.get(kind) or self._varint()
        self.at += size
        return None


def chunk_span(chunk: ColumnChunkMetaData) -> tuple[int, int]:
    """First byte of a column chunk, and how many bytes it says to have."""
    start, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
    if dictionary is not None and 0 < dictionary < start:
        start = dictionary
    return start, chunk.total_compressed_size


def chunk_pages(file: BinaryIO, path: Path, chunk: ColumnChunkMetaData, limits: Limits) -> Iterator[Page]:
    """The pages of a column chunk, each checked against the file and the limits.

    Args:
        file: Open for reading; its position changes.
        path: Its path, for errors.
        chunk: What the file's metadata say of it.
        limits: What pages may become in memory, each and all together.

    Raises:
        DamagedRecordingError: A header that is none, or other values than the metadata say.
        RecordingLimitError: A page declares more bytes than the chunk holds, or than are allowed.
    """
    at, size = chunk_span(chunk)
    end, start, values, declared = at + size, at, 0, 0
    allowed = limits.decompressed_bytes(size, of_block=False)
    while at < end and values < chunk.num_values:
        page = _page(file, path, at)
        if not 0 <= page.stored <= end - page.offset:
            problem = f"a page declares {page.stored} stored bytes, and {max(0, end - page.offset)} are left"
            raise RecordingLimitError(path, problem, offset=at, remedy=REMEDY)
        most = min(limits.decompressed_bytes(page.stored), allowed - declared)
        if not 0 <= page.declared <= most:
            problem = f"a page of {page.stored} bytes declares {page.declared} decompressed bytes, and {most} are"
            raise RecordingLimitError(path, f"{problem} allowed", offset=at, remedy=TRUST)
        if page.kind == DICTIONARY and at != start:
            raise DamagedRecordingError(path, "has a dictionary behind its values", offset=at, remedy=REMEDY)
        declared += page.declared
        if page.kind in (DATA, DATA_V2):
            values += page.values
        if page.kind != _INDEX:
            yield page
        at = page.offset + page.stored
    if values != chunk.num_values:
        problem = f"has {values} values of column {chunk.path_in_schema}, and its metadata say {chunk.num_values}"
        raise DamagedRecordingError(path, problem, offset=start, remedy=REMEDY)


def _page(file: BinaryIO, path: Path, at: int) -> Page:
    file.seek(at)
    data = file.read(_FIRST_LOOK)
    try:
        try:
            header = _Header(data)
            fields = header.fields()
        except _ShortError:  # the statistics of long values may be long
            header = _Header(data + file.read(MAX_HEADER_BYTES))
            fields = header.fields()
        return _declared(fields, at + header.at)
    except (ValueError, KeyError, TypeError) as error:
        text = "has no header of a page" if isinstance(error, KeyError | TypeError) else str(error)
        raise DamagedRecordingError(path, text, offset=at, remedy=REMEDY) from error


def _declared(fields: dict[int, Any], offset: int) -> Page:
    kind = fields[1]
    if kind == _INDEX:
        return Page(_INDEX, offset, int(fields[3]), int(fields[2]), 0, 0, None, 0, is_compressed=True)
    own = fields[{DATA: 5, DICTIONARY: 7, DATA_V2: 8}[kind]]
    is_second = kind == DATA_V2
    levels = int(own[5]) + int(own[6]) if is_second else 0
    checksum = fields.get(4)
    page = Page(
        kind,
        offset,
        stored=int(fields[3]),
        declared=int(fields[2]),
        values=int(own[1]),
        encoding=int(own[4] if is_second else own[2]),
        checksum=None if checksum is None else int(checksum) & 0xFFFFFFFF,
        level_bytes=levels,
        is_compressed=bool(own.get(7, True)) if is_second else True,
    )
    if page.values < 0 or not 0 <= levels <= max(page.stored, 0):
        raise ValueError(f"has a page of {page.values} values and {levels} bytes of levels")
    return page
