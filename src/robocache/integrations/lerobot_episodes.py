"""A LeRobot dataset as RoboCache's loader reads it: `robocache.cache.dataset.Dataset` over the packed columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.errors import ArgumentError
from robocache.integrations.lerobot_cached_frames import CachedFrames
from robocache.integrations.lerobot_columns import Columns
from robocache.integrations.lerobot_frames import FrameSource
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.integrations.lerobot_windows import Window
from robocache.records import Int64


class LeRobotEpisodes:
    """Columns as they are packed, and frames as they lie in the cache; nothing is copied.

    A feature whose deltas are the frame itself and those after it, without a gap, has that horizon. Texts are left out.

    Args:
        meta: Whose.
        columns: Its packed rows.
        places: Of the selected episodes, in the metadata's `episodes`.
        windows: Of `delta_timestamps`.
        frames: Where frames come from.

    Raises:
        ArgumentError: Frames that are not cached, or deltas that are no horizon.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        columns: Columns,
        places: Sequence[int],
        windows: Mapping[str, Window],
        frames: FrameSource,
    ) -> None:
        if meta.camera_keys and not isinstance(frames, CachedFrames):
            raise ArgumentError("the loader reads frames from a cache: give LeRobotDataset cache= and size=")
        self._meta, self._columns, self._places, self._frames = meta, columns, list(places), frames
        self._features = {name: self._feature(name, _horizon(name, windows)) for name in meta.features}
        self._features = {name: feature for name, feature in self._features.items() if name not in columns.texts}

    @property
    def features(self) -> Mapping[str, Feature]:
        """By name."""
        return self._features

    @property
    def lengths(self) -> Int64:
        """[episode] int64: frames of each."""
        return self._columns.ends - self._columns.starts

    @property
    def fingerprint(self) -> str:
        """A hash of the columns, the episodes' lengths, and the names of the shards with their frames."""
        found = hashlib.blake2b(digest_size=32)
        for name, values in self._columns.numbers.items():
            found.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            found.update(values.numpy().data)
        found.update(self.lengths.tobytes())
        for camera in self._meta.camera_keys:
            for place in self._places:
                if isinstance(self._frames, CachedFrames):
                    found.update(self._frames.key(camera, place).digest.encode())
        return found.hexdigest()

    @contextmanager
    def open_episode(self, index: int) -> Iterator[EpisodeArrays]:
        """One episode's arrays; its frames are decoded into the cache if they are not there.

        Args:
            index: 0 to `len(lengths) - 1`.
        """
        if not 0 <= index < len(self._places):
            raise ArgumentError(f"index must be 0 to {len(self._places) - 1}, got {index}")
        rows = slice(int(self._columns.starts[index]), int(self._columns.ends[index]))
        length = rows.stop - rows.start
        always, never_old, every = np.ones(length, bool), np.zeros(length, np.int64), np.arange(length)
        data = {
            name: self._columns.numbers[name][rows].numpy().reshape(length, *feature.shape)
            for name, feature in self._features.items()
            if feature.kind == "numbers"
        }
        for camera in self._meta.camera_keys:
            if isinstance(self._frames, CachedFrames):
                data[camera] = self._frames.episode(camera, self._places[index])
        yield EpisodeArrays(
            self._columns.times_ns[rows].numpy(),
            data,
            dict.fromkeys(self._features, always),
            dict.fromkeys(self._features, never_old),
            dict.fromkeys(self._meta.camera_keys, every),
        )

    def _feature(self, name: str, horizon: int) -> Feature:
        if name in self._meta.camera_keys:
            return Feature(name, "image", np.dtype(np.uint8), (3, *self._frames.size(name)), horizon)
        values = self._columns.numbers.get(name)
        if values is None:  # a text: not a feature of the loader
            return Feature(name, "numbers", np.dtype(np.uint8), (0,))
        known = self._meta.dataset.features.get(name)
        shape = tuple(values.shape[1:]) or (1,)
        return Feature(name, "numbers", values.numpy().dtype, shape, horizon, known.columns if known else ())


def _horizon(name: str, windows: Mapping[str, Window]) -> int:
    window = windows.get(name)
    if window is None:
        return 1
    offsets = window.offsets.tolist()
    if window.policy is not None or offsets != list(range(len(offsets))):
        message = f"delta_timestamps[{name!r}] is not the frame and those after it, which is what the loader can give"
        raise ArgumentError(f"{message}: for frames before, ask the loader for a window")
    return len(offsets)
