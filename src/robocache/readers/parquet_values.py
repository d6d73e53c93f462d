"""Values of bytes in one page of a Parquet column, such as encoded images: found in it, not copied out of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robocache.readers.parquet_pages import DATA_V2, DICTIONARY, Page
from robocache.records import Int64

PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
MAX_VALUES = 2**17  # of a page; writers put a thousand to 20 000 there
_LENGTH_BYTES = 4
_MAX_BITS = 32
_CODECS = {"LZ4": "lz4_raw"}  # as pyarrow calls them in a file, and as it wants them called


class PageError(ValueError):
    """What is wrong with a page; the reader says where it is."""


@dataclass(frozen=True)
class Values:
    """Values of bytes.

    Args:
        data: Holds them.
        bounds: [value, 2]: first byte of each, and one beyond its last; -1 of a missing one.
    """

    data: memoryview
    bounds: Int64

    def __len__(self) -> int:
        return len(self.bounds)

    def value(self, number: int) -> bytes | None:
        """One of the values; None of a missing one."""
        start, end = self.bounds[number].tolist()
        return None if start < 0 else bytes(self.data[start:end])


def page_values(page: Page, stored: bytes, codec: str, max_level: int, dictionary: Values | None) -> Values:
    """The values of a page.

    Args:
        page: Its header.
        stored: Its bytes.
        codec: What they are compressed with, as pyarrow says of a file.
        max_level: The definition level of a value that is there.
        dictionary: The chunk's.

    Raises:
        PageError: It cannot be decoded.
    """
    if len(stored) < page.stored:
        raise PageError("became shorter while it was read")
    if page.values > MAX_VALUES:
        raise PageError(f"has {page.values} values in a page, and {MAX_VALUES} are allowed")
    if page.checksum is not None and zlib.crc32(stored) != page.checksum:
        raise PageError("has a page without its checksum")
    data = _decompressed(page, stored, codec)
    if page.kind == DICTIONARY:
        return Values(data, _plain(data, 0, page.values))
    present = np.ones(page.values, bool)
    at = page.level_bytes
    if max_level:
        levels = data[:at]
        if page.kind != DATA_V2:
            length = int.from_bytes(data[:_LENGTH_BYTES], "little")
            at = _LENGTH_BYTES + length
            levels = data[_LENGTH_BYTES:at]
        present = _hybrid(levels, max_level.bit_length(), page.values) == max_level
    count = int(np.count_nonzero(present))
    if page.encoding == PLAIN:
        found = _plain(data, at, count)
    elif page.encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY) and dictionary is not None:
        data, found = dictionary.data, _looked_up(data[at:], dictionary, count)
    else:
        raise PageError(f"has a page whose values are encoded in way {page.encoding}, which is not read")
    bounds = np.full((page.values, 2), -1, np.int64)
    bounds[present] = found
    return Values(data, bounds)


def _decompressed(page: Page, stored: bytes, codec: str) -> memoryview:
    packed = memoryview(stored)[page.level_bytes :]
    size = page.declared - page.level_bytes
    if codec == "UNCOMPRESSED" or not page.is_compressed:
        data = memoryview(stored)
    elif not size:
        data = memoryview(stored)[: page.level_bytes]
    else:
        try:
            found: Any = pa.decompress(packed, size, codec=_CODECS.get(codec, codec.lower()))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise PageError(f"has a page that does not decompress ({' '.join(str(error).split())[:100]})") from error
        data = memoryview(found)
        if page.level_bytes:
            data = memoryview(bytes(stored[: page.level_bytes]) + bytes(data))
    if len(data) != page.declared:
        raise PageError(f"has a page of {len(data)} bytes that declares {page.declared}")
    return data


def _plain(data: memoryview, at: int, count: int) -> Int64:
    """Bounds of values that follow each other, a length before each."""
    bounds = np.empty((count, 2), np.int64)
    for number in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or at > len(data):
            raise PageError(f"has a page with a value that ends {at - len(data)} bytes beyond it")
        bounds[number] = start, at
    return bounds


def _looked_up(data: memoryview, dictionary: Values, count: int) -> Int64:
    if not count:
        return np.empty((0, 2), np.int64)
    numbers = _hybrid(data[1:], data[0] if len(data) else 0, count)
    if int(numbers.max()) >= len(dictionary):
        raise PageError(f"has a page with the value {int(numbers.max())} of a dictionary of {len(dictionary)}")
    return np.asarray(dictionary.bounds[numbers])


def _hybrid(data: memoryview, bits: int, count: int) -> Int64:
    """Numbers of a few bits each: runs of one number, and groups of eight that are packed."""
    if not 0 <= bits <= _MAX_BITS:
        raise PageError(f"has a page with numbers of {bits} bits")
    numbers, filled, at = np.zeros(count, np.int64), 0, 0
    while filled < count:
        head, at = _varint(data, at)
        if head & 1:
            size = (head >> 1) * bits
            packed = np.frombuffer(data[at : at + size], np.uint8)
            ones = np.unpackbits(packed, bitorder="little", count=min(len(packed) * 8, (count - filled) * bits))
            found = ones[: len(ones) // max(bits, 1) * bits].reshape(-1, max(bits, 1)) @ (1 << np.arange(max(bits, 1)))
            taken = min(head >> 1 << 3, count - filled)
        else:
            size, taken = (bits + 7) // 8, min(head >> 1, count - filled)
            found = np.full(taken, int.from_bytes(data[at : at + size], "little"))
        if at + size > len(data) or not taken or (bits and len(found) < taken):
            raise PageError("has a page that ends inside its numbers")
        if bits:
            numbers[filled : filled + taken] = found[:taken]
        at, filled = at + size, filled + taken
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise PageError("has a page that ends inside its numbers")
