"""Large allocations over and over, and allocations that fail: afterwards everything is as before, and works."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import psutil
import torch
from torch import Tensor

from robocache import ops
from robocache.stress.monitor import Monitor
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import MEGABYTE, QuietCollections, device_counters, host_counters
from robocache.stress.settings import Settings

CYCLES = 1_000
OUT_OF_MEMORY_ROUNDS = 50
_WARM_UP = 50
_EDGES = {"cpu": (144, 152, 160), "cuda": (448, 480, 512)}  # voxels along each axis; int32, so up to 16 MB and 0.5 GB
_POINTS = 1_000
_HUGE_EDGE = 1_024  # 4.3 GB
_LEAST_ROOM_BYTES = 64_000_000  # PyTorch takes memory from the GPU in pieces of megabytes
_KEPT_BYTES = 10_000  # the interpreter's own small change; one lost grid would be 12 MB


@dataclass(frozen=True)
class OutOfMemory:
    """What came of allocations that could not succeed.

    Args:
        failed: How many raised PyTorch's out-of-memory error, as they must.
        succeeded: How many did not fail: the condition was not there.
        wrong: How many of the small results right after were wrong.
        kept_bytes: What the device, or the heap, holds more than before the first.
        kinds: The error types seen.
    """

    failed: int
    succeeded: int
    wrong: int
    kept_bytes: float
    kinds: tuple[str, ...]


def repeated_allocation(
    settings: Settings,
    lines: Lines = silent,
    *,
    cycles: int = CYCLES,
    out_of_memory_rounds: int = OUT_OF_MEMORY_ROUNDS,
    is_own_process: bool = False,
) -> Report:
    """`cycles` of a large grid made, verified and dropped; then allocations that really run out of memory.

    On a GPU the memory is limited by a fraction for this process; on the host by an address-space limit, in a child
    process, or in this one if it is there for nothing else (`is_own_process`). A failure of the report is: a wrong
    grid, a round that did not run out of memory, a wrong result right after one that did, bytes kept by it.
    """
    kind = torch.device(settings.device).type
    grids = [_Grid(edge, settings.device, settings.seed) for edge in _EDGES[kind]]
    monitor = Monitor((*host_counters(), *device_counters(settings.device)), readings=cycles)
    wrong, started = 0, time.monotonic()
    with QuietCollections():
        for cycle in range(cycles):
            wrong += not grids[cycle % len(grids)].is_right()
            if cycle >= min(_WARM_UP, cycles // 4) and cycle % 4 == 0:
                monitor.read(cycle)
    seconds = time.monotonic() - started
    outcome = _run_out_of_memory(settings, out_of_memory_rounds, is_own_process=is_own_process)
    largest_mb = max(grid.nbytes for grid in grids) / MEGABYTE
    lines(
        f"{cycles} cycles of up to {largest_mb:.0f} MB in {seconds:.1f} s, {wrong} wrong; "
        f"{outcome.failed} of {out_of_memory_rounds} allocations ran out of memory, {outcome.wrong} wrong after it"
    )
    failures = [f"{wrong} of {cycles} grids are wrong"] if wrong else []
    failures += _judge(outcome, out_of_memory_rounds)
    report = Report(
        "repeated-allocation",
        settings.device,
        iterations=cycles,
        seconds=seconds,
        failures=tuple(failures),
        verdicts=monitor.verdicts(),
        series=monitor.series(),
        measured={
            "out_of_memory": outcome.failed,
            "kept_bytes": outcome.kept_bytes,
            "error_types": ", ".join(outcome.kinds),
        },
    )
    for verdict in report.undecided:
        lines(verdict)
    return report


class _Grid:
    """A large grid of a few points, whose content is known."""

    def __init__(self, edge: int, device: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        voxels = torch.randint(edge, (_POINTS, 3), generator=generator)
        self._edge = edge
        self._points = (voxels + 0.5).to(torch.float32).to(device)
        flat = (voxels[:, 0] * edge + voxels[:, 1]) * edge + voxels[:, 2]
        self._occupied = torch.unique(flat).to(device)

    @property
    def nbytes(self) -> int:
        return 4 * self._edge**3

    def make(self) -> Tensor:
        return ops.voxelize_pointcloud(self._points, None, (0.0, 0.0, 0.0), 1.0, (self._edge,) * 3)

    def is_right(self) -> bool:
        """Make it; exactly the known voxels are 1 and all others 0."""
        grid = self.make().view(-1)
        is_there = bool((grid[self._occupied] == 1).all())
        return is_there and int(torch.count_nonzero(grid)) == len(self._occupied)


def _run_out_of_memory(settings: Settings, rounds: int, *, is_own_process: bool) -> OutOfMemory:
    if torch.device(settings.device).type == "cuda":
        with _gpu_limit(torch.device(settings.device)):
            return _fail_repeatedly(settings.device, settings.seed, rounds)
    if is_own_process:
        return _fail_under_address_limit(settings.seed, rounds)
    # In a child of its own: an address-space limit also hits whatever else this process does.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(_fail_under_address_limit, settings.seed, rounds).result()


@contextlib.contextmanager
def _gpu_limit(device: torch.device) -> Iterator[None]:
    """Room for what is held now, the grids of the cycles and twice as much to count in; not for a huge one."""
    if device.index is None:  # which PyTorch's limit, alone of all, does not take for the current one
        device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(device)[1]
    wanted = torch.cuda.memory_reserved(device) + max(20 * _EDGES["cuda"][-1] ** 3, _LEAST_ROOM_BYTES)
    torch.cuda.set_per_process_memory_fraction(min(1.0, wanted / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _fail_under_address_limit(seed: int, rounds: int) -> OutOfMemory:
    torch.set_num_threads(1)  # a thread that cannot get its stack ends the process
    before = resource.getrlimit(resource.RLIMIT_AS)
    _limit_address_space(before[1])
    with contextlib.suppress(RuntimeError, MemoryError):  # the first error maps what describes errors
        _Grid(_HUGE_EDGE, "cpu", seed).make()
    resource.setrlimit(resource.RLIMIT_AS, before)
    _limit_address_space(before[1])
    return _fail_repeatedly("cpu", seed, rounds)


def _limit_address_space(hard: int) -> None:
    """Room for the grids of the cycles, not for a huge one."""
    room = 12 * _EDGES["cpu"][-1] ** 3
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room, hard))


def _fail_repeatedly(device: str, seed: int, rounds: int) -> OutOfMemory:
    kind = torch.device(device).type
    huge, canary = _Grid(_HUGE_EDGE, device, seed), _Grid(_EDGES[kind][-1], device, seed)
    name = "gpu_allocated_bytes" if kind == "cuda" else "heap_bytes"
    (held,) = [counter for counter in (*host_counters(), *device_counters(device)) if counter.name == name]
    wrong = int(not canary.is_right())
    failed, kinds = 0, set()
    before = after = held.read()
    with QuietCollections():
        for round_number in range(rounds):
            try:
                huge.make()
            except (RuntimeError, MemoryError) as error:  # what PyTorch raises, by device and version
                if "memory" not in str(error):
                    raise
                failed += 1
                kinds.add(type(error).__name__)
            wrong += not canary.is_right()
            if round_number == 0:
                before = held.read()
        after = held.read()
    return OutOfMemory(failed, rounds - failed, wrong, after - before, tuple(sorted(kinds)))


def _judge(outcome: OutOfMemory, rounds: int) -> list[str]:
    failures = []
    if outcome.failed < rounds:
        failures.append(f"{outcome.succeeded} of {rounds} huge allocations succeeded: out of memory was not met")
    if outcome.wrong:
        failures.append(f"{outcome.wrong} results right after an out-of-memory error are wrong")
    if not outcome.kept_bytes <= _KEPT_BYTES:
        failures.append(f"{outcome.kept_bytes} bytes are kept after {rounds} out-of-memory errors")
    return failures
