"""Zarr replay buffers, as diffusion policy and UMI write them: arrays of steps, and where each episode ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, ClosedError, DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.limits import Limits
from robocache.readers.recording import OpenRecording, requested_streams, synthetic_times_ns
from robocache.readers.span import Span
from robocache.readers.zarr_array import NotReadError, ZarrArray, open_array
from robocache.readers.zarr_store import COPY, Store
from robocache.records import Episode, Int64, RecordedStream

ENDS = "meta/episode_ends"
MAX_EPISODES = 10_000_000
GIVE_RATE = "give a rate: open_recording(path, rate_hz=...), or --source-rate on the command line"


class ReplayBufferRecording(OpenRecording):
    """A Zarr replay buffer (version 2 or 3, a folder or a zip file) as a `Recording`, "episode_000000" and on.

    A stream is an array below `data/` of numbers with one or two axes, called by its name there; one of [step, height,
    width, 3] uint8 is a stream of images, of which only those that are asked for are read. The format has no times:
    t = k / rate from the start of the episode, on the clock "synthetic". Other arrays (texts, JPEG XL, shards) are
    listed, with the reason, in the episode's attributes under "skipped".

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

    def read_episode(
        self,
        index: int,
        streams: Collection[str] | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Episode:
        """Read the chunks that an episode, or a part of it, lies in; see `Recording.read_episode`."""
        self._check_episode(index)
        span = Span(start_ns, end_ns)
        names = requested_streams(self.path, streams, self._arrays)
        start, stop = (0 if index == 0 else int(self._ends[index - 1])), int(self._ends[index])
        low, high = span.synthetic_rows(stop - start, self._rate_hz)
        try:
            times_ns = synthetic_times_ns(stop - start, self._rate_hz, range(low, high))
        except ValueError as error:
            raise DamagedRecordingError(self.path, str(error), place=ENDS, remedy="give another rate_hz") from error
        inside = span.rows(times_ns)
        low, high = start + low + inside.start, start + low + inside.stop
        times_ns = times_ns[inside].copy()
        made: dict[str, RecordedStream] = {}
        left = self._store.limits.episode_bytes
        for name in names:
            made[name] = self._stream(name, low, high, times_ns, left)
            left -= made[name].nbytes
        attributes = {"rate_hz": self._rate_hz, "skipped": dict(self._skipped)}
        return Episode(self.episode_names[index], made, self.path, attributes)

    def _stream(self, name: str, low: int, high: int, times_ns: Int64, left: int) -> RecordedStream:
        array, clocks = self._arrays[name], {"synthetic": times_ns}
        if len(array.shape) == 4:
            numbers = np.arange(low, high)[:, None]
            frames = ZarrFrames(self, array)
            return RecordedStream(name, numbers, times_ns, clocks, "synthetic", kind="image", frames=frames)
        values = array.rows(low, high, max(left, 0)).reshape(
            high - low, -1 if high > low else int(np.prod(array.shape[1:]))
        )
        return RecordedStream(name, values, times_ns, clocks, "synthetic")

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
            is_image = len(array.shape) == 4 and array.shape[3] == 3 and array.dtype == np.uint8
            if len(array.shape) > 2 and not is_image:
                self._skipped[name] = (
                    f"it has {len(array.shape)} axes of {array.dtype}, not one or two, and is no image"
                )
            elif array.shape[0] < self._ends[-1]:
                problem = f"has {array.shape[0]} rows, but the last episode ends at {self._ends[-1]}"
                raise DamagedRecordingError(self._store.path, problem, place=f"array data/{name}", remedy=COPY)
            else:
                found[name] = array
        return found


@dataclass(frozen=True)
class ZarrFrames:
    """The images of an array of [step, height, width, 3] uint8, read when they are asked for; see `Frames`.

    Args:
        recording: What holds the store open.
        array: Of all episodes.
    """

    recording: ReplayBufferRecording
    array: ZarrArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.array.shape[1], self.array.shape[2], 3

    def __len__(self) -> int:
        return self.array.shape[0]

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """Read some of the images; see `Frames.read`."""
        if self.recording._is_closed:  # noqa: SLF001 -- they are one thing in two classes
            raise ClosedError(f"{self.recording.path} is closed; open it again to read from it")
        numbers = np.asarray(numbers, dtype=np.int64)
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise ArgumentError(
                f"numbers must be 0 to {len(self) - 1}, got {int(numbers.min())} to {int(numbers.max())}"
            )
        out = np.empty((len(numbers), *(self.shape[:2] if size is None else size), 3), np.uint8)
        step = self.array.chunks[0]
        for chunk in np.unique(numbers // step):
            rows = np.flatnonzero(numbers // step == chunk)
            first, last = int(numbers[rows].min()), int(numbers[rows].max()) + 1
            images = self.array.rows(first, last, self.array.store.limits.block_bytes)[numbers[rows] - first]
            out[rows] = images if size is None else _resized(images, size)
        return out


def _resized(images: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(resized.permute(0, 2, 3, 1).numpy())


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
