"""Camera frames of a LeRobot dataset, decoded when they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingLimitError, RecordingNotFoundError
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.readers.lerobot_images import ImageColumns
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits
from robocache.readers.video import VideoFiles, VideoFrames
from robocache.records import Frames, Int64

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
CHUNK_BYTES = 16 * 2**20  # of decoded frames on their way into a batch or a shard


class FrameSource(Protocol):
    """Where frames come from."""

    def take(self, camera: str, episodes: Int64, rows: Int64, out: Images | Floats) -> None:
        """Copy the frames of a batch.

        Args:
            camera: The feature.
            episodes: [image] which episode each is of: places in the metadata's `episodes`.
            rows: [image] which row of it.
            out: [image, 3, height, width], written: uint8, or float32 from 0 to 1.
        """
        ...

    def size(self, camera: str) -> tuple[int, int]:
        """Height and width of the frames.

        Args:
            camera: The feature.
        """
        ...


class DecodedFrames:
    """Frames decoded at each call.

    Args:
        meta: Whose.
        size: (height, width) to resize to. None: as recorded.
        limits: How large images and a video's frames may be.
        first_rows: By episode, a place in the metadata's `episodes`: its first row in its Parquet file, which may hold
            images.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        size: tuple[int, int] | None,
        limits: Limits,
        first_rows: Mapping[int, int],
    ) -> None:
        self._meta = meta
        self._size = size
        self._limits = limits
        self._first_rows = first_rows
        self._open()

    def _open(self) -> None:
        self._files, self._stills = VideoFiles(self._limits), ImageColumns(self._limits)
        weakref.finalize(self, VideoFiles.close, self._files)
        weakref.finalize(self, ImageColumns.close, self._stills)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_stills")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def size(self, camera: str) -> tuple[int, int]:
        """Height and width; see `FrameSource`."""
        return self._size or self.recorded_size(camera)

    def recorded_size(self, camera: str) -> tuple[int, int]:
        """Height and width as info.json says; 0 and 0 where it names no three channels.

        Args:
            camera: The feature.

        Raises:
            RecordingLimitError: It says more pixels than are allowed.
        """
        shape = self._meta.features[camera]["shape"]
        if len(shape) != 3 or not all(isinstance(side, int) and side >= 0 for side in shape):
            return 0, 0
        height, width = shape[1:] if shape[0] == 3 and shape[2] != 3 else shape[:2]
        if height * width > self._limits.image_pixels:
            problem = f"says that {camera} has {width} x {height} pixels, and {self._limits.image_pixels} are allowed"
            remedy = "raise Limits(image_pixels=...) if you trust it"
            raise RecordingLimitError(self._meta.root / "meta" / "info.json", problem, remedy=remedy)
        return (height, width) if 3 in (shape[0], shape[2]) else (0, 0)

    def take(self, camera: str, episodes: Int64, rows: Int64, out: Images | Floats) -> None:
        """Copy frames; see `FrameSource`. Each of an episode's is decoded once, in order."""
        order = np.lexsort((rows, episodes))
        cuts = [*np.flatnonzero(np.diff(episodes[order], prepend=-1)).tolist(), len(order)]
        for first, end in pairwise(cuts):
            places = order[first:end]
            self.copy(camera, int(episodes[places[0]]), rows[places], out, places)

    def copy(self, camera: str, episode: int, rows: Int64, out: Images | Floats, places: Int64) -> None:
        """Copy frames of one episode.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
            rows: [frame] of the episode, ascending; the same one may be there several times.
            out: [image, 3, height, width], written: uint8, or float32 from 0 to 1.
            places: [frame] which image of `out` each becomes.
        """
        frames = self._of_episode(camera, episode, (out.shape[2], out.shape[3]))
        step = max(1, CHUNK_BYTES // out[:1].nbytes)
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            found = frames.read(rows[part], size=self._size).transpose(0, 3, 1, 2)
            out[places[part]] = found / np.float32(255) if out.dtype == np.float32 else found

    def read(self, camera: str, episode: int, rows: Int64) -> Images:
        """Frames of one episode, [frame, 3, height, width].

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
            rows: [frame] of the episode.
        """
        found = self._of_episode(camera, episode, self.size(camera)).read(rows, size=self._size)
        return found.transpose(0, 3, 1, 2)

    def source(self, camera: str, episode: int) -> tuple[Path, dict[str, Any]]:
        """The file with the frames of an episode, and where in it they are.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        meta = self._meta
        if camera in meta.image_keys:
            return meta.root / meta.get_data_file_path(episode), {"column": camera, "row": self._first_rows[episode]}
        path, start_s = meta.video_file(episode, camera)
        return path, {"start_s": start_s}

    def _of_episode(self, camera: str, episode: int, sides: tuple[int, int]) -> Frames:
        path, place = self.source(camera, episode)
        length = self._meta.dataset.episodes[episode].length
        if "row" in place:
            rows = range(place["row"], place["row"] + length)
            shape = self._stills.shape(path, camera, rows.start) if self._size is not None else (*sides, 3)
            if isinstance(shape, str):
                raise DamagedRecordingError(path, shape, place=f"column {camera}", remedy=CHECK)
            return self._stills.frames(path, camera, rows, shape)
        return self._video(path, place["start_s"] + np.arange(length) / self._meta.fps, sides)

    def _video(self, path: Path, shown_s: npt.NDArray[np.float64], sides: tuple[int, int]) -> VideoFrames:
        if not path.is_file():
            raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK)
        frames = VideoFrames(self._files, path, shown_s, 0.5 / self._meta.fps)
        height, width, _ = frames.shape if self._size is None else (*self._size, 3)
        if (height, width) != sides:
            problem = f"has frames of {width} x {height}, but meta/info.json says {sides[1]} x {sides[0]}"
            raise DamagedRecordingError(path, problem, remedy=CHECK)
        return frames
