"""Zarr replay buffers, as diffusion policy and UMI write them: arrays of steps, and where each episode ends."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.images import MAX_SIDE, ImageError, Uint8, check_pixels
from robocache.readers.limits import Limits
from robocache.readers.recording import (
    OpenRecording,
    ascending_stream,
    image_stream,
    requested_streams,
    synthetic_times_ns,
)
from robocache.readers.span import Span
from robocache.readers.stills import StillFrames
from robocache.readers.zarr_array import NotReadError, ZarrArray, open_array
from robocache.readers.zarr_store import COPY, Store
from robocache.records import Episode, Int64, RecordedStream

ENDS = "meta/episode_ends"
MAX_EPISODES = 10_000_000
PICTURE_AXES = 4
GIVE_RATE = "give a rate: open_recording(path, rate_hz=...), or --source-rate on the command line"


class ReplayBufferRecording(OpenRecording):
    """A Zarr replay buffer (version 2 or 3, a folder or a zip file) as a `Recording`, "episode_000000" and on.

    A stream is an array below `data/` of numbers with one or two axes, called by its name there; one of [step, height,
    width, 3] uint8 is a stream of images, of which only those that are asked for are read. The format has no times:
    t = k / rate from the start of the episode, on the clock "synthetic". Images of float32 that are whole numbers
    from 0 to 255 are images too. Other arrays (texts, JPEG XL, shards) are listed, with the reason, in the episode's
    attributes under "skipped".

    Args:
        path: The folder, or the zip file, which is not unpacked.
        limits: What it may make the reader allocate.
        rate_hz: Steps a second.
    """

    format = "zarr"

    def __init__(self, path: Path, *, limits: Limits, rate_hz: float | None) -> None:
        if rate_hz is None:
            raise UnknownFormatError(path, "is a Zarr replay buffer, which has no times", remedy=GIVE_RATE)
        self._rate_hz = rate_hz
        self._store = Store(path, limits)
        try:
            self._ends = _episode_ends(self._store)
            self._skipped: dict[str, str] = {}
            self._arrays = self._found_arrays()
        except BaseException:
            self._store.close()
            raise
        super().__init__(str(path), (f"episode_{index:06d}" for index in range(len(self._ends))))

    def close(self) -> None:
        """Close the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._store.close()

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read the chunks that an episode, or a part of it, lies in."""
        names = requested_streams(self.path, streams, self._arrays, self._skipped)
        start, stop = (0 if index == 0 else int(self._ends[index - 1])), int(self._ends[index])
        low, high = span.synthetic_rows(stop - start, self._rate_hz)
        numbers = self._numbers(names, range(start + low, start + high))
        if not numbers:
            self._check_rows(high - low)
        try:
            times_ns = synthetic_times_ns(stop - start, self._rate_hz, range(low, high))
        except ValueError as error:
            raise DamagedRecordingError(self.path, str(error), place=ENDS, remedy="give another rate_hz") from error
        inside = span.rows(times_ns)
        rows = range(low + inside.start, low + inside.stop)
        clocks = {"synthetic": times_ns[inside].copy()}
        made: dict[str, RecordedStream] = {}
        for name in names:
            if name in numbers:
                values = numbers.pop(name)[inside]
                made[name] = ascending_stream(name, values, clocks, "synthetic")
            else:
                frames = self._images(index, name, start, stop)
                made[name] = image_stream(name, frames, clocks, "synthetic", rows)
        attributes = {"rate_hz": self._rate_hz, "skipped": dict(self._skipped)}
        return Episode(self.episode_names[index], made, self.path, attributes)

    def _check_rows(self, count: int) -> None:
        """Images that were never written take no space in the store, and would still have times."""
        if 8 * count > self._store.limits.bytes_of_times:
            problem = f"declares an episode of {count} rows, whose times alone are more than the limits allow"
            remedy = "read a part of it, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self._store.path, problem, place=f"array {ENDS}", remedy=remedy)

    def _numbers(self, names: Collection[str], rows: range) -> dict[str, npt.NDArray[np.generic]]:
        """The rows of those of the arrays that are no images: read before times are made for as many."""
        found: dict[str, npt.NDArray[np.generic]] = {}
        left = self._store.limits.episode_bytes
        for name in names:
            array = self._arrays[name]
            if len(array.shape) != PICTURE_AXES:
                width = -1 if len(rows) else math.prod(array.shape[1:])
                found[name] = array.rows(rows.start, rows.stop, max(left, 0)).reshape(len(rows), width)
                left -= found[name].nbytes + 8 * len(rows)
        return found

    def _images(self, index: int, name: str, start: int, stop: int) -> StillFrames:
        array = self._arrays[name]
        height, width = array.shape[1:3]

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            self._check_episode(index)
            check_pixels(height, width, self._store.limits)
            rows, step = numbers + start, array.chunks[0]
            for chunk in np.unique(rows // step):  # a chunk is decompressed once for all its images
                wanted = rows[rows // step == chunk]
                first = int(wanted[0])
                found = array.rows(first, int(wanted[-1]) + 1, self._store.limits.block_bytes)[wanted - first]
                if not _are_pixels(found):
                    raise ImageError("holds values that are not whole numbers from 0 to 255")
                yield from found.astype(np.uint8, copy=False)

        place = f"array data/{name}, episode {index}, image"
        return StillFrames(self.path, place, stop - start, (height, width, 3), fetch)

    def _found_arrays(self) -> dict[str, ZarrArray]:
        found = {}
        for name in self._store.names("data"):
            try:
                array = open_array(self._store, f"data/{name}")
            except NotReadError as reason:
                self._skipped[name] = str(reason)
                continue
            if array is None:
                continue
            if len(array.shape) > 2 and not _is_image(array):
                self._skipped[name] = (
                    f"it has {len(array.shape)} axes of {array.dtype}, not one or two, and is no image"
                )
            elif array.shape[0] < self._ends[-1]:
                problem = f"has {array.shape[0]} rows, but the last episode ends at {self._ends[-1]}"
                raise DamagedRecordingError(self._store.path, problem, place=f"array data/{name}", remedy=COPY)
            else:
                found[name] = array
        return found


def _is_image(array: ZarrArray) -> bool:
    """Whether an array is of pictures: uint8, or float32 with the same numbers, as diffusion policy's PushT has."""
    if len(array.shape) != PICTURE_AXES or array.shape[3] != 3:
        return False
    if not 0 < min(array.shape[1:3]) <= max(array.shape[1:3]) <= MAX_SIDE:
        return False
    if array.dtype != np.float32 or not array.shape[0]:
        return bool(array.dtype == np.uint8)
    first = array.rows(0, 1, array.store.limits.block_bytes)
    return _are_pixels(first) and float(first.max()) > 1  # which fractions from 0 to 1 are not


def _are_pixels(values: npt.NDArray[np.generic]) -> bool:
    with np.errstate(invalid="ignore"):
        return values.dtype == np.uint8 or bool(np.array_equal(values.astype(np.uint8), values))


def _episode_ends(store: Store) -> Int64:
    try:
        array = open_array(store, ENDS)
    except NotReadError as reason:
        raise DamagedRecordingError(store.path, str(reason), place=f"array {ENDS}", remedy=COPY) from reason
    if array is None:
        raise UnknownFormatError(store.path, f"is a Zarr store without {ENDS}", remedy="name a replay buffer")
    if array.shape[0] > MAX_EPISODES:
        problem = f"declares {array.shape[0]} episodes, and {MAX_EPISODES} are allowed"
        raise RecordingLimitError(store.path, problem, place=f"array {ENDS}", remedy=COPY)
    if len(array.shape) != 1 or array.dtype.kind not in "iu" or array.shape[0] < 1:
        problem = f"is {array.dtype}{list(array.shape)}, not the ends of one episode or more"
        raise DamagedRecordingError(store.path, problem, place=f"array {ENDS}", remedy=COPY)
    ends = array.rows(0, array.shape[0], store.limits.block_bytes)
    if int(ends[0]) < 0 or np.any(ends[1:] < ends[:-1]) or int(ends[-1]) > 2**62:
        raise DamagedRecordingError(store.path, "is not ascending from 0 on", place=f"array {ENDS}", remedy=COPY)
    return ends.astype(np.int64)
