"""Decompression of Zarr chunks, each to exactly the size that its array's shape says, never more."""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable

from robocache.errors import BackendUnavailableError
from robocache.readers.limits import MiB
from robocache.readers.tfrecord import crc32c

_BLOSC_HEADER = struct.Struct("<BBBBIII")  # versions, flags, item size, then content, block and stored bytes


class CodecError(ValueError):
    """A chunk that does not decompress to its size; the reader turns it into an error that names the file."""


def decoded(codec: str, data: bytes, size: int) -> bytes:
    """The content of a chunk, `size` bytes.

    Args:
        codec: One of `CODECS`.
        data: The chunk as stored.
        size: What it must become.

    Raises:
        CodecError: It does not.
        BackendUnavailableError: The library for the codec is not installed.
    """
    try:
        content = CODECS[codec](data, size)
    except (OSError, EOFError, zlib.error, struct.error, RuntimeError, ValueError) as error:
        if isinstance(error, BackendUnavailableError | CodecError):
            raise
        raise CodecError(f"does not decompress with {codec} ({' '.join(str(error).split())[:100]})") from error
    if len(content) != size:
        raise CodecError(
            f"has {'more than ' if len(content) > size else ''}{min(len(content), size)} bytes, not {size}"
        )
    return content


def without_checksum(data: bytes) -> bytes:
    """A chunk without the CRC-32C at its end, which is verified.

    Raises:
        CodecError: It is not that of the chunk.
    """
    if len(data) < 4 or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise CodecError("does not have its checksum")
    return data[:-4]


def _blosc(data: bytes, size: int) -> bytes:
    *_, content, _, stored = _BLOSC_HEADER.unpack_from(data)
    if (content, stored) != (size, len(data)):  # Blosc allocates what its header says
        raise CodecError(f"declares {content} bytes from {stored}, but has {len(data)} and must become {size}")
    return bytes(_numcodecs("blosc").decompress(data))


def _lz4(data: bytes, size: int) -> bytes:
    if data[:4] != size.to_bytes(4, "little"):
        raise CodecError(f"declares {int.from_bytes(data[:4], 'little')} bytes, not {size}")
    return bytes(_numcodecs("lz4").decompress(data))


def _numcodecs(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- modules of a library without types
    try:
        import numcodecs.blosc
        import numcodecs.lz4
    except ModuleNotFoundError as error:
        message = (
            f'a Zarr store is compressed with {name}, but numcodecs is not installed; pip install "robocache[zarr]"'
        )
        raise BackendUnavailableError(message) from error
    return getattr(numcodecs, name)


def _zstd(data: bytes, size: int) -> bytes:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        message = 'a Zarr store is compressed with zstd, but zstandard is not installed; pip install "robocache[zarr]"'
        raise BackendUnavailableError(message) from error
    try:
        with zstandard.ZstdDecompressor(max_window_size=128 * MiB).stream_reader(data) as stream:
            content: bytes = stream.read(size + 1)
            return content
    except zstandard.ZstdError as error:
        raise CodecError(f"does not decompress with zstd ({error})") from error


# By what both versions of the format call them.
CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "none": lambda data, size: data[: size + 1],
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "gzip": lambda data, size: zlib.decompressobj(47).decompress(data, size + 1),
    "zlib": lambda data, size: zlib.decompressobj(47).decompress(data, size + 1),
    "bz2": lambda data, size: bz2.BZ2Decompressor().decompress(data, size + 1),
}
