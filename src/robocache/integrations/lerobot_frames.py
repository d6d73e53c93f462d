"""Camera frames of a LeRobot dataset, decoded when they are asked for."""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingNotFoundError
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits
from robocache.readers.video import VideoFiles, VideoFrames
from robocache.records import Int64

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
        limits: How large a video's frames may be.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, size: tuple[int, int] | None, limits: Limits) -> None:
        self._meta = meta
        self._size = size
        self._limits = limits
        self._open()

    def _open(self) -> None:
        self._files = VideoFiles(self._limits)
        weakref.finalize(self, VideoFiles.close, self._files)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_files"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def size(self, camera: str) -> tuple[int, int]:
        """Height and width; see `FrameSource`."""
        if self._size is not None:
            return self._size
        feature = self._meta.features[camera]
        height, width = (side for side in feature["shape"] if side != 3) if 3 in feature["shape"] else (0, 0)
        return height, width

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
        frames = self._video(camera, episode, (out.shape[2], out.shape[3]))
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
        found = self._video(camera, episode, self.size(camera)).read(rows, size=self._size)
        return found.transpose(0, 3, 1, 2)

    def _video(self, camera: str, episode: int, sides: tuple[int, int]) -> VideoFrames:
        meta = self._meta
        path = meta.root / meta.get_video_file_path(episode, camera)
        if not path.is_file():
            raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK)
        shown_s = self.start_s(camera, episode) + np.arange(meta.dataset.episodes[episode].length) / meta.fps
        frames = VideoFrames(self._files, path, shown_s, 0.5 / meta.fps)
        height, width, _ = frames.shape if self._size is None else (*self._size, 3)
        if (height, width) != sides:
            problem = f"has frames of {width} x {height}, but meta/info.json says {sides[1]} x {sides[0]}"
            raise DamagedRecordingError(path, problem, remedy=CHECK)
        return frames

    def start_s(self, camera: str, episode: int) -> float:
        """When an episode starts in its video file.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        return float(self._meta.episodes[episode].get(f"videos/{camera}/from_timestamp") or 0.0)
