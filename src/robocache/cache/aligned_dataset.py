"""A recording's episodes on one clock, from a cache that is filled as they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from robocache.cache.aligned import described_features, episode_arrays, feature_document
from robocache.cache.build import Built, Progress, build_units
from robocache.cache.build_worker import Builder, Finished, Job
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.cache.folder import CacheFolder
from robocache.cache.key import remember, remembered
from robocache.cache.layout import canonical_json
from robocache.cache.manifest import Manifest, read_manifest, write_manifest
from robocache.cache.shard import Shard
from robocache.cache.store import ShardStore
from robocache.cache.units import Recipe, Unit
from robocache.errors import ArgumentError, BuildError
from robocache.records import Int64


class AlignedDataset:
    """Aligned episodes as a loader reads them; made by `robocache.open`.

    An episode becomes a shard of the cache when it is first asked for, or ahead with `build`. It holds no file, thread
    or lock while no episode is open, and may be pickled, sent to other processes and used after a fork.

    Args:
        recipe: What is read, and how it is aligned.
        folder: Of the cache.
        limit_bytes: As for `ShardStore`.
        workers: How many processes `build` starts; None: one for each processor.

    Raises:
        RecordingError: The source cannot be read.
        CacheError: The folder cannot be used.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, limit_bytes: int | None = None, workers: int | None = None
    ) -> None:
        self._job = Job(recipe, folder, limit_bytes)
        self._workers = workers
        self._checked_store = ShardStore(folder, limit_bytes)
        self._quick_store = ShardStore(folder, limit_bytes, verify_arrays=False)
        self._folder = CacheFolder(folder, create=True)
        self._verified: dict[str, int] = {}  # inode of each shard whose checksums this object has compared
        with recipe.open() as recording:
            self._source = recording.path
            text = canonical_json(recipe.document() | {"source": self._source}, "spec")
            self._name = hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()
            known = read_manifest(self._folder, self._name)
            remember(() if known is None else known.files)
            self._units = recipe.units(recording)
        self._frames = {} if known is None else dict(known.frames)
        documents = None if known is None else known.features
        self._features = None if documents is None else described_features(self._folder.manifests, documents)
        if known is None or [digest for _, digest in known.episodes] != [unit.key.digest for unit in self._units]:
            self._remember()

    @property
    def episode_names(self) -> tuple[str, ...]:
        """One name an episode, as in the recording."""
        return tuple(unit.name for unit in self._units)

    @property
    def features(self) -> Mapping[str, Feature]:
        """By name; the same for all episodes. The first time, it may have to build the first episode."""
        if self._features is None:
            with self._shard(self._units[0]):
                self._remember()
        assert self._features is not None  # whoever opens a shard sees to it
        return self._features

    @property
    def lengths(self) -> Int64:
        """[episode] int64: frames of each. The first time, it reads the stamps of episodes that were never built."""
        missing = [unit for unit in self._units if unit.key.digest not in self._frames]
        if missing:
            with self._job.recipe.open() as recording:
                for unit in missing:
                    self._frames[unit.key.digest] = self._job.recipe.frames(recording, unit)
            self._remember()
        return np.array([self._frames[unit.key.digest] for unit in self._units], np.int64)

    @property
    def fingerprint(self) -> str:
        """Changes with the content, the alignment and the order of the episodes."""
        text = "\n".join(unit.key.digest for unit in self._units)
        return hashlib.blake2b(text.encode("ascii"), digest_size=32).hexdigest()

    @contextmanager
    def open_episode(self, index: int) -> Iterator[EpisodeArrays]:
        """One episode's arrays, mapped from the cache, which nobody evicts while the context lasts.

        A shard that is not there, or is damaged, is built first. Its checksums are compared the first time.

        Args:
            index: 0 to `len(lengths) - 1`.

        Raises:
            ArgumentError: There is no such episode.
            BuildError: It cannot be built, or holds other features than the rest.
            CacheError: The shard cannot be written.
        """
        if not 0 <= index < len(self._units):
            raise ArgumentError(f"index must be 0 to {len(self._units) - 1} for {self._source}, got {index}")
        with self._shard(self._units[index]) as shard:
            yield episode_arrays(shard.arrays, self.features)

    def build(self, *, workers: int | None = None, progress: Progress | None = None) -> Built:
        """Build every episode that the cache does not hold.

        It may be stopped at any time, also by SIGKILL: finished shards stay, and the next build goes on from there.
        Several may run at once; each shard is built by one of them, with the same bytes whoever does it.

        Args:
            workers: How many processes; 1: this one. None: as the data set was opened.
            progress: Called after each episode.

        Raises:
            BuildError: An episode cannot be built; names the recording and the episode.
            CacheFullError: There is no room.
        """
        count = self._workers if workers is None else workers

        def see(result: Finished) -> None:
            self._see(result.unit, result.frames, described_features(self._folder.shards, result.features))

        try:
            return build_units(self._job, self._units, workers=count, progress=progress, see=see)
        finally:
            self._remember()

    @contextmanager
    def _shard(self, unit: Unit) -> Iterator[Shard]:
        digest = unit.key.digest
        builder = Builder(self._job)
        path = self._folder.shard_path(digest)
        is_known = digest in self._verified and _inode(path) == self._verified[digest]
        store = self._quick_store if is_known else self._checked_store
        try:
            shard = store.get_or_build(unit.key, lambda: builder.contents(unit))
        finally:
            builder.close()
        with shard:
            self._verified[digest] = _inode(shard.path)
            features = described_features(shard.path, shard.description.get("features", ()))
            self._see(unit, len(shard.arrays["times_ns"]), features)
            yield shard

    def _see(self, unit: Unit, frames: int, features: dict[str, Feature]) -> None:
        self._frames[unit.key.digest] = frames
        if self._features is None:
            self._features = features
            return
        expected, found = _shapes(self._features.values()), _shapes(features.values())
        if expected != found:
            where = f"{self._source}, {unit.name}"
            different = next(iter(sorted(set(expected.items()) ^ set(found.items()))))[0]
            message = f"{different} is {found.get(different, 'absent')}, and {expected.get(different, 'absent')}"
            remedy = "name the streams that all have, and a Resize for images of several sizes"
            raise BuildError(f"{where}: its features are not those of the other episodes: {message} there; {remedy}")

    def _remember(self) -> None:
        features = None if self._features is None else [feature_document(one) for one in self._features.values()]
        episodes = [(unit.name, unit.key.digest) for unit in self._units]
        known = {digest for _, digest in episodes}
        frames = {digest: count for digest, count in self._frames.items() if digest in known}
        files = remembered({file for unit in self._units for file in unit.files})
        write_manifest(self._folder, self._name, Manifest(self._source, episodes, frames, features, files))


def _shapes(features: Collection[Feature]) -> dict[str, str]:
    return {one.name: f"{one.kind} {one.dtype}{list(one.shape)}" for one in features}


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:  # evicted meanwhile
        return -1
