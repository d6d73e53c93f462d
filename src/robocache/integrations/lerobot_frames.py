"""Camera frames of a LeRobot dataset: decoded when they are asked for, or once into a cache of shards."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import get_worker_info

from robocache.cache import Contents, Shard, ShardKey, ShardStore, shard_key
from robocache.errors import DamagedRecordingError, RecordingNotFoundError
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.loader.gather import Runs, gather
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits
from robocache.readers.video import VideoFiles, VideoFrames
from robocache.records import Int64

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
VERSION = 1  # of the frames in a shard: another way to decode or resize needs another
CHUNK_BYTES = 16 * 2**20  # of decoded frames on their way into a batch or a shard
BUILD_BYTES = 256 * 2**20  # of episodes that are decoded side by side; one alone may have more
MAX_OPEN_SHARDS = 64  # each holds a file descriptor
MAX_RESIDENT_BYTES = 8 * 2**20  # of frames copied: the system maps several times as many pages around them


class FrameSource(Protocol):
    """Where frames come from."""

    def copy(self, camera: str, episode: int, rows: Int64, out: Images | Floats, places: Int64) -> None:
        """Copy frames of one episode.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
            rows: [frame] of the episode, ascending; the same one may be there several times.
            out: [image, 3, height, width], written: uint8, or float32 from 0 to 1.
            places: [frame] which image of `out` each becomes.
        """
        ...

    def prepare(self, camera: str, episodes: Sequence[int]) -> None:
        """Do ahead what `copy` would do for the first frame of each of these episodes.

        Args:
            camera: The feature.
            episodes: Their places in the metadata's `episodes`, each once.
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

    def prepare(self, camera: str, episodes: Sequence[int]) -> None:
        """Nothing: every frame is decoded when it is asked for."""

    def copy(self, camera: str, episode: int, rows: Int64, out: Images | Floats, places: Int64) -> None:
        """Copy frames; see `FrameSource`."""
        meta = self._meta
        path = meta.root / meta.get_video_file_path(episode, camera)
        if not path.is_file():
            raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK)
        shown_s = self.start_s(camera, episode) + np.arange(meta.dataset.episodes[episode].length) / meta.fps
        frames = VideoFrames(self._files, path, shown_s, 0.5 / meta.fps)
        height, width, _ = frames.shape if self._size is None else (*self._size, 3)
        if (height, width) != out.shape[2:]:
            problem = f"has frames of {width} x {height}, but meta/info.json says {out.shape[3]} x {out.shape[2]}"
            raise DamagedRecordingError(path, problem, remedy=CHECK)
        step = max(1, CHUNK_BYTES // (3 * height * width))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            found = frames.read(rows[part], size=self._size).transpose(0, 3, 1, 2)
            out[places[part]] = found / np.float32(255) if out.dtype == np.float32 else found

    def start_s(self, camera: str, episode: int) -> float:
        """When an episode starts in its video file.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        return float(self._meta.episodes[episode].get(f"videos/{camera}/from_timestamp") or 0.0)


class CachedFrames:
    """Frames decoded once, in the order of the file, into one shard an episode and camera; then mapped into memory.

    Any number of processes may use one cache: among them one decodes an episode, and the others wait for it.

    Args:
        meta: Whose.
        size: (height, width) of the frames in the cache.
        folder: Of the cache.
        limit_bytes: What the cache may weigh.
        limits: How large a video's frames may be.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        size: tuple[int, int],
        folder: Path | str,
        limit_bytes: int | None,
        limits: Limits,
    ) -> None:
        self._meta = meta
        self._size = size
        self._decoded = DecodedFrames(meta, size, limits)
        self._folder, self._limit_bytes = folder, limit_bytes
        self._resident_bytes = 0
        self._keys: dict[tuple[str, int], ShardKey] = {}
        self._open: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        ShardStore(folder, limit_bytes)  # a folder that cannot be used is better known at once

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def size(self, camera: str) -> tuple[int, int]:  # noqa: ARG002 -- one size for all
        """Height and width; see `FrameSource`."""
        return self._size

    def copy(self, camera: str, episode: int, rows: Int64, out: Images | Floats, places: Int64) -> None:
        """Copy frames; see `FrameSource`."""
        frames = self.episode(camera, episode)
        bases = np.full(len(rows), frames.__array_interface__["data"][0])
        last = np.full(len(rows), len(frames) - 1)
        gather(Runs(bases, rows, last, 1, places), frames[:1].nbytes, out, scaled=out.dtype == np.float32)
        self._resident_bytes += len(rows) * frames[:1].nbytes
        self._release()

    def prepare(self, camera: str, episodes: Sequence[int]) -> None:
        """Decode the episodes that the cache does not hold side by side, each in a thread that ends with the call."""
        new = [episode for episode in episodes if (camera, episode) not in self._keys]
        if len(new) < 2:
            return
        keys = {episode: self.key(camera, episode) for episode in new}
        store = ShardStore(self._folder, self._limit_bytes)
        missing = [episode for episode in new if not store.contains(keys[episode])]
        if len(missing) < 2:
            return

        def build(episode: int) -> None:
            store.get_or_build(keys[episode], lambda: self._build(camera, episode)).close()
            self._keys[camera, episode] = keys[episode]

        longest_bytes = max(self._meta.dataset.episodes[episode].length for episode in missing) * 3 * prod(self._size)
        with ThreadPoolExecutor(_threads(longest_bytes), thread_name_prefix="robocache-frames") as pool:
            deque(pool.map(build, missing), maxlen=0)

    def episode(self, camera: str, episode: int) -> Images:
        """All frames of an episode, [frame, 3, height, width], as they lie in the cache; decoded if need be.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        place = (camera, episode)
        shard = self._open.get(place)
        if shard is None:
            # A shard's checksums are compared when a process first opens it, not each time that it comes back.
            store = ShardStore(self._folder, self._limit_bytes, verify_arrays=place not in self._keys)
            key = self._keys.get(place) or self._key(camera, episode)
            shard = store.get_or_build(key, lambda: self._build(camera, episode))
            self._keys[place] = key
            self._open[place] = shard
            self._resident_bytes += shard.arrays["frames"].nbytes  # its checksums were compared, or it was written
            while len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(place)
        return shard.arrays["frames"]

    def key(self, camera: str, episode: int) -> ShardKey:
        """The name of an episode's shard.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        return self._keys.get((camera, episode)) or self._key(camera, episode)

    def _release(self) -> None:
        """Let go of mapped pages, if many: they count as this process's memory, and come back when they are read."""
        if self._resident_bytes <= MAX_RESIDENT_BYTES:
            return
        for shard in self._open.values():
            mapping = shard.arrays["frames"].base
            if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)
        self._resident_bytes = 0

    def _key(self, camera: str, episode: int) -> ShardKey:
        meta = self._meta
        entry = meta.dataset.episodes[episode]
        description: Mapping[str, Any] = {
            "frames": entry.length,
            "fps": meta.fps,
            "start_s": self._decoded.start_s(camera, episode),
            "size": list(self._size),
        }
        return shard_key([meta.root / meta.get_video_file_path(episode, camera)], description, f"lerobot-{VERSION}")

    def _build(self, camera: str, episode: int) -> Contents:
        rows = np.arange(self._meta.dataset.episodes[episode].length)
        frames = np.empty((len(rows), 3, *self._size), np.uint8)
        self._decoded.copy(camera, episode, rows, frames, rows)
        return Contents({"frames": frames}, {"camera": camera, "episode": episode})


def _threads(episode_bytes: int) -> int:
    """How many episodes are decoded at once: a DataLoader's workers are side by side already."""
    if get_worker_info() is not None:
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, BUILD_BYTES // max(1, episode_bytes)))
