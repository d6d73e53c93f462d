"""What a call costs the host: `python -m benchmarks.launch --out FILE`; needs a GPU.

Rounds with the C of `_native/python/quick.c` and with the Python that stands in for it, in turn in one process, each
with plans of its own. Beside them PyTorch's own cheapest calls on the same machine: `torch.empty`, which no call that
allocates can be below, and the sum of two tensors, a launch of one kernel, with a new result and with `out=`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import robocache as rc
from robocache.benchmarks import machine, results
from robocache.ops import direct_launch, fuse_multimodal, recent_calls, resample_trajectories, voxelize_pointcloud

ROUNDS, CALLS, SYNCED_CALLS, WARM_UP = 15, 200, 50, 30
BOX = ((0.0, 0.0, 0.0), 0.05, (20, 20, 20))
QUICK, IN_C = direct_launch.QUICK, recent_calls.recall
SYNCED = "fuse_multimodal, and the wait for it"
Calls = dict[str, Callable[[], object]]


def data(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").bfloat16()


def times(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, device="cuda").sort(-1).values


SIZES = ((30, 512), (100, 64), (200, 12))


def calls() -> Calls:
    """With plans made now, in the way that is chosen now."""
    for function in (fuse_multimodal, resample_trajectories, voxelize_pointcloud):
        function.__globals__["_PLANS"].clear()
    parts = [(data(4, source, width), times(4, source)) for source, width in SIZES]
    flat, targets = [tensor for part in parts for tensor in part], times(4, 50)
    streams = {str(at): rc.Stream(*part) for at, part in enumerate(parts)}
    one = (data(4, 50, 32), times(4, 50), times(4, 25))
    points, out = torch.rand(1000, 3, device="cuda"), torch.zeros(BOX[2], dtype=torch.int32, device="cuda")
    summed, total = data(4, 50, 588), data(4, 50, 588)
    how: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cuda"}
    return {
        "fuse_multimodal": lambda: fuse_multimodal(*flat, targets),
        "fuse_streams": lambda: rc.fuse_streams(streams, targets),
        "resample_trajectories": lambda: resample_trajectories(*one),
        "voxelize_pointcloud, occupancy": lambda: voxelize_pointcloud(points, None, *BOX, "occupancy"),
        "the same with out=": lambda: voxelize_pointcloud(points, None, *BOX, "occupancy", out=out),
        "FusionPlan": rc.FusionPlan(streams, targets),
        "FusionPlan with a graph": rc.FusionPlan(streams, targets, graph=True),
        "for comparison torch.empty": lambda: torch.empty((4, 50, 588), **how),
        "for comparison torch.add": lambda: torch.add(summed, summed),
        "for comparison torch.add with out=": lambda: torch.add(summed, summed, out=total),
    }


def choose(way: str) -> None:
    """C, or the Python in its place."""
    direct_launch.QUICK = QUICK if way == "C" else None
    recent_calls.recall = IN_C if way == "C" else recent_calls.recall_in_python


def one_round(found: Calls) -> dict[str, float]:
    """Microseconds a call."""
    took = {}
    for name, call in found.items():
        for _ in range(WARM_UP):
            call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        took[name] = (time.perf_counter() - begin) / CALLS * 1e6
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(SYNCED_CALLS):
        found["fuse_multimodal"]()
        torch.cuda.synchronize()
    took[SYNCED] = (time.perf_counter() - begin) / SYNCED_CALLS * 1e6
    return took


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=results.FOLDER / "launch_h200.json")
    arguments = parser.parse_args()
    if QUICK is None:
        parser.error(str(direct_launch.QUICK_PROBLEM))
    samples: dict[str, list[list[float]]] = {}
    for _ in range(ROUNDS):
        for at, way in enumerate(("C", "Python")):
            choose(way)
            for name, value in one_round(calls()).items():
                samples.setdefault(name, [[], []])[at].append(value)
    choose("C")
    document = {
        "what": f"microseconds of the host a call: medians of {ROUNDS} rounds of {CALLS} calls, in C and in Python",
        "machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
        "versions": machine.versions(),
        **machine.commit(),
        "problems": rc.check_installation()["call_problems"] + rc.check_installation()["launch_problems"],
        "host_us": {name: [round(median(each), 2) for each in ways] for name, ways in samples.items()},
    }
    results.save(document, arguments.out)
    for name, ways in document["host_us"].items():  # type: ignore[attr-defined]
        print(f"{name}: {ways[0]} in C, {ways[1]} in Python")


if __name__ == "__main__":
    main()
