"""Rows of files into a batch by reading, not through a mapping: no page of the file counts as this process's."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robocache.cache.shard import FileMapping
from robocache.ops import native_library

Integers = npt.NDArray[np.int64]
# Smaller rows are many to a page: their arrays are small beside the images, and a call for each would cost more.
LEAST_ROW_BYTES = 32 * 2**10
_CALL = struct.Struct("@9q")


class FileRows(NamedTuple):
    """One row a run, and where it goes.

    Args:
        files: [run] descriptors; below 0 the row is in memory.
        bases: [run] where row 0 is: its offset in the file, or its address. 0 in memory: zeros.
        rows: [run] which row; below 0: zeros.
        starts: [run] its row in the output; None: one after the other.
    """

    files: Integers
    bases: Integers
    rows: Integers
    starts: Integers | None = None


class RowError(OSError):
    """A row that cannot be read.

    Args:
        number: The errno.
        run: Which of the runs.
    """

    def __init__(self, number: int, run: int) -> None:
        ended = number == errno.ENODATA
        super().__init__(number, "the file ended before the row" if ended else os.strerror(number))
        self.run = run


def place_of(array: npt.NDArray[Any]) -> tuple[int, int] | None:
    """The descriptor of the shard that an array lies in, and the array's offset there; None: it lies in none."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, FileMapping):
        return None
    start = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    return base.descriptor, array.__array_interface__["data"][0] - start


def read_rows(wanted: FileRows, row_bytes: int, out: npt.NDArray[Any], *, threads: int = 1) -> None:
    """Read the rows: in the compiled library, where it is there, without the GIL.

    Args:
        wanted: All arrays contiguous.
        row_bytes: Of a row.
        out: Contiguous, with room for all rows.
        threads: How many the library may use.

    Raises:
        RowError: A row cannot be read.
    """
    if native_library.PROBLEM is not None:
        read_rows_by_numpy(wanted, row_bytes, out)
        return
    problem = np.zeros(2, np.int64)
    arrays = (0 if array is None else array.__array_interface__["data"][0] for array in (*wanted, out))
    sizes = (len(wanted.files), row_bytes, threads, problem.__array_interface__["data"][0])
    native_library.library().robocache_read(_CALL.pack(*arrays, *sizes))
    if problem[0]:
        raise RowError(int(problem[0]), int(problem[1]))


def read_rows_by_numpy(wanted: FileRows, row_bytes: int, out: npt.NDArray[Any]) -> None:
    """The same without the library, row by row."""
    rows = out.reshape(-1).view(np.uint8).reshape(-1, row_bytes)
    starts = range(len(wanted.files)) if wanted.starts is None else wanted.starts.tolist()
    places = zip(wanted.files.tolist(), wanted.bases.tolist(), wanted.rows.tolist(), starts, strict=True)
    for run, (file, base, row, start) in enumerate(places):
        if row < 0 or (file < 0 and base == 0):
            rows[start] = 0
        elif file < 0:
            ctypes.memmove(rows[start].ctypes.data, base + row * row_bytes, row_bytes)
        else:
            _read(run, file, base + row * row_bytes, memoryview(rows[start]))


def _read(run: int, file: int, offset: int, out: memoryview) -> None:
    done = 0
    while done < len(out):
        try:
            got = os.preadv(file, [out[done:]], offset + done)
        except OSError as error:
            raise RowError(error.errno or errno.EIO, run) from error
        if not got:
            raise RowError(errno.ENODATA, run)
        done += got
