"""What stands for a stream that an episode does not have: one row of nothing, of the right kind and width."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robocache.records import Int64, RecordedStream


@dataclass(frozen=True)
class BlankFrames:
    """One black image.

    Args:
        shape: Its height, width and channels.
    """

    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return 1

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """The image, once for each of `numbers`.

        Args:
            numbers: [image], each 0.
            size: (height, width). None: those of `shape`.
        """
        return np.zeros((len(numbers), *(size or self.shape[:2]), self.shape[2]), np.uint8)


def stand_in(like: RecordedStream, *, at_ns: int) -> RecordedStream:
    """A stream of one row, stamped `at_ns`: NaN, 0 for whole numbers, a scan without points, a black image.

    Args:
        like: A stream of another episode, for its kind, dtype, columns and image size; it may be empty.
        at_ns: The stamp of the row.
    """
    width, dtype = like.values.shape[1], like.values.dtype
    fill = np.nan if np.issubdtype(dtype, np.floating) else 0
    values = np.full((0 if like.kind == "points" else 1, width), fill, dtype)
    times_ns = np.array([at_ns], np.int64)
    return dataclasses.replace(
        like,
        values=values,
        times_ns=times_ns,
        clocks={like.clock: times_ns},
        offsets=np.zeros(2, np.int64) if like.kind == "points" else None,
        frames=None if like.frames is None else BlankFrames(like.frames.shape),
    )
