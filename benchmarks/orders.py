"""What the order of targets and points changes on a GPU: `python -m benchmarks.orders --out FILE`.

The cases of `robocache bench ops` are the hard way round: targets in random order, and points strewn at random, all of
them within the grid. Beside them stand targets that ascend, clouds of which most points lie outside, and clouds whose
neighbours lie side by side, as a sensor scans them. All in turn on one GPU, in CUDA graphs of 20 calls.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robocache.benchmarks import machine, results
from robocache.benchmarks.clock_problem import ClockProblem
from robocache.benchmarks.device_timing import DeviceTimer, Rounds
from robocache.ops import voxelize_pointcloud
from robocache.ops.fuse_multimodal.cases import SPEED_CASES as FUSES
from robocache.ops.resample_trajectories.cases import SPEED_CASES as RESAMPLES

REACH, VOXEL, CELLS = 6.4, 0.1, 128
SIZES = (500_000, 2_000_000, 10_000_000)
RING = 1024  # points of one turn of the sensor
RINGS = 64
Cloud = Callable[[int], Tensor]


def strewn(inside: float, count: int) -> Tensor:
    """[count, 3] at random, so much of it within the grid."""
    random = torch.Generator().manual_seed(0)
    points = (torch.rand(count, 3, generator=random) * 2 - 1) * REACH
    points[torch.rand(count, generator=random) >= inside] *= 400
    return points


def scanned(count: int) -> Tensor:
    """[count, 3] of a sensor that turns in a box of 12 m, and stands elsewhere after every scan; with 2 cm of noise."""
    random = torch.Generator().manual_seed(1)
    number = torch.arange(count)
    turn = ((number % RING).double() + 0.5) / RING * 2 * math.pi
    height = ((number // RING % RINGS).double() - (RINGS - 1) / 2) / RINGS * 0.8
    ray = torch.stack([turn.cos() * height.cos(), turn.sin() * height.cos(), height.sin()], dim=1)
    scan = number // (RING * RINGS)
    sensor = torch.rand(int(scan[-1]) + 1, 3, generator=random, dtype=torch.float64)[scan] * 4 - 2
    distance = torch.where(ray > 0, (6 - sensor) / ray, (-6 - sensor) / ray).min(dim=1).values
    noise = torch.randn(count, 3, generator=random, dtype=torch.float64) * 0.02
    return (sensor + ray * distance[:, None] + noise).float()


CLOUDS: dict[str, Cloud] = {
    "at random, all inside": partial(strewn, 1.0),
    "at random, a tenth inside": partial(strewn, 0.1),
    "as scanned": scanned,
}


def clouds(timer: DeviceTimer) -> list[dict[str, Any]]:
    """Device time of occupancy and count, for each kind of cloud and size."""
    rows = []
    for count in SIZES:
        for kind, make in CLOUDS.items():
            points = make(count).cuda()
            grid = ((-REACH,) * 3, VOXEL, (CELLS,) * 3)
            runs = {mode: partial(voxelize_pointcloud, points, None, *grid, mode) for mode in ("occupancy", "count")}
            for mode, run in runs.items():
                if not torch.equal(run(), voxelize_pointcloud(points, None, *grid, mode, backend="pytorch")):
                    raise SystemExit(f"{mode} of {count} points {kind} is wrong: not timed")
            times, _ = timer.measure(runs)
            row = {"points": count, "kind": kind, "occupied": int(runs["occupancy"]().sum())}
            rows.append(row | {f"{mode}_us": round(times[mode]["device_us"], 2) for mode in runs})
            print(rows[-1], flush=True)
    return rows


def targets(timer: DeviceTimer) -> list[dict[str, Any]]:
    """Device time with targets in random order, and with the same targets ascending."""
    rows = []
    for case in (*FUSES, *RESAMPLES):
        at_random = ClockProblem.of(case, "cuda")
        ascending = replace(at_random, targets=at_random.targets.sort(-1).values)
        problems = {"random": at_random, "ascending": ascending}
        for problem in problems.values():
            torch.testing.assert_close(problem.call("cuda")(), problem.call("pytorch")(), equal_nan=True)
        times, _ = timer.measure({order: problem.call("cuda") for order, problem in problems.items()})
        rows.append({"case": str(case)} | {f"{order}_us": round(times[order]["device_us"], 2) for order in problems})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=results.FOLDER / "orders_h200.json")
    given = parser.parse_args()
    timer = DeviceTimer(Rounds())
    found = {
        "what": "device time in CUDA graphs of 20 calls, warm L2, by the order of points and targets",
        "machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
        "versions": machine.versions(),
        **machine.commit(),
        "points": clouds(timer),
        "targets": targets(timer),
    }
    results.save(found, given.out)


if __name__ == "__main__":
    main()
