"""The data engine: batches that are wrong, caches that are believed too easily, counters too narrow for years."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from robocache.cache import store
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.folder import CacheFolder
from robocache.cache.shard import Shard
from robocache.cache.store import ShardStore
from robocache.loader import Loader, SampleOrder
from robocache.loader.running import Running
from robocache.testing.faults.catalogue import ON_A_CPU, fault, wrapped

_SKIPPED = 64  # samples
_LOST_AT = 3
_DIGITS = 16


@fault(
    "mapped_shard_kept",
    "an episode that is opened stays mapped when it is closed",
    scenario="loader-burn-in",
    reason="FAIL open_files",
)
def mapped_shard_kept(_: str) -> Iterator[None]:
    """The mapping has a descriptor of its own."""
    kept: list[Shard] = []
    with wrapped(Shard, "close", lambda _, shard: kept.append(shard)):
        yield
    for shard in kept:
        shard.close()


@fault(
    "lost_batch",
    "every epoch of a loader lacks a batch",
    scenario="loader-burn-in",
    reason=r"epoch \d+: \d+ samples were lost",
)
def lost_batch(_: str) -> Iterator[None]:
    """The fourth."""

    def around(take: Callable[..., Any], running: Running) -> Any:  # noqa: ANN401
        batch = take(running)
        return take(running) if running.progress.batches == _LOST_AT + 1 else batch

    with wrapped(Running, "__next__", around):
        yield


@fault(
    "samples_swapped_in_a_batch",
    "a batch holds the values of its own samples in another order",
    scenario="loader-burn-in",
    reason="is not what the episode holds",
)
def samples_swapped_in_a_batch(_: str) -> Iterator[None]:
    """Each sample has its neighbour's values."""

    def around(take: Callable[..., Any], running: Running) -> Any:  # noqa: ANN401
        batch = take(running)
        return dataclasses.replace(batch, data={name: each.roll(1, dims=0) for name, each in batch.data.items()})

    with wrapped(Running, "__next__", around):
        yield


@fault(
    "wrong_value_cached",
    "the first shard that is written holds a value that its recording does not",
    scenario="loader-burn-in",
    reason="in cached episode 0 is not what its files hold",
)
def wrong_value_cached(_: str) -> Iterator[None]:
    """With the right checksum."""
    shards = itertools.count()

    def around(write: Callable[..., Any], folder: CacheFolder, digest: str, contents: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if next(shards) == 0:
            arrays = dict(contents.arrays)
            name = next(name for name, array in arrays.items() if array.dtype.kind == "f" and array.size)
            arrays[name] = arrays[name].copy()
            arrays[name].flat[0] += 1
            contents = dataclasses.replace(contents, arrays=arrays)
        return write(folder, digest, contents, **kwargs)

    with wrapped(store, "write_shard", around):
        yield


@fault(
    "resumed_at_the_wrong_sample",
    "a loader goes on a batch behind the place that its state says",
    scenario="kill-and-resume",
    reason=r"\d+ steps are not the \d+ of an undisturbed epoch",
    devices=ON_A_CPU,
)
def resumed_at_the_wrong_sample(_: str) -> Iterator[None]:
    """What the killed process had read ahead is taken for delivered."""

    def around(load: Callable[..., Any], loader: Loader, state: Mapping[str, Any]) -> None:
        order = dict(state["order"])
        load(loader, {**state, "order": order | {"consumed": order["consumed"] + _SKIPPED}})

    with wrapped(Loader, "load_state_dict", around):
        yield


@fault(
    "torn_shard_accepted",
    "a shard of which half was written is believed",
    scenario="kill-and-resume",
    reason="shard .* differs from that of an undisturbed build",
    devices=ON_A_CPU,
)
def torn_shard_accepted(_: str) -> Iterator[None]:
    """A power failure may leave the length and lose the bytes; nobody compares their checksums."""

    def tear(folder: CacheFolder) -> None:
        path = min(folder.shards.glob("*"))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))

    with _before_the_first_build(tear), wrapped(store, "check_arrays", lambda *_: None):
        yield


@fault(
    "leftover_not_swept",
    "what a killed builder was writing stays in the cache",
    scenario="kill-and-resume",
    reason=r"\S+ was left half-written",
    devices=ON_A_CPU,
)
def leftover_not_swept(_: str) -> Iterator[None]:
    """Half a shard under its temporary name."""

    def leave(folder: CacheFolder) -> None:
        (folder.partial / f"{'0' * 2 * _DIGITS}.{'0' * _DIGITS}").write_bytes(b"half")

    with _before_the_first_build(leave), wrapped(CacheFolder, "sweep", lambda *_: 0):
        yield


@fault(
    "build_begins_anew",
    "a build does not see the shards that a killed one has finished",
    scenario="kill-and-resume",
    reason=r"\d+ of \d+ shards were built again, although \d+ were there",
    devices=ON_A_CPU,
)
def build_begins_anew(_: str) -> Iterator[None]:
    """Right in the end, hours later."""
    with wrapped(ShardStore, "_open", lambda *_: None):
        yield


@fault(
    "places_wrap_at_32_bits",
    "the sampler counts the places of an epoch in 32 bits",
    scenario="long-horizon",
    reason="a sample comes twice",
)
def places_wrap_at_32_bits(_: str) -> Iterator[None]:
    """The epoch begins anew in its middle, without a word."""

    def around(look_up: Callable[..., Any], order: SampleOrder, places: Any, *, epoch: int | None = None) -> Any:  # noqa: ANN401
        return look_up(order, np.asarray(places) % 2**32, epoch=epoch)

    with wrapped(SampleOrder, "samples_at", around):
        yield


@fault(
    "epochs_wrap_at_32_bits",
    "the sampler keys the order of an epoch with 32 bits of its number",
    scenario="long-horizon",
    reason=r"epoch 2\*\*32 has the order of epoch 0",
)
def epochs_wrap_at_32_bits(_: str) -> Iterator[None]:
    """Epochs repeat."""

    def around(look_up: Callable[..., Any], order: SampleOrder, places: Any, *, epoch: int | None = None) -> Any:  # noqa: ANN401
        return look_up(order, places, epoch=(order.epoch if epoch is None else epoch) % 2**32)

    with wrapped(SampleOrder, "samples_at", around):
        yield


def _before_the_first_build(action: Callable[[CacheFolder], object]) -> contextlib.AbstractContextManager[None]:
    builds = itertools.count()

    def around(build: Callable[..., Any], dataset: AlignedDataset, **kwargs: Any) -> Any:  # noqa: ANN401
        if next(builds) == 0:
            action(dataset._folder)  # noqa: SLF001  a fault may look inside
        return build(dataset, **kwargs)

    return wrapped(AlignedDataset, "build", around)
