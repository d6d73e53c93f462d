"""The bytes of a shard: what is written, and what a file must be to be believed.

    0    8  magic               every number is little-endian
    8    4  format version
    12   4  CRC-32 of the header with its padding
    16   8  length of the header
    24   8  length of the file
    32  28  zeros
    60   4  CRC-32 of the 60 bytes before
    64      the header: JSON in ASCII with sorted keys, padded with zeros to a multiple of 64
            the arrays in the order of their names, each padded with zeros to a multiple of 64

The same arrays and description give the same bytes, and there is no byte that no checksum covers.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robocache.errors import ArgumentError, DamagedShardError

FORMAT_VERSION = 1
ALIGNMENT_BYTES = 64
MAX_HEADER_BYTES = 16 * 2**20
MAX_DIMENSIONS = 32
MAX_NAME_LENGTH = 1024
PRELUDE_BYTES = 64
MAGIC = b"RCSHARD\n"
PRELUDE = struct.Struct("<8sIIQQ28x")
CRC = struct.Struct("<I")
_MAX_BYTES = 2**62
# Names of one meaning on every machine; objects, records and long doubles have none.
_NUMBERS = ("<i2", "<i4", "<i8", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16")
DTYPES = {text: np.dtype(text) for text in ("|b1", "|i1", "|u1", *_NUMBERS)}


@dataclass(frozen=True)
class Pieces:
    """An array that is made piece by piece while it is written, so that it need not fit memory.

    Args:
        dtype: Of its items.
        shape: Of the whole array; its first axis is the one that is cut.
        make: Gives the pieces in their order, of any length. Each is written before the next one is asked for.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], Iterable[NDArray[Any]]]


@dataclass(frozen=True)
class Contents:
    """What a shard holds.

    Args:
        arrays: Arrays of numbers or bools by name.
        description: Anything that JSON can say about them.
    """

    arrays: Mapping[str, NDArray[Any] | Pieces]
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredArray:
    """One array of a shard; `offset` counts from the start of the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    crc32: int

    @property
    def stored_bytes(self) -> int:
        """With the padding."""
        return padded(math.prod(self.shape) * self.dtype.itemsize)


@dataclass(frozen=True)
class Header:
    """What a shard says of itself."""

    digest: str
    arrays: tuple[StoredArray, ...]
    description: Mapping[str, Any]


@dataclass(frozen=True)
class Prelude:
    """The first 64 bytes."""

    header_crc32: int
    header_bytes: int
    file_bytes: int

    @property
    def data_start(self) -> int:
        """Where the header's padding ends."""
        return PRELUDE_BYTES + padded(self.header_bytes)


def padded(size_bytes: int) -> int:
    """The next multiple of 64."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def canonical_json(value: object, what: str) -> str:
    """The one JSON text of a value: ASCII, sorted keys, no spaces."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{what} must be something that JSON can say, without NaN: {error}") from error


def parse_prelude(path: Path, data: bytes, actual_bytes: int) -> Prelude:
    """Believe the first 64 bytes of a file of `actual_bytes`, or raise `DamagedShardError`."""
    if len(data) < PRELUDE_BYTES:
        raise damaged(path, "start", f"the file has {actual_bytes} bytes, fewer than a shard's first {PRELUDE_BYTES}")
    magic, version, header_crc32, header_bytes, file_bytes = PRELUDE.unpack_from(data)
    if magic != MAGIC:
        raise damaged(path, "start", "this is not a shard")
    if CRC.unpack_from(data, PRELUDE.size)[0] != zlib.crc32(data[: PRELUDE.size]):
        raise damaged(path, "start", "the checksum does not fit")
    if version != FORMAT_VERSION:
        raise damaged(path, "start", f"written in format {version}; this version reads format {FORMAT_VERSION}")
    if file_bytes != actual_bytes:
        raise damaged(path, "start", f"it was written with {file_bytes} bytes and has {actual_bytes}")
    prelude = Prelude(header_crc32, header_bytes, file_bytes)
    if header_bytes > MAX_HEADER_BYTES or prelude.data_start > actual_bytes:
        raise damaged(path, "start", f"a header of {header_bytes} bytes is declared in a file of {actual_bytes}")
    return prelude


def parse_header(path: Path, prelude: Prelude, data: bytes) -> Header:
    """Believe a header with its padding, or raise `DamagedShardError`. Arrays must fill the file without a gap."""
    if len(data) != prelude.data_start - PRELUDE_BYTES or zlib.crc32(data) != prelude.header_crc32:
        raise damaged(path, "header", "the checksum does not fit")
    try:
        document = json.loads(data[: prelude.header_bytes].decode("ascii"))
        digest, description, listed = document["key"], document["description"], document["arrays"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, "header", f"it cannot be read ({type(error).__name__})") from error
    if not (isinstance(digest, str) and isinstance(description, dict) and isinstance(listed, list)):
        raise damaged(path, "header", "key, description or arrays are of the wrong kind")
    arrays: list[StoredArray] = []
    end = prelude.data_start
    for number, entry in enumerate(listed):
        array = _parse_entry(entry, prelude.data_start)
        if array is None or array.offset != end or (arrays and array.name <= arrays[-1].name):
            raise damaged(path, "header", f"entry {number} declares no array that can stand where it does")
        arrays.append(array)
        end += array.stored_bytes
    if end != prelude.file_bytes:
        raise damaged(path, "header", f"its arrays end at byte {end} of {prelude.file_bytes}")
    return Header(digest, tuple(arrays), description)


def damaged(path: Path, place: str, problem: str) -> DamagedShardError:
    """The error for a shard, with what to do."""
    remedy = f"remove it with 'robocache cache verify --remove {path.parent.parent}', or give a builder"
    return DamagedShardError(f"{path}, {place}: {problem}; {remedy}")


def _parse_entry(entry: object, data_start: int) -> StoredArray | None:
    if not isinstance(entry, dict) or entry.keys() != {"crc32", "dtype", "name", "offset", "shape"}:
        return None
    name, shape = entry["name"], entry["shape"]
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if not isinstance(name, str) or dtype is None or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        return None
    if not all(_is_count(number) for number in (entry["crc32"], entry["offset"], *shape)):
        return None
    # numpy multiplies the axes of an empty array too.
    if math.prod(max(axis, 1) for axis in shape) * dtype.itemsize >= _MAX_BYTES:
        return None
    return StoredArray(name, dtype, tuple(shape), data_start + entry["offset"], entry["crc32"])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_BYTES
