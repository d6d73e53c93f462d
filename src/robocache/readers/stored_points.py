"""Points of clouds that stay in their file until they are sliced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits
from robocache.records import Int64

POINTS_AT_ONCE = 2**18
Points = npt.NDArray[np.generic]
# Reads scans by their numbers in the file: [points, columns] of each in turn.
Fetch = Callable[[Int64], Iterator[Points]]


@dataclass(frozen=True)
class StoredPoints:
    """[points, columns] of the scans of one stream: for numpy an array, which it reads out of the file.

    A slice along the first axis reads the scans that it touches. Anything else that numpy's indexing knows, and
    `np.asarray`, read all of them. Nothing is kept.

    Args:
        path: The file, for errors.
        numbers: [scan] int64, which one of the file each scan is.
        offsets: [scan + 1] int64, where each scan begins among the points.
        dtype: Of the points.
        columns: How many numbers a point has.
        fetch: Reads scans; it is asked for ascending numbers.
        limits: How many bytes one call may read.
    """

    path: str
    numbers: Int64
    offsets: Int64
    dtype: np.dtype[np.generic]
    columns: int
    fetch: Fetch
    limits: Limits

    @property
    def shape(self) -> tuple[int, int]:
        """(points, columns)."""
        return int(self.offsets[-1]), self.columns

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self) * self.columns

    @property
    def nbytes(self) -> int:
        """Host bytes held: none of the points."""
        return self.numbers.nbytes + self.offsets.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001
        if copy is False:
            raise ValueError("points in a file cannot become an array without a copy")
        return self._read(0, len(self)).astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401  whatever numpy takes and gives
        rows, others = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            return self._read(start, max(start, stop))[(slice(None), *others)]
        if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
            row = range(len(self))[int(rows)]
            return self._read(row, row + 1)[(0, *others)]
        return np.asarray(self)[key]

    def ordered(self, order: Int64) -> StoredPoints:
        """Some of the scans, or all in another order; nothing is read.

        Args:
            order: Which scans.
        """
        counts = np.diff(self.offsets)[order]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return replace(self, numbers=self.numbers[order], offsets=offsets)

    def _read(self, start: int, stop: int) -> Points:
        size = (stop - start) * self.columns * self.dtype.itemsize
        if size > self.limits.episode_bytes:
            problem = f"{stop - start} points take {size} bytes, and the limit is {self.limits.episode_bytes}"
            remedy = "read fewer scans at once, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, remedy=remedy)
        found = np.empty((stop - start, self.columns), self.dtype)
        begins, ends = self.offsets[:-1], self.offsets[1:]
        touched = np.flatnonzero((begins < stop) & (ends > start) & (ends > begins))
        touched = touched[np.argsort(self.numbers[touched])]  # in the file's order, so that no block is read twice
        for scan, points in zip(touched.tolist(), self.fetch(self.numbers[touched]), strict=True):
            if points.shape != (int(ends[scan] - begins[scan]), self.columns):
                raise DamagedRecordingError(self.path, "changed while it was read", remedy="open it again")
            first, after = max(start, int(begins[scan])), min(stop, int(ends[scan]))
            found[first - start : after - start] = points[first - int(begins[scan]) : after - int(begins[scan])]
        return found


def scan_runs(scans: Int64, offsets: Int64, points: int) -> Iterator[tuple[int, int]]:
    """Ascending scans in runs of neighbours of about so many points: the first scan of each, and that after its last.

    Args:
        scans: [scan] int64, each once.
        offsets: Of all scans.
        points: A run ends before it has more, but a scan is never cut.
    """
    first = after = -1
    for scan in scans.tolist():
        if scan != after or int(offsets[scan + 1] - offsets[first]) > points:
            if after > first:
                yield first, after
            first = scan
        after = scan + 1
    if after > first:
        yield first, after
