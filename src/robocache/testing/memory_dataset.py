"""A dataset in memory, for tests of what reads datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.errors import ArgumentError
from robocache.records import Int64


class MemoryDataset:
    """Episodes given as arrays, which may be memory-mapped; it counts who has them open.

    ```python
    feature = Feature("state", "numbers", np.dtype("float32"), (7,))
    episode = EpisodeArrays(times_ns, {"state": values}, {"state": valid}, {"state": age_ns})
    dataset = MemoryDataset({"state": feature}, [episode])
    ```

    Args:
        features: By name.
        episodes: All of them, each with the arrays that its features ask for.
        fingerprint: None: computed from the features and every byte of the episodes.
        fails_at: An episode whose opening raises `OSError`, to see what becomes of it.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        episodes: Sequence[EpisodeArrays],
        *,
        fingerprint: str | None = None,
        fails_at: int | None = None,
    ) -> None:
        if any(name != feature.name for name, feature in features.items()):
            raise ArgumentError(f"features must be keyed by their names, got {features!r}")
        self._features = dict(features)
        self._episodes = list(episodes)
        self._fingerprint = fingerprint
        self.fails_at = fails_at
        self.open_count = 0
        self.most_open = 0

    @property
    def features(self) -> Mapping[str, Feature]:
        """By name; the same for all episodes."""
        return self._features

    @property
    def lengths(self) -> Int64:
        """[episode] int64: frames of each."""
        return np.array([len(episode.times_ns) for episode in self._episodes], np.int64)

    @property
    def fingerprint(self) -> str:
        """Of the content, in its order."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(sorted(self._features.items())).encode())
            for episode in self._episodes:
                for part in (episode.data, episode.valid, episode.age_ns, episode.row, episode.offsets):
                    for name, array in sorted(part.items()):
                        digest.update(f"{name} {array.dtype} {array.shape}".encode())
                        digest.update(np.ascontiguousarray(array).tobytes())
                digest.update(episode.times_ns.tobytes())
            self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint

    def open_episode(self, index: int) -> AbstractContextManager[EpisodeArrays]:
        """One episode's arrays.

        Args:
            index: 0 to `len(lengths) - 1`.
        """
        if index == self.fails_at:
            raise OSError(f"episode {index} fails on purpose")
        return _Opened(self, self._episodes[index])


class _Opened(AbstractContextManager[EpisodeArrays]):
    """An open episode; one that is only forgotten, and not closed, stays counted."""

    def __init__(self, dataset: MemoryDataset, episode: EpisodeArrays) -> None:
        self._dataset = dataset
        self._episode = episode

    def __enter__(self) -> EpisodeArrays:
        self._dataset.open_count += 1
        self._dataset.most_open = max(self._dataset.most_open, self._dataset.open_count)
        return self._episode

    def __exit__(self, *_: object) -> None:
        self._dataset.open_count -= 1
