"""Loaders started, used and abandoned, in every way that a program leaves one: nothing stays behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.errors import ClosedError
from robocache.loader import Loader
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import device_counters, host_counters, leaked_per_round
from robocache.stress.settings import Settings
from robocache.testing import MemoryDataset

ROUNDS = 24
_FRAMES, _EPISODES, _BATCH, _MEMORY = 40, 3, 4, "64KB"  # less than all episodes: batches are made ahead on a thread

# numpy's caches of small blocks fill for some hundred rounds, and buffers wait for their next use: the long run's own
# readings have time for these two.
_CACHED = {"heap_bytes", "python_blocks"}


def start_use_abandon(
    settings: Settings, lines: Lines = silent, *, rounds: int = ROUNDS, heartbeat: Callable[[], object] = int
) -> Report:
    """Each way of leaving a loader, `rounds` times.

    A failure of the report is a thread, file, tensor or byte that a round leaves behind.

    Args:
        settings: Device and seed.
        lines: Gets one line for each way.
        rounds: How often, at least 4.
        heartbeat: Called after each way.
    """
    started = time.monotonic()
    dataset = small_dataset(settings.seed)
    counters = [
        one for one in (*host_counters(), *device_counters(settings.device)) if one.is_exact and one.name not in _CACHED
    ]
    failures = []
    for name, leave in WAYS.items():
        leaked = leaked_per_round(partial(leave, dataset, settings.device), rounds=rounds, warm_up=6, counters=counters)
        failures += [f"a loader {name}: {counter} grows by {amount:g} a round" for counter, amount in leaked.items()]
        if dataset.open_count:
            failures.append(f"a loader {name}: {dataset.open_count} episodes are still open")
        lines(f"{rounds} loaders {name}: {', '.join(leaked) or 'nothing'} left behind")
        heartbeat()
    return Report(
        "start-use-abandon",
        settings.device,
        iterations=rounds * len(WAYS),
        seconds=time.monotonic() - started,
        failures=tuple(failures),
    )


def small_dataset(seed: int, *, episodes: int = _EPISODES, frames: int = _FRAMES) -> MemoryDataset:
    """Episodes with a state, an action ahead of it, and an image, all in memory.

    Args:
        seed: Of the values.
        episodes: How many.
        frames: Of each.
    """
    features = {
        "state": Feature("state", "numbers", np.dtype("float32"), (7,)),
        "action": Feature("action", "numbers", np.dtype("float32"), (7,), horizon=4),
        "camera": Feature("camera", "image", np.dtype("uint8"), (3, 16, 16)),
    }
    generator = np.random.default_rng(seed)

    def episode() -> EpisodeArrays:
        numbers = {name: generator.random((frames, 7), np.float32) for name in ("state", "action")}
        images = generator.integers(0, 256, (frames // 2, 3, 16, 16), np.uint8)
        return EpisodeArrays(
            np.arange(frames, dtype=np.int64) * 20_000_000,
            {**numbers, "camera": images},
            {name: np.ones(frames, np.bool_) for name in features},
            {name: np.zeros(frames, np.int64) for name in features},
            row={"camera": np.arange(frames, dtype=np.int64) // 2},
        )

    return MemoryDataset(features, [episode() for _ in range(episodes)])


def _loader(dataset: MemoryDataset, device: str) -> Loader:
    return Loader(dataset, batch_size=_BATCH, window=2, device=device, memory=_MEMORY)


def _never_used(dataset: MemoryDataset, device: str) -> None:
    _loader(dataset, device)


def _left_after_a_batch(dataset: MemoryDataset, device: str) -> None:
    for _ in _loader(dataset, device):
        break


def _left_with_a_batch_in_hand(dataset: MemoryDataset, device: str) -> None:
    loader = _loader(dataset, device)
    kept = next(iter(loader))
    loader.close()
    kept["state"].sum()


def _begun_twice(dataset: MemoryDataset, device: str) -> None:
    with _loader(dataset, device) as loader:
        first, second = iter(loader), iter(loader)
        next(second)
        with contextlib.suppress(ClosedError):  # the second ended it
            next(first)


def _failed_in_its_block(dataset: MemoryDataset, device: str) -> None:
    try:
        with _loader(dataset, device) as loader:
            next(iter(loader))
            raise InterruptedError  # noqa: TRY301  the training loop's own
    except InterruptedError:
        pass


WAYS: Mapping[str, Callable[[MemoryDataset, str], None]] = {
    "never used": _never_used,
    "left after a batch": _left_after_a_batch,
    "closed while a batch is in hand": _left_with_a_batch_in_hand,
    "begun twice": _begun_twice,
    "whose block failed": _failed_in_its_block,
}
