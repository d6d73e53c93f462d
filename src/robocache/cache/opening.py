"""`robocache.open` and `robocache.build`: recordings in, aligned episodes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import overload

from robocache.align import Align
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.build import Built, Progress
from robocache.cache.sizes import size_bytes
from robocache.cache.units import Recipe, Source, open_source
from robocache.errors import ArgumentError
from robocache.readers import Recording

CACHE_VARIABLE = "ROBOCACHE_CACHE"


@overload
def open_dataset(source: Source, spec: None = None, *, rate_hz: float | None = None) -> Recording: ...
@overload
def open_dataset(
    source: Source,
    spec: Align,
    *,
    cache: str | Path | None = None,
    cache_limit: str | int | None = None,
    rate_hz: float | None = None,
    workers: int | None = None,
) -> AlignedDataset: ...
def open_dataset(
    source: Source,
    spec: Align | None = None,
    *,
    cache: str | Path | None = None,
    cache_limit: str | int | None = None,
    rate_hz: float | None = None,
    workers: int | None = None,
) -> Recording | AlignedDataset:
    """Open recordings: as they are, or aligned, from a cache that is filled as episodes are asked for.

    Args:
        source: A path, a folder of recordings, a pattern ("runs/*.mcap") or a list of them, as for `open_recordings`;
            or a function without arguments that gives a `Recording`, for a reader of your own. Other processes import
            it by its name.
        spec: How to align. None: give the `Recording`, to be closed.
        cache: Folder of the cache. None: what `ROBOCACHE_CACHE` names, else `robocache` in the user's cache folder.
        cache_limit: What its shards may weigh, such as `"20GB"`. None: until the disk is full.
        rate_hz: As for `open_recording`: the rate of a recording that has no times.
        workers: How many processes `.build()` starts; 1: none. None: one for each processor.

    Raises:
        ArgumentError: An argument that cannot be right.
        RecordingError: The source cannot be read.
        CacheError: The cache cannot be used.

    Example:
        >>> dataset = robocache.open("run.mcap", robocache.Align(robocache.Rate(50)), cache="cache")
        >>> with dataset.open_episode(0) as episode:
        ...     episode.data["/imu/data.angular_velocity"].shape
        (200, 3)
    """
    if spec is None:
        return open_source(source, rate_hz)
    if not isinstance(spec, Align):
        raise ArgumentError(f"spec must be an Align, such as Align(Rate(50)), got {spec!r}")
    limit_bytes = None if cache_limit is None else size_bytes(cache_limit, "cache_limit")
    folder = default_cache() if cache is None else Path(cache)
    return AlignedDataset(Recipe(source, spec, rate_hz), folder, limit_bytes=limit_bytes, workers=workers)


def build(  # noqa: PLR0913
    source: Source,
    spec: Align,
    cache: str | Path | None = None,
    *,
    cache_limit: str | int | None = None,
    rate_hz: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Built:
    """Align every episode of a recording into a cache; `open` with the same arguments finds them there.

    Args:
        source: As for `open`.
        spec: As for `open`.
        cache: As for `open`.
        cache_limit: As for `open`.
        rate_hz: As for `open`.
        workers: As for `open`.
        progress: Called with a `BuildProgress` after each episode.

    Raises:
        BuildError: An episode cannot be built; names the recording and the episode.
        CacheFullError: There is no room.
    """
    dataset = open_dataset(source, spec, cache=cache, cache_limit=cache_limit, rate_hz=rate_hz, workers=workers)
    return dataset.build(progress=progress)


def default_cache() -> Path:
    """Where the cache lies if nobody says: `$ROBOCACHE_CACHE`, else `robocache` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robocache"
