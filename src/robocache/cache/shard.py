"""One shard, open: checked, then mapped into memory, read-only."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robocache.cache import locks
from robocache.cache.layout import PRELUDE_BYTES, Header, StoredArray, damaged, parse_header, parse_prelude
from robocache.errors import ClosedError

_PIECE_BYTES = 2**20


class FileMapping(mmap.mmap):
    """A shard's bytes; `descriptor`, open as long as they are mapped, reads them without mapping their pages."""

    descriptor = -1

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Shard:
    """The arrays of a shard, as they lie on disk; made by `ShardStore`.

    While it is open, and after that while one of its arrays is still referred to, no process evicts it.

    Args:
        path: Where it lies.
        header: What it says of itself.
        mapping: Its bytes.
        was_built: Whether this call built it, rather than finding it.
    """

    def __init__(self, path: Path, header: Header, mapping: mmap.mmap, *, was_built: bool) -> None:
        self.was_built = was_built
        self.path = path
        self.digest = header.digest
        self.description = header.description
        self.size_bytes = len(mapping)
        self._arrays: Mapping[str, NDArray[Any]] | None = MappingProxyType(
            {array.name: _view(mapping, array) for array in header.arrays}
        )

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The arrays by name: views of the file, read-only, each at a multiple of 64 bytes."""
        if self._arrays is None:
            raise ClosedError(f"{self.path}: the shard is closed; use its arrays inside the with block")
        return self._arrays

    def close(self) -> None:
        """Let go of the file. Arrays that are still referred to stay right, and keep it mapped and locked."""
        # numpy does not tell a mapping that it has views: closing it here would pull the memory away from under them.
        # It ends with the last reference to it, and with it the lock.
        self._arrays = None

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def locked_descriptor(path: Path) -> int | None:
    """A descriptor with a shared lock; None if there is no file."""
    try:
        return locks.open_shared(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise damaged(path, "start", "this is a link, not a shard") from error
        if error.errno == errno.EACCES and os.access(path.parent, os.X_OK):
            raise damaged(path, "start", f"it cannot be read ({error.strerror})") from error
        raise


def map_shard(path: Path, header: Header, descriptor: int, *, was_built: bool) -> Shard:
    """Map an open shard; the mapping has copies of the descriptor, and with them the lock."""
    mapping = FileMapping(descriptor, 0, access=mmap.ACCESS_READ)
    mapping.descriptor = os.dup(descriptor)
    return Shard(path, header, mapping, was_built=was_built)


def checked_header(path: Path, digest: str, descriptor: int) -> Header:
    """Read and believe the header."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path, "start", "this is not a file")
    prelude = parse_prelude(path, _read(path, descriptor, PRELUDE_BYTES, 0), status.st_size)
    data = _read(path, descriptor, prelude.data_start - PRELUDE_BYTES, PRELUDE_BYTES)
    header = parse_header(path, prelude, data)
    if header.digest != digest:
        raise damaged(path, "header", f"it belongs to the key {header.digest[:80]!a}")
    return header


def check_arrays(path: Path, header: Header, descriptor: int) -> None:
    """Compare every array's checksum.

    The file is read, not looked at through a mapping: there a bad sector would end the process.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    for array in header.arrays:
        crc32, position, end = 0, array.offset, array.offset + array.stored_bytes
        while position < end:
            piece = buffer[: min(len(buffer), end - position)]
            read = _read_into(path, descriptor, piece, position)
            crc32 = zlib.crc32(piece[:read], crc32)
            position += read
        if crc32 != array.crc32:
            raise damaged(path, f"array {array.name!a}", f"the checksum of bytes {array.offset} to {end} does not fit")


def _read(path: Path, descriptor: int, size_bytes: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size_bytes, offset)
    except OSError as error:
        raise damaged(path, f"byte {offset}", f"it cannot be read ({error.strerror or error})") from error


def _read_into(path: Path, descriptor: int, piece: memoryview, offset: int) -> int:
    try:
        read = os.preadv(descriptor, [piece], offset)
    except OSError as error:
        raise damaged(path, f"byte {offset}", f"it cannot be read ({error.strerror or error})") from error
    if read == 0:
        raise damaged(path, f"byte {offset}", "the file ended there while it was read")
    return read


def _view(mapping: mmap.mmap, array: StoredArray) -> NDArray[Any]:
    return np.ndarray(array.shape, array.dtype, buffer=mapping, offset=array.offset)
