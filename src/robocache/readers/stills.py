"""Streams of still images: each is fetched and decoded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from robocache.errors import ArgumentError, DamagedRecordingError, RecordingLimitError
from robocache.readers.images import ImageError, ImageTooLargeError, Uint8, checked_size, decoded, resized, room_for
from robocache.records import Int64

if TYPE_CHECKING:
    from robocache.readers.limits import Limits

# Gives the decoded images of ascending numbers, each once, and says in an ImageError what is wrong with one.
Fetch = Callable[[Int64], Iterator[Uint8]]
LEAVE_OUT = "record it again, or leave the stream out with streams=[...]"


def checked_numbers(numbers: Int64, count: int) -> Int64:
    """Numbers of images.

    Raises:
        ArgumentError: They are no integers, have more than one axis, or lie outside of 0 to `count` - 1.
    """
    found = np.asarray(numbers)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ArgumentError(f"numbers must be integers with one axis, got {found.dtype} of shape {found.shape}")
    if found.size and not (int(found.min()) >= 0 and int(found.max()) < count):
        raise ArgumentError(f"numbers must be 0 to {count - 1}, got {int(found.min())} to {int(found.max())}")
    return found.astype(np.int64)


class StillFrames:
    """Images that are stored one by one.

    Args:
        path: The file, for errors.
        place: What to call an image there, such as "topic /camera message".
        count: How many there are.
        shape: Height, width and 3 of each.
        fetch: Decodes them.
    """

    def __init__(self, path: str, place: str, count: int, shape: tuple[int, int, int], fetch: Fetch) -> None:
        self.shape = shape
        self._path = path
        self._place = place
        self._count = count
        self._fetch = fetch

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> Uint8:
        """Decode some of the images; see `Frames.read`."""
        wanted, back = np.unique(checked_numbers(numbers, self._count), return_inverse=True)
        size = checked_size(size)
        sides = self.shape[:2] if size is None else size
        found = np.empty((0, *sides, 3), np.uint8)
        images = self._fetch(wanted)
        for row, number in enumerate(wanted.tolist()):
            try:
                pixels = next(images)
                self._check_shape(pixels)
            except ImageError as error:
                kind = RecordingLimitError if isinstance(error, ImageTooLargeError) else DamagedRecordingError
                raise kind(self._path, str(error), place=self._place, offset=number, remedy=LEAVE_OUT) from error
            if size is None and len(wanted) == 1 and pixels.base is None:  # a large image would be held twice
                found = pixels[None]
                break
            if not row:  # a size that was only declared may be none that there is memory for
                found = room_for(len(wanted), sides, resized=size is not None)
            found[row] = pixels if size is None else resized(pixels, size)
        return found if np.array_equal(back, np.arange(len(wanted))) else found[back]

    def _check_shape(self, pixels: Uint8) -> None:
        if pixels.shape != self.shape:
            height, width, _ = self.shape
            raise ImageError(f"has {pixels.shape[1]} x {pixels.shape[0]} pixels, not {width} x {height}")


def decoded_each(payloads: Iterator[bytes], limits: Limits) -> Iterator[Uint8]:
    """Every JPEG or PNG of some, decoded."""
    for payload in payloads:
        yield decoded(payload, limits)
