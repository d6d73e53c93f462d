"""Camera frames of a LeRobot dataset, decoded once into a cache of shards and mapped into memory."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import get_worker_info

from robocache.cache import Contents, Pieces, Shard, ShardKey, ShardStore, shard_key
from robocache.integrations.lerobot_frames import DecodedFrames, Floats, Images
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.loader.gather import Runs, gather
from robocache.records import Int64

VERSION = 1  # of the frames in a shard: another way to decode or resize needs another
PIECE_BYTES = 8 * 2**20  # of frames on their way into a shard
MAX_BUILDERS = 8  # episodes that are decoded side by side; each takes a piece and a decoder's frames
MAX_OPEN_SHARDS = 64  # each holds a file descriptor
MAX_RESIDENT_BYTES = 8 * 2**20  # of frames copied: the system maps several times as many pages around them


class _Open(NamedTuple):
    """The shards of one camera that are open. Never changed, so that a thread that copies holds what it copies from.

    Args:
        bases: [episode] the address of its first frame; 0: it is not open.
        last: [episode] its last row.
        frames: What keeps the addresses good.
    """

    bases: Int64
    last: Int64
    frames: tuple[Images, ...]


class CachedFrames:
    """Frames decoded once, in the order of the file, into one shard an episode and camera; then mapped into memory.

    Any number of processes may use one cache: among them one decodes an episode, and the others wait for it.

    Args:
        meta: Whose.
        decoded: Decodes its frames at the size of those in the cache.
        size: (height, width) of them.
        folder: Of the cache.
        limit_bytes: What the cache may weigh.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        decoded: DecodedFrames,
        size: tuple[int, int],
        folder: Path | str,
        limit_bytes: int | None,
    ) -> None:
        self._meta = meta
        self._size = size
        self._decoded = decoded
        self._folder, self._limit_bytes = folder, limit_bytes
        self._resident_bytes = self._tick = 0
        self._keys: dict[tuple[str, int], ShardKey] = {}
        self._forget()
        ShardStore(folder, limit_bytes)  # a folder that cannot be used is better known at once

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_shards", "_open", "_used")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._shards: dict[tuple[str, int], tuple[Shard, Images]] = {}
        count = len(self._meta.dataset.episodes)
        self._used = {camera: np.zeros(count, np.int64) for camera in self._meta.camera_keys}
        self._see_open()

    def size(self, camera: str) -> tuple[int, int]:  # noqa: ARG002 -- one size for all
        """Height and width; see `FrameSource`."""
        return self._size

    def take(self, camera: str, episodes: Int64, rows: Int64, out: Images | Floats) -> None:
        """Copy frames; see `FrameSource`."""
        self._tick += 1
        is_open = self._open[camera]
        bases = is_open.bases[episodes]
        if bases.all():
            self._used[camera][episodes] = self._tick
            self._copy(Runs(bases, rows, is_open.last[episodes]), out)
            return
        wanted = np.unique(episodes)
        self._build_missing(camera, wanted.tolist())
        for start in range(0, len(wanted), MAX_OPEN_SHARDS):
            group = wanted[start : start + MAX_OPEN_SHARDS]
            frames = [self._frames(camera, episode) for episode in group.tolist()]
            places = np.flatnonzero(np.isin(episodes, group))
            number = np.searchsorted(group, episodes[places])
            bases = np.array([_address(of_episode) for of_episode in frames])[number]
            last = np.array([len(of_episode) - 1 for of_episode in frames])[number]
            self._copy(Runs(bases, rows[places], last, 1, places), out)
        self._see_open()

    def _copy(self, runs: Runs, out: Images | Floats) -> None:
        frame_bytes = 3 * prod(self._size)
        gather(runs, frame_bytes, out, scaled=out.dtype == np.float32)
        self._resident_bytes += len(runs.bases) * frame_bytes
        self._release()

    def _build_missing(self, camera: str, episodes: Sequence[int]) -> None:
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

        with ThreadPoolExecutor(min(_builders(), len(missing)), thread_name_prefix="robocache-frames") as pool:
            deque(pool.map(build, missing), maxlen=0)

    def episode(self, camera: str, episode: int) -> Images:
        """All frames of an episode, [frame, 3, height, width], as they lie in the cache; decoded if need be.

        Args:
            camera: The feature.
            episode: Its place in the metadata's `episodes`.
        """
        is_new = (camera, episode) not in self._shards
        frames = self._frames(camera, episode)
        if is_new:
            self._see_open()
        return frames

    def _frames(self, camera: str, episode: int) -> Images:
        place = (camera, episode)
        found = self._shards.get(place)
        self._used[camera][episode] = self._tick
        if found is not None:
            return found[1]
        # A shard's checksums are compared when a process first opens it, not each time that it comes back.
        store = ShardStore(self._folder, self._limit_bytes, verify_arrays=place not in self._keys)
        key = self._keys.get(place) or self._key(camera, episode)
        shard = store.get_or_build(key, lambda: self._build(camera, episode))
        frames: Images = shard.arrays["frames"]
        self._keys[place] = key
        self._shards[place] = shard, frames
        self._resident_bytes += frames.nbytes  # its checksums were compared, or it was written
        while len(self._shards) > MAX_OPEN_SHARDS:
            oldest = min(
                (one for one in list(self._shards) if one != place), key=lambda one: self._used[one[0]][one[1]]
            )
            closed = self._shards.pop(oldest, None)
            if closed is not None:
                closed[0].close()
        return frames

    def _see_open(self) -> None:
        """Note which shards are open; of two threads at once the later one counts, and what it lacks is looked up."""
        count = len(self._meta.dataset.episodes)
        made = {
            camera: _Open(np.zeros(count, np.int64), np.zeros(count, np.int64), ()) for camera in self._meta.camera_keys
        }
        for (camera, episode), (_, frames) in list(self._shards.items()):
            bases, last, held = made[camera]
            bases[episode], last[episode] = _address(frames), len(frames) - 1
            made[camera] = _Open(bases, last, (*held, frames))
        self._open = made

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
        for _, frames in list(self._shards.values()):
            mapping = frames.base
            if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)
        self._resident_bytes = 0

    def _key(self, camera: str, episode: int) -> ShardKey:
        meta = self._meta
        entry = meta.dataset.episodes[episode]
        path, place = self._decoded.source(camera, episode)
        description: Mapping[str, Any] = {
            "frames": entry.length,
            "fps": meta.fps,
            "size": list(self._size),
            **place,
        }
        return shard_key([path], description, f"lerobot-{VERSION}")

    def _build(self, camera: str, episode: int) -> Contents:
        length = self._meta.dataset.episodes[episode].length
        step = max(1, PIECE_BYTES // (3 * prod(self._size)))

        def pieces() -> Iterator[Images]:
            for start in range(0, length, step):
                yield self._decoded.read(camera, episode, np.arange(start, min(start + step, length)))

        frames = Pieces(np.dtype(np.uint8), (length, 3, *self._size), pieces)
        return Contents({"frames": frames}, {"camera": camera, "episode": episode})


def _address(frames: Images) -> int:
    return int(frames.__array_interface__["data"][0])


def _builders() -> int:
    """How many episodes are decoded at once: a DataLoader's workers are side by side already."""
    if get_worker_info() is not None:
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, MAX_BUILDERS)
