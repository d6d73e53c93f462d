"""What only years would show: samples, steps and epochs beyond 2**31, at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from robocache.loader import Batch, Loader, SampleOrder
from robocache.stress.abandoned_loaders import small_dataset
from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings

PLACES = (2**31 - 2, 2**32 - 2, 2**38 - 2)  # steps: some before and some after the place
SAMPLES = 2**47
_STEPS, _BATCH, _RANKS = 4, 32, 3


def long_horizon(settings: Settings, lines: Lines = silent, *, heartbeat: Callable[[], object] = int) -> Report:
    """A sample order of 2**47 samples and a loader, put just before 2**31, 2**32 and 2**38, and let over it.

    A failure of the report is a step or epoch that differs from the one computed on its own, a sample beyond the data,
    one that comes twice, also as one of the first steps or epochs, a state that does not survive JSON, or ranks that
    share a sample.

    Args:
        settings: Device and seed.
        lines: Gets one line.
        heartbeat: Called after each place.
    """
    started = time.monotonic()
    failures: list[str] = []
    for place in PLACES:
        failures += _order_failures(place, settings.seed)
        heartbeat()
    failures += _loader_failures(settings)
    lines(f"{len(PLACES)} places beyond 2**31, {len(failures)} failures")
    return Report(
        "long-horizon",
        settings.device,
        iterations=_STEPS * (len(PLACES) + 1) * _RANKS,
        seconds=time.monotonic() - started,
        failures=tuple(failures),
    )


def _order_failures(place: int, seed: int) -> list[str]:
    orders = [
        SampleOrder(SAMPLES, batch_size=_BATCH, seed=seed, rank=rank, world_size=_RANKS) for rank in range(_RANKS)
    ]
    found, seen = [], []
    for rank, order in enumerate(orders):
        seen += [np.asarray(order.batch(step)) for step in range(_STEPS)]  # where a counter that wraps would be again
        order.load_state_dict(json.loads(json.dumps(order.state_dict(batches=place))))
        batches = iter(order)
        for step in range(place, place + _STEPS):
            batch = np.asarray(next(batches))
            alone = SampleOrder(SAMPLES, batch_size=_BATCH, seed=seed, rank=rank, world_size=_RANKS).batch(step)
            if not np.array_equal(batch, alone):
                found.append(f"rank {rank}, step {step}: walked to it is not computed alone")
            seen.append(batch)
        state = order.state_dict(batches=_STEPS)
        again = SampleOrder(SAMPLES, batch_size=_BATCH, seed=seed, rank=rank, world_size=_RANKS)
        again.load_state_dict(json.loads(json.dumps(state)))
        if not np.array_equal(np.asarray(next(iter(again))), order.batch(_STEPS)):
            found.append(f"rank {rank}: the state after step {place + _STEPS} leads somewhere else")
    samples = np.concatenate(seen)
    if samples.min() < 0 or samples.max() >= SAMPLES:
        found.append(f"step {place}: a sample is beyond the data: {samples.min()} to {samples.max()}")
    if len(np.unique(samples)) < len(samples):
        found.append(f"step {place}: a sample comes twice")
    return found


def _loader_failures(settings: Settings) -> list[str]:
    """Epochs beyond 2**31, whose steps in all are beyond 2**35."""
    found = []
    dataset = small_dataset(settings.seed)
    arguments = {"batch_size": 4, "window": 2, "device": settings.device, "memory": "64KB", "seed": settings.seed}
    with Loader(dataset, **arguments) as loader, Loader(dataset, **arguments) as other:  # type: ignore[arg-type]
        loader.set_epoch(2**31 - 1)
        first = _frames(loader)
        if loader.epoch != 2**31 - 1 or len(set(first)) != len(first):
            found.append(f"epoch 2**31 - 1 is {loader.epoch}, with {len(first) - len(set(first))} samples twice")
        second = _frames(loader)
        for wraps in (2**31, 2**32):
            other.set_epoch(0)
            first_of_all = _frames(other)
            other.set_epoch(wraps)
            if _frames(other) == first_of_all:
                found.append(f"epoch 2**{wraps.bit_length() - 1} has the order of epoch 0")
        if sorted(second) != sorted(first) or second == first:
            found.append("epoch 2**31 has not the samples of the one before it in another order")
        other.set_epoch(2**31)
        batches = iter(other)
        begun = [place for _ in range(_STEPS) for place in _places(next(batches))]
        state = json.loads(json.dumps(other.state_dict()))
        loader.load_state_dict(state)
        if begun + _frames(loader) != second:
            found.append("a state within epoch 2**31 leads somewhere else")
    return found


def _frames(loader: Loader) -> list[tuple[int, int]]:
    return [place for batch in loader for place in _places(batch)]


def _places(batch: Batch) -> list[tuple[int, int]]:
    episodes, frames = batch.episode.tolist(), batch.frame.tolist()
    return list(zip(episodes, frames, strict=True))
