"""What a process holds, counted exactly: bytes, objects, files, threads.

Resident memory wanders by many megabytes without a leak; live heap bytes stay the same to the byte. So a leak is
looked for in exact counters; resident and driver memory are watched too, against budgets.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from robocache.errors import ArgumentError
from robocache.stress.driver_memory import driver_memory
from robocache.stress.process_counts import (
    Mappings,
    child_processes,
    heap_bytes,
    heap_free_bytes,
    shared_memory_files,
)

MEGABYTE = 1e6
_WANDERING = 32 * MEGABYTE  # resident memory of a clean run with changing shapes wanders by 18 MB
_PARTS = 4
# Small change of the interpreter itself: counted as a leak only if it grew in every part, and by more than this.
_LEAST_PER_ROUND = {"heap_bytes": 4.0, "python_blocks": 0.25}


@dataclass(frozen=True)
class Counter:
    """One thing that can be counted.

    Args:
        name: What is counted; ends in `_bytes` where those are bytes.
        read: The count now; NaN where it cannot be read here.
        budget_per_day: What may be gained in 24 hours, at a steady rate, before it is a leak.
        noise: By how much it may wander over a run without meaning anything.
        is_exact: It comes back to the same value, give or take what the interpreter keeps for itself.
        scope: Whose count it is, for the report, where that is not plain.
        doubt: Asked after a run: why no verdict can be based on the readings. Empty: nothing speaks against it.
    """

    name: str
    read: Callable[[], float]
    budget_per_day: float
    noise: float = 0.0
    is_exact: bool = True
    scope: Callable[[], str] = str
    doubt: Callable[[], str] = str

    @property
    def is_bytes(self) -> bool:
        """Bytes, and not pieces."""
        return self.name.endswith("_bytes")


def host_counters(*, maps_every: int = 1) -> tuple[Counter, ...]:
    """Of this process: heap, Python objects, tensors, threads, files, children, mappings, all its memory.

    Args:
        maps_every: Count mappings and shared memory at every so many readings only. They are half the cost of a
            reading; a leak of them shows a few readings later.
    """
    process = psutil.Process()
    maps = Mappings(every=maps_every)
    return (
        Counter("heap_bytes", heap_bytes, 500 * MEGABYTE, noise=20_000),
        Counter("python_blocks", lambda: float(sys.getallocatedblocks()), 5_000_000, noise=100),
        Counter("tensors", _tensors, 24),
        Counter("threads", lambda: float(threading.active_count()), 24),
        Counter("open_files", lambda: float(process.num_fds()), 24),
        Counter("child_processes", child_processes, 24),
        Counter("mappings", maps.count, 1_000, noise=100, is_exact=False),  # the allocator maps large blocks one by one
        Counter("shared_memory_bytes", maps.shared_bytes, 100 * MEGABYTE),
        Counter(
            "shared_memory_files",
            shared_memory_files,
            1_000,
            noise=16,
            is_exact=False,
            scope=lambda: "of all processes of this user",
        ),
        Counter("heap_free_bytes", heap_free_bytes, 500 * MEGABYTE, _WANDERING, is_exact=False),
        Counter("resident_bytes", lambda: float(process.memory_info().rss), 500 * MEGABYTE, _WANDERING, is_exact=False),
    )


def device_counters(device: torch.device | str) -> tuple[Counter, ...]:
    """Of a CUDA device: what PyTorch has allocated there and pinned here, what the driver has given away.

    The driver's count, of this process where NVML tells and of the whole device elsewhere, includes memory that PyTorch
    does not know; hence it is not exact. Empty for a device that is not CUDA.
    """
    where = torch.device(device)
    if where.type != "cuda":
        return ()
    driver = driver_memory(where)
    return (
        Counter("gpu_allocated_bytes", _cuda_statistic(where, "allocated_bytes.all.current"), 100 * MEGABYTE),
        Counter("gpu_active_bytes", _cuda_statistic(where, "active_bytes.all.current"), 100 * MEGABYTE),
        Counter("gpu_reserved_bytes", _cuda_statistic(where, "reserved_bytes.all.current"), 100 * MEGABYTE),
        Counter("pinned_bytes", _pinned_bytes, 100 * MEGABYTE),
        Counter(
            "driver_bytes",
            driver.read,
            100 * MEGABYTE,
            _WANDERING,
            is_exact=False,
            scope=driver.scope,
            doubt=driver.doubt,
        ),
    )


def read(counters: Sequence[Counter]) -> tuple[float, ...]:
    """All counts now, after a garbage collection, in the order of `counters`."""
    gc.collect()
    return tuple([counter.read() for counter in counters])


def leaked_per_round(
    one_round: Callable[[], object],
    *,
    rounds: int,
    warm_up: int,
    counters: Sequence[Counter] | None = None,
) -> dict[str, float]:
    """Run `one_round` many times; return what grew, per round. Empty means nothing leaked.

    Caches fill during `warm_up`; whatever still grows after it would grow for ever. Threads, files, tensors and device
    memory may not grow at all; heap bytes and Python objects, which the interpreter uses for itself too, are measured
    in four parts and have leaked if they grew in each of them, and do so again in twice as many rounds: threads of a
    pool that are still ending on a busy machine look like growth, but not twice.

    Args:
        one_round: What to try. It must leave nothing behind.
        rounds: How often, at least 4.
        warm_up: How often before the first measurement.
        counters: What to count; None: the exact counters of the host and, if PyTorch uses one, of the current GPU.

    Raises:
        ArgumentError: Fewer than 4 rounds.
        RuntimeError: A counter cannot be read here, so nothing can be said about it.
    """
    if rounds < _PARTS:
        raise ArgumentError(f"rounds must be {_PARTS} or more to tell a leak from a late cache, got {rounds}")
    chosen = _exact_counters() if counters is None else tuple(counters)
    with QuietCollections():
        for _ in range(warm_up):
            one_round()
        leaked = _grown(one_round, rounds, chosen)
        doubtful = [counter for counter in chosen if counter.name in leaked.keys() & _LEAST_PER_ROUND.keys()]
        if doubtful:
            again = _grown(one_round, 2 * rounds, doubtful)
            leaked = {name: leaked[name] for name in leaked if name not in _LEAST_PER_ROUND or name in again}
    return leaked


def _grown(one_round: Callable[[], object], rounds: int, chosen: Sequence[Counter]) -> dict[str, float]:
    readings = np.zeros((_PARTS + 1, len(chosen)))  # made before, so that keeping them is no growth
    for _ in range(_PARTS):  # reading fills caches of its own
        readings[0] = read(chosen)
    bounds = [rounds * part // _PARTS for part in range(_PARTS + 1)]
    for part, (start, end) in enumerate(itertools.pairwise(bounds)):
        for _ in range(start, end):
            one_round()
        readings[part + 1] = read(chosen)
    leaked = {}
    for counter, counts in zip(chosen, readings.T, strict=True):
        if np.isnan(counts).any():
            raise RuntimeError(f"{counter.name} cannot be read on this machine, so a leak of it cannot be excluded")
        per_round = float(counts[-1] - counts[0]) / rounds
        least = _LEAST_PER_ROUND.get(counter.name)
        if per_round > 0 and (least is None or ((np.diff(counts) > 0).all() and per_round >= least)):
            leaked[counter.name] = per_round
    return leaked


class QuietCollections:
    """Make `gc.collect()` cheap within a `with` block: what lives at its start is not looked at again.

    A collection then costs microseconds instead of a tenth of a second, so that it can precede every measurement.
    Blocks may lie within each other; the outermost freezes and thaws. What was frozen before it is thawed too: there is
    no way to tell it apart, and a block that therefore did nothing would make every measurement slow without a word.
    """

    _depth = 0

    def __enter__(self) -> QuietCollections:
        gc.collect()
        if QuietCollections._depth == 0:
            gc.freeze()
        QuietCollections._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        QuietCollections._depth -= 1
        if QuietCollections._depth == 0:
            gc.unfreeze()


def _exact_counters() -> tuple[Counter, ...]:
    counters = host_counters()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        counters += device_counters(torch.device("cuda", torch.cuda.current_device()))
    return tuple(counter for counter in counters if counter.is_exact)


def _tensors() -> float:
    # By type, never by isinstance: that may run code of whatever object comes along.
    return float(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))


def _cuda_statistic(device: torch.device, name: str) -> Callable[[], float]:
    def statistic() -> float:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # What another stream used counts until that is done, and PyTorch looks when it allocates, be it in vain.
            torch.cuda.synchronize(device)
            with contextlib.suppress(torch.OutOfMemoryError):
                torch.empty(1, device=device)
        return _statistic(torch.cuda.memory_stats(device), name)

    return statistic


def _pinned_bytes() -> float:
    statistics = getattr(torch.cuda, "host_memory_stats", None)  # PyTorch before 2.7 does not count them
    return math.nan if statistics is None else _statistic(statistics(), "allocated_bytes.current")


def _statistic(statistics: Mapping[str, int], name: str) -> float:
    """Empty statistics are those of an allocator not used yet; one that lacks the name has another version's names."""
    return float(statistics.get(name, math.nan)) if statistics else 0.0
