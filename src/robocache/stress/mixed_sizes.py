"""Calls whose sizes differ by a thousand: what is freed in pieces must not add up to memory that nobody can use."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robocache import ops
from robocache.ops.voxelize_pointcloud import reference as voxel_reference
from robocache.stress.monitor import Monitor
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import QuietCollections, device_counters, host_counters
from robocache.stress.settings import Settings

ITERATIONS = 720
_KEPT = 24  # results that live on, so that what is freed lies between what is not
_LEAST_ROWS, _MOST_ROWS = 8, 8_192
_MOST_EDGE = 48
_READINGS = 128
_LOOKS = 50  # iterations from one comparison with the reference to the next
_SIZES = 64  # that come again and again: plans of calls are kept for the last 1024 shapes, which would be growth
_WARM_UP = 4 * _SIZES


def mixed_sizes(
    settings: Settings,
    lines: Lines = silent,
    *,
    iterations: int = ITERATIONS,
    heartbeat: Callable[[], object] = int,
    keep: Callable[[Tensor], object] = id,
) -> Report:
    """A resampling and a voxel grid an iteration, in sizes of three orders of magnitude; some live on for a while.

    The report's verdicts tell growth of the heap from fragmentation, which is growth of resident memory without it. A
    failure is a result that is not what the reference says.

    Args:
        settings: Device and seed.
        lines: Gets one line.
        iterations: How many.
        heartbeat: Called after each.
        keep: Gets each grid; a test makes it leak.
    """
    generator = np.random.default_rng(settings.seed)
    sizes = np.exp(generator.uniform(np.log(_LEAST_ROWS), np.log(_MOST_ROWS), _SIZES))
    edges = generator.integers(4, _MOST_EDGE, _SIZES)
    held: list[tuple[Tensor, Tensor] | None] = [None] * _KEPT
    monitor = Monitor((*host_counters(), *device_counters(settings.device)), readings=_READINGS, share=1.0)
    pause = max(1, (iterations - _WARM_UP) // _READINGS)
    wrong = 0
    started = time.monotonic()
    with QuietCollections():
        for iteration in range(iterations):
            place = iteration if iteration < _SIZES else int(generator.integers(_SIZES))
            rows, edge = int(sizes[place]), int(edges[place])
            resampled = _resampled(rows, settings.device)
            points = torch.from_numpy(generator.random((rows, 3), np.float32)).to(settings.device)
            grid = ops.voxelize_pointcloud(points, None, (0.0, 0.0, 0.0), 1.0 / edge, (edge,) * 3, "count")
            held[int(generator.integers(_KEPT))] = (resampled, grid)
            keep(grid)
            if iteration < _WARM_UP or iteration % _LOOKS == 0:  # the first few hundred keep a little
                wrong += _is_wrong(points, grid, edge)
            if iteration >= _WARM_UP and (iteration - _WARM_UP) % pause == 0:
                # What lives on differs from reading to reading by what its sizes are: let go first.
                held = [None] * _KEPT
                del resampled, grid, points
                monitor.read(iteration)
            heartbeat()
    lines(f"{iterations} calls of mixed sizes, {wrong} wrong results")
    return Report(
        "mixed-sizes",
        settings.device,
        iterations=iterations,
        seconds=time.monotonic() - started,
        failures=(f"{wrong} results are wrong",) if wrong else (),
        verdicts=monitor.verdicts(),
        measured={"readings": monitor.readings},
        series=monitor.series(),
    )


def _resampled(rows: int, device: str) -> Tensor:
    times = torch.arange(rows, dtype=torch.float64, device=device)[None]
    data = times.float()[..., None].expand(1, rows, 16).contiguous()
    return ops.resample_trajectories(data, times, times[:, ::2] + 0.25)


def _is_wrong(points: Tensor, grid: Tensor, edge: int) -> bool:
    cells = (edge,) * 3
    size = (1.0 / edge,) * 3
    expected = voxel_reference.voxelize_pointcloud(points, None, (0.0,) * 3, size, cells, "count", None, "drop")
    return not torch.equal(grid, expected)
