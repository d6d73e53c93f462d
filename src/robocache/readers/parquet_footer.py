"""The footer of a Parquet file, looked through before pyarrow: on some of what it may say pyarrow ends the process.

It is Thrift's compact protocol. Looked at are the numbers of columns, their types and codecs, and the lengths of the
histograms of their levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robocache.errors import DamagedRecordingError
from robocache.readers.parquet_pages import REMEDY

MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"
MAX_PARTS = 100_000  # columns or row groups: each takes a kilobyte and more of memory, and a few bytes of the file
_TAIL_BYTES = 8
_BYTE_ARRAY = 6
_TRUTHS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_INT32, _INT64 = 5, 6  # a field of another kind than its own is skipped, here as there
_WIDTHS = {1: 0, 2: 0, _BYTE: 1, _DOUBLE: 8}  # a truth is in the head of its field
_DEEPEST = 64
_CODECS = range(8)
_REPETITIONS = range(3)  # required, optional, repeated
# Fields of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData, SizeStatistics and SchemaElement, by number.
_SCHEMA, _GROUPS, _COLUMNS, _CHUNK, _ENCRYPTED, _KIND, _CODEC, _SIZES = 2, 4, 1, 3, (8, 9), 1, 4, 16
_TEXT_BYTES, _REPETITION, _DEFINITION = 1, 2, 3
_TYPE, _REPEATED, _CHILDREN = 1, 3, 5


@dataclass
class _Chunk:
    """What a column chunk says of itself; of two histograms the lengths, 0 where it has none."""

    kind: int = -1
    codec: int = -1
    repetition: int = 0
    definition: int = 0
    has_text_bytes: bool = False

    def fits(self, kind: int, repetition: int, definition: int) -> bool:
        """Whether it may be a chunk of a column of this type and these levels."""
        return (
            self.kind == kind
            and self.codec in _CODECS
            and self.repetition in (0, repetition + 1)
            and self.definition in (0, definition + 1)
            and (kind == _BYTE_ARRAY or not self.has_text_bytes)
        )


class _Footer:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _number(self) -> int:
        number = shift = 0
        while (byte := self._data[self._at]) > 127:
            number |= (byte & 127) << shift
            shift += 7
            self._at += 1
            if shift > 63:
                raise ValueError("has a number of more than 64 bits in its footer")
        self._at += 1
        return number | byte << shift

    def _signed(self) -> int:
        number = self._number()
        return number >> 1 ^ -(number & 1)

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field of a structure; whoever asks reads or skips its value."""
        name = 0
        while head := self._data[self._at]:
            self._at += 1
            name = name + (head >> 4) if head >> 4 else self._signed()
            yield name, head & 15
        self._at += 1

    def _list(self) -> tuple[int, int]:
        """How many elements follow, and their kind."""
        head = self._data[self._at]
        self._at += 1
        return (self._number() if head >> 4 == 15 else head >> 4), head & 15

    def _structures(self, kind: int) -> Iterator[int]:
        count, of = self._list() if kind in _LISTS else (0, 0)
        if of != _STRUCT and (count or kind not in _LISTS):
            raise ValueError(f"has a footer with {count} elements of kind {of} where structures should be")
        if count > MAX_PARTS:  # looked at one by one they would take seconds
            raise ValueError(f"declares {count} columns or row groups in its footer, and {MAX_PARTS} are allowed")
        yield from range(count)

    def _skip(self, kind: int, depth: int = 0) -> None:
        if kind in _INTEGERS:
            while self._data[self._at] > 127:
                self._at += 1
            self._at += 1
        elif kind == _BINARY:
            size = self._number()
            self._at += size
        elif kind in _WIDTHS:
            self._at += _WIDTHS[kind]
        elif depth < _DEEPEST and kind == _STRUCT:
            for _, of in self._fields():
                self._skip(of, depth + 1)
        elif depth < _DEEPEST and kind in _LISTS:
            count, of = self._list()
            for _ in range(count):
                self._skip(_BYTE if of in _TRUTHS else of, depth + 1)
        else:
            raise ValueError(f"has a field of kind {kind} in its footer, {depth} levels down")

    def parts(self) -> tuple[list[tuple[int, int, int]], list[list[_Chunk]]]:
        """Type, repetition and children of the elements of the schema, and the columns of each row group."""
        schema: list[tuple[int, int, int]] = []
        groups: list[list[_Chunk]] = []
        for name, kind in self._fields():
            if name == _SCHEMA:
                schema = [self._element() for _ in self._structures(kind)]
            elif name == _GROUPS:
                groups = [self._group() for _ in self._structures(kind)]
            else:
                self._skip(kind)
        return schema, groups

    def _element(self) -> tuple[int, int, int]:
        found = {_TYPE: 0, _REPEATED: 0, _CHILDREN: 0}
        for name, kind in self._fields():
            if name in found and kind == _INT32:
                found[name] = self._signed()
            else:
                self._skip(kind)
        return found[_TYPE], found[_REPEATED], found[_CHILDREN]

    def _group(self) -> list[_Chunk]:
        chunks: list[_Chunk] = []
        for name, kind in self._fields():
            if name == _COLUMNS:
                chunks = [self._chunk() for _ in self._structures(kind)]
            else:
                self._skip(kind)
        return chunks

    def _chunk(self) -> _Chunk:
        chunk = _Chunk()
        for name, kind in self._fields():
            if name in _ENCRYPTED:
                raise ValueError("has encrypted columns")
            if name == _CHUNK and kind == _STRUCT:
                self._description(chunk)
            else:
                self._skip(kind)
        return chunk

    def _description(self, chunk: _Chunk) -> None:
        for name, kind in self._fields():
            if name == _KIND and kind == _INT32:
                chunk.kind = self._signed()
            elif name == _CODEC and kind == _INT32:
                chunk.codec = self._signed()
            elif name == _SIZES and kind == _STRUCT:
                self._sizes(chunk)
            else:
                self._skip(kind)

    def _sizes(self, chunk: _Chunk) -> None:
        for name, kind in self._fields():
            before = self._at
            if name == _TEXT_BYTES and kind == _INT64:
                chunk.has_text_bytes = True
            elif name in (_REPETITION, _DEFINITION) and kind in _LISTS:
                count, of = self._list()
                if count and of not in _INTEGERS:
                    raise ValueError(f"has a histogram of kind {of} in its footer")
                if name == _REPETITION:
                    chunk.repetition = count
                else:
                    chunk.definition = count
                self._at = before
            self._skip(kind)


def check_footer(path: Path) -> None:
    """See that a file has a footer, which says nothing on which pyarrow ends the process.

    Raises:
        DamagedRecordingError: It has none, or one that does.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] == _ENCRYPTED_MAGIC:
            return  # pyarrow says what is wrong with it
        if tail[4:] != MAGIC or length + _TAIL_BYTES > size:
            is_cut = tail[4:] != MAGIC
            problem = f"declares a footer of {length} bytes, but has only {size}"
            problem = "does not end with the signature of Parquet: it was truncated" if is_cut else problem
            at = max(0, size - (len(MAGIC) if is_cut else _TAIL_BYTES))
            raise DamagedRecordingError(path, problem if size else "is empty", offset=at, remedy=REMEDY)
        file.seek(size - _TAIL_BYTES - length)
        data = file.read(length)
    try:
        schema, groups = _Footer(data).parts()
        _check(_leaves(schema), groups)
    except (IndexError, ValueError) as error:
        text = "ends inside its footer" if isinstance(error, IndexError) else str(error)
        raise DamagedRecordingError(path, text, offset=size - _TAIL_BYTES - length, remedy=REMEDY) from error


def _leaves(schema: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Type, repetition level and definition level of every column."""
    leaves: list[tuple[int, int, int]] = []
    open_groups = [(schema[0][2] if schema else 0, 0, 0)]  # children that are to come, and the levels around them
    for kind, repeated, children in schema[1:]:
        while open_groups and not open_groups[-1][0]:
            open_groups.pop()
        if not open_groups or repeated not in _REPETITIONS:
            raise ValueError("has a schema with an element that belongs to nothing, or is repeated in no known way")
        left, repetition, definition = open_groups.pop()
        open_groups.append((left - 1, repetition, definition))
        levels = repetition + (repeated == 2), definition + (repeated != 0)
        if children > 0:
            open_groups.append((children, *levels))
        else:
            leaves.append((kind, *levels))
    return leaves


def _check(leaves: list[tuple[int, int, int]], groups: list[list[_Chunk]]) -> None:
    for chunks in groups:
        if len(chunks) != len(leaves):
            raise ValueError(f"has a row group of {len(chunks)} columns, and {len(leaves)} in its schema")
        for leaf, chunk in zip(leaves, chunks, strict=True):
            if not chunk.fits(*leaf):
                raise ValueError(f"has a column of type {leaf[0]} that is described as {chunk}")
