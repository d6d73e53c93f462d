"""A shard before it is written: where each array will lie, and the head that goes before them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robocache.cache.layout import (
    CRC,
    DTYPES,
    FORMAT_VERSION,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    MAX_NAME_LENGTH,
    PRELUDE,
    PRELUDE_BYTES,
    Contents,
    Pieces,
    canonical_json,
    padded,
)
from robocache.errors import ArgumentError, DTypeError

_LONGEST_CRC = 2**32 - 1


class Draft:
    """The arrays of a shard in their stored form and order; arrays are not copied unless they must be.

    Args:
        digest: Of its key.
        contents: What it is to hold.

    Raises:
        ArgumentError: A name, an array or the description is none that a shard can hold.
    """

    def __init__(self, digest: str, contents: Contents) -> None:
        self._digest = digest
        self._description = dict(contents.description)
        names = sorted(_checked_names(contents.arrays))
        self.arrays = {name: _stored_form(name, contents.arrays[name]) for name in names}
        self.crcs = {name: 0 if isinstance(array, Pieces) else _crc32(array) for name, array in self.arrays.items()}

    @property
    def data_bytes(self) -> int:
        """Of all arrays with their padding."""
        return sum(padded(_size_bytes(array)) for array in self.arrays.values())

    @property
    def has_pieces(self) -> bool:
        """Whether an array is made while it is written: only then is its checksum known."""
        return any(isinstance(array, Pieces) for array in self.arrays.values())

    def head(self) -> bytes:
        """What stands before the arrays, by the checksums in `crcs`."""
        return self._head(self.crcs)

    def longest_head(self) -> bytes:
        """As `head`, with the longest checksums in the place of those that are not known."""
        longest = {name: _LONGEST_CRC for name, array in self.arrays.items() if isinstance(array, Pieces)}
        return self._head(self.crcs | longest)

    def parts(self, name: str) -> Iterator[memoryview]:
        """The bytes of an array with its padding, part by part; of one in pieces, the checksum is known afterwards.

        Args:
            name: Which array.

        Raises:
            ArgumentError: The pieces are not those of the array that was declared.
        """
        array = self.arrays[name]
        filling = bytes(padded(_size_bytes(array)) - _size_bytes(array))
        if isinstance(array, Pieces):
            rows, crc32 = 0, 0
            for piece in array.make():
                data = _piece_bytes(name, array, piece)
                crc32, rows = zlib.crc32(data, crc32), rows + len(piece)
                if rows <= array.shape[0]:
                    yield data
            if rows != array.shape[0]:
                raise ArgumentError(f"arrays[{name!r}] came in pieces of {rows} rows together, not {array.shape[0]}")
            self.crcs[name] = zlib.crc32(filling, crc32)
        else:
            yield _bytes_of(array)
        if filling:
            yield memoryview(filling)

    def _head(self, crcs: Mapping[str, int]) -> bytes:
        entries: list[dict[str, object]] = []
        offset = 0
        for name, array in self.arrays.items():
            entry = {"crc32": crcs[name], "dtype": array.dtype.str, "name": name, "offset": offset}
            entries.append(entry | {"shape": list(array.shape)})
            offset += padded(_size_bytes(array))
        document = {"arrays": entries, "description": self._description, "key": self._digest}
        header = canonical_json(document, "description").encode("ascii")
        if len(header) > MAX_HEADER_BYTES:
            raise ArgumentError(f"description and names take {len(header)} bytes, more than {MAX_HEADER_BYTES}")
        filled = header + bytes(padded(len(header)) - len(header))
        file_bytes = PRELUDE_BYTES + len(filled) + offset
        prelude = PRELUDE.pack(MAGIC, FORMAT_VERSION, zlib.crc32(filled), len(header), file_bytes)
        return prelude + CRC.pack(zlib.crc32(prelude)) + filled


def _size_bytes(array: NDArray[Any] | Pieces) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _crc32(array: NDArray[Any]) -> int:
    data = _bytes_of(array)
    return zlib.crc32(bytes(padded(len(data)) - len(data)), zlib.crc32(data))


def _piece_bytes(name: str, array: Pieces, piece: NDArray[Any]) -> memoryview:
    if not piece.ndim or piece.shape[1:] != array.shape[1:]:
        raise ArgumentError(f"a piece of arrays[{name!r}] has shape {piece.shape}, not rows of {array.shape[1:]}")
    if piece.dtype.newbyteorder("<") != array.dtype:
        raise DTypeError(f"a piece of arrays[{name!r}] has dtype {piece.dtype}, not {array.dtype}")
    return _bytes_of(np.asarray(piece, dtype=array.dtype, order="C"))


def _checked_names(arrays: Mapping[Any, object]) -> list[str]:
    for name in arrays:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH:
            raise ArgumentError(f"an array's name must be a text of 1 to {MAX_NAME_LENGTH} characters, got {name!r}")
    return list(arrays)


def _stored_form(name: str, array: NDArray[Any] | Pieces) -> NDArray[Any] | Pieces:
    if not isinstance(array, np.ndarray | Pieces):
        raise ArgumentError(f"arrays[{name!r}] must be a numpy array, got {type(array).__name__}")
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES:
        raise DTypeError(f"arrays[{name!r}] has dtype {array.dtype}; a shard holds bools, integers, floats and complex")
    if not len(array.shape) <= MAX_DIMENSIONS:
        raise ArgumentError(f"arrays[{name!r}] has {len(array.shape)} dimensions, more than {MAX_DIMENSIONS}")
    if isinstance(array, Pieces):
        if not array.shape:
            raise ArgumentError(f"arrays[{name!r}] has no axis that pieces could be cut along")
        return Pieces(little, array.shape, array.make)
    # ascontiguousarray would give an array without axes one.
    return np.asarray(array, dtype=little, order="C")
