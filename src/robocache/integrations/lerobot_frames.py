"""Camera frames of a LeRobot dataset: decoded when they are asked for, or once into a cache of shards."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robocache.cache import Contents, Shard, ShardKey, ShardStore, shard_key
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.integrations.lerobot_video import frame_seconds, read_frames
from robocache.records import Int64

Images = npt.NDArray[np.uint8]
VERSION = 1  # of the frames in a shard: another way to decode or resize needs another
MAX_OPEN_SHARDS = 64  # each holds a file descriptor
MAX_RESIDENT_BYTES = 128 * 2**20  # of mapped frames; beyond it their pages are left to the system's page cache


class FrameSource(Protocol):
    """Where frames come from."""

    def copy(self, camera: str, episode: int, rows: Int64, out: Images, places: Int64) -> None:
        """Copy frames of one episode.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
            rows: [frame] of the episode, ascending; the same one may be there several times.
            out: [image, 3, height, width], written.
            places: [frame] which image of `out` each becomes.
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
    """

    def __init__(self, meta: LeRobotDatasetMetadata, size: tuple[int, int] | None) -> None:
        self._meta = meta
        self._size = size

    def size(self, camera: str) -> tuple[int, int]:
        """Height and width; see `FrameSource`."""
        if self._size is not None:
            return self._size
        feature = self._meta.features[camera]
        height, width = (side for side in feature["shape"] if side != 3) if 3 in feature["shape"] else (0, 0)
        return height, width

    def copy(self, camera: str, episode: int, rows: Int64, out: Images, places: Int64) -> None:
        """Copy frames; see `FrameSource`."""
        path = self._meta.root / self._meta.get_video_file_path(episode, camera)
        seconds = frame_seconds(self.start_s(camera, episode), rows, self._meta.fps)
        read_frames(path, seconds, self._meta.fps, out, places)

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
    """

    def __init__(
        self, meta: LeRobotDatasetMetadata, size: tuple[int, int], folder: Path | str, limit_bytes: int | None
    ) -> None:
        self._meta = meta
        self._size = size
        self._decoded = DecodedFrames(meta, size)
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

    def copy(self, camera: str, episode: int, rows: Int64, out: Images, places: Int64) -> None:
        """Copy frames; see `FrameSource`."""
        frames = self.episode(camera, episode)
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            out[place] = frames[row]
        self._resident_bytes += len(rows) * frames[:1].nbytes
        if self._resident_bytes > MAX_RESIDENT_BYTES:
            self._release()

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
        """Let go of the mapped pages, which would else all count as this process's memory; they come back when read."""
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
