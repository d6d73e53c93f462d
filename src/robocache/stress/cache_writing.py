"""Shards written, mapped, compared and removed: nothing is left half-written, also when the disk is full."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from robocache.cache import ShardStore, shard_key
from robocache.errors import CacheError
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import leaked_per_round
from robocache.stress.settings import Settings

SHARDS = 12
_VALUES = 50_000


def cache_writing(settings: Settings, lines: Lines = silent, *, shards: int = SHARDS) -> Report:
    """Write `shards` into a folder of its own and compare each with what was given.

    A failure of the report is a shard that could not be written, one that holds something else, a partial file left
    behind, or anything that grows with each shard that is opened.
    """
    started = time.monotonic()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="robocache-stress-") as folder:
        store = ShardStore(Path(folder) / "cache")
        for number in range(shards):
            failures += _write(store, settings.seed, number)
        left = [path.name for path in (store.folder / "partial").glob("*")]
        failures += [f"{name} was left half-written" for name in left]
        if not failures:
            leaked = leaked_per_round(lambda: _write(store, settings.seed, 0), rounds=20, warm_up=4)
            failures += [f"{name} grows by {amount:g} with each shard opened" for name, amount in leaked.items()]
    lines(f"{shards} shards, {len(failures)} failures")
    return Report(
        "cache-writing", "cpu", iterations=shards, seconds=time.monotonic() - started, failures=tuple(failures)
    )


def _write(store: ShardStore, seed: int, number: int) -> list[str]:
    values = np.random.default_rng((seed, number)).random(_VALUES)
    try:
        with store.get_or_build(shard_key([], {"shard": number}, 1), lambda: {"values": values}) as shard:
            is_same = bool((shard.arrays["values"] == values).all())
    except CacheError as error:
        return [f"shard {number} was not written: {type(error).__name__}: {error}"]
    return [] if is_same else [f"shard {number} holds something else than what was given"]
