"""Runs of rows from many places in memory into one buffer, in one call."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robocache.ops import native_library

Integers = npt.NDArray[np.int64]
_CALL = struct.Struct("@12q")


class Runs(NamedTuple):
    """Where rows come from, and where they go.

    Args:
        bases: [run] addresses of row 0; 0 fills the run with zeros. Who calls keeps that memory.
        first: [run] the first row; below 0 fills the run with zeros.
        last: [run] the last row that may be read; a run that goes on beyond it repeats it.
        per_run: Rows of a run, where `counts` is None.
        starts: [run] its first row in the output; None: one run after the other.
        counts: [run] rows of each.
    """

    bases: Integers
    first: Integers
    last: Integers
    per_run: int = 1
    starts: Integers | None = None
    counts: Integers | None = None


def gather(runs: Runs, row_bytes: int, out: npt.NDArray[Any], *, threads: int = 1, scaled: bool = False) -> None:
    """Copy the runs: in the compiled library, where it is there, without the GIL.

    Args:
        runs: All arrays contiguous.
        row_bytes: Of a row.
        out: Contiguous, with room for all rows.
        threads: How many the library may use.
        scaled: The rows are uint8, and `out` is float32: 255ths.
    """
    if out.nbytes == 0 or len(runs.bases) == 0:
        return
    if native_library.PROBLEM is not None:
        gather_by_numpy(runs, row_bytes, out, scaled=scaled)
        return
    native_library.library().robocache_gather(
        _CALL.pack(
            *(0 if array is None else array.__array_interface__["data"][0] for array in (*runs[:3], *runs[4:], out)),
            len(runs.bases),
            runs.per_run,
            row_bytes,
            out.nbytes,
            threads,
            scaled,
        )
    )


def gather_by_numpy(runs: Runs, row_bytes: int, out: npt.NDArray[Any], *, scaled: bool = False) -> None:
    """The same in numpy, place by place."""
    rows = (out.reshape(-1) if scaled else out.reshape(-1).view(np.uint8)).reshape(-1, row_bytes)
    counts = np.full(len(runs.bases), runs.per_run) if runs.counts is None else runs.counts
    starts = np.arange(len(runs.bases)) * runs.per_run if runs.starts is None else runs.starts
    is_empty = (runs.bases == 0) | (runs.first < 0) | (runs.first > runs.last)
    run_of_row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(run_of_row)) - np.repeat(np.cumsum(counts) - counts, counts)
    target = starts[run_of_row] + within
    source = np.minimum(runs.first[run_of_row] + within, runs.last[run_of_row])
    rows[target[is_empty[run_of_row]]] = 0
    for base in np.unique(runs.bases[~is_empty]):
        chosen = ((runs.bases == base) & ~is_empty)[run_of_row]
        size = (int(source[chosen].max(initial=-1)) + 1) * row_bytes
        memory = (ctypes.c_uint8 * size).from_address(int(base))
        found = np.ctypeslib.as_array(memory).reshape(-1, row_bytes)[source[chosen]]
        rows[target[chosen]] = found / np.float32(255) if scaled else found
