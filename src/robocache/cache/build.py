"""Building ahead: every episode becomes a shard, in this process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from robocache.cache.build_pool import BuildPool
from robocache.cache.build_worker import Builder, Finished, Job
from robocache.cache.store import ShardStore
from robocache.cache.units import Unit, runs
from robocache.errors import ArgumentError


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is, told after each episode.

    Args:
        episode: The one just finished.
        was_built: Or found in the cache.
        episodes_done: How many are there now.
        episodes: How many there will be.
        bytes_done: Of their shards.
    """

    episode: str
    was_built: bool
    episodes_done: int
    episodes: int
    bytes_done: int


@dataclass(frozen=True)
class Built:
    """What a build did.

    Args:
        episodes: How many there are.
        built: How many of them were built; the others were there.
        frames: Of all.
        size_bytes: Of all shards.
        left: How many of the shards are there at the end. Fewer than `episodes` where the cache's limit is less than
            the data set: then those that are missing are built again when they are asked for.
    """

    episodes: int
    built: int
    frames: int
    size_bytes: int
    left: int


Progress = Callable[[BuildProgress], None]


def build_units(
    job: Job,
    units: Sequence[Unit],
    *,
    workers: int | None,
    progress: Progress | None,
    see: Callable[[Finished], None],
) -> Built:
    """See to it that every unit's shard is there; see `AlignedDataset.build`. `see` is told first of each result."""
    count = _worker_count(workers, len(units))
    finished: list[Finished] = []
    size_bytes = 0
    for result in _in_process(job, units) if count == 1 else _in_processes(job, units, count):
        see(result)
        finished.append(result)
        size_bytes += result.size_bytes
        if progress is not None:
            done = len(finished)
            progress(BuildProgress(result.unit.name, result.was_built, done, len(units), size_bytes))
    store = ShardStore(job.folder)
    built = sum(result.was_built for result in finished)
    frames = sum(result.frames for result in finished)
    left = sum(store.contains(unit.key) for unit in units)
    return Built(len(units), built, frames, size_bytes, left)


def _in_process(job: Job, units: Sequence[Unit]) -> Iterator[Finished]:
    builder = Builder(job)
    try:
        for unit in units:
            yield builder.build(unit)
    finally:
        builder.close()


def _in_processes(job: Job, units: Sequence[Unit], workers: int) -> Iterator[Finished]:
    done = False
    try:
        with BuildPool(job, workers) as pool:
            yield from pool.results(runs(units, workers))
        done = True
    finally:
        if not done:  # workers were ended in the middle of a shard
            ShardStore(job.folder, job.limit_bytes).gc()


def _worker_count(workers: int | None, units: int) -> int:
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if type(workers) is not int or workers < 1:
        raise ArgumentError(f"workers must be a whole number of 1 or more, or None, got {workers!r}")
    return max(1, min(workers, units))
