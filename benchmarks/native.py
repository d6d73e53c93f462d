"""The compiled CPU library beside the portable backend, and beside plain torch without our semantics, in one process.

    python -m benchmarks.native [--out benchmarks/results/native_cpu.json] [--threads 1 2]

Calls are interleaved, so that what else the machine does falls on all alike; medians are compared, and every result
is checked against the portable backend's before anything is timed. The exit code is 1 where a goal is missed.

A result of 30 MB costs more to get from the system, page by page, than to compute, and whether the C library's
allocator keeps it depends on what else was freed. `--memory kept` (glibc) makes it keep all it had, for every backend
alike, as allocators of training jobs do; `--memory returned` leaves it as it comes. The stored results are
`native_cpu.json` (kept) and `native_cpu_returned.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import robocache as rc
from robocache.benchmarks import machine
from robocache.ops import native_library
from robocache.ops.fuse_multimodal.cases import SPEED_CASES as FUSES
from robocache.ops.resample_trajectories.cases import SPEED_CASES as RESAMPLES
from robocache.ops.voxelize_pointcloud.cases import SPEED_CASES as CLOUDS

DTYPES = (torch.float32, torch.bfloat16)
SECONDS_A_PAIR = 3.0
RESULT = Path(__file__).parent / "results" / "native_cpu.json"


class Problem(NamedTuple):
    """One row of the table: `run(backend)`, what it must be faster than the portable backend by, and a plain peer."""

    name: str
    dtype: torch.dtype
    goal: float
    run: Callable[[str], Tensor]
    plain: Callable[[], Tensor] | None = None


def plain_resample(data: Tensor, times: Tensor, targets: Tensor) -> Tensor:
    """What one writes in torch: batched searchsorted, gather, lerp; clamped, and nothing else of our semantics."""
    after = torch.searchsorted(times, targets).clamp(1, times.shape[1] - 1)
    time_before, time_after = times.gather(1, after - 1), times.gather(1, after)
    weight = ((targets - time_before) / (time_after - time_before)).clamp(0, 1)[..., None]
    index = after[..., None].expand(-1, -1, data.shape[2])
    return torch.lerp(data.gather(1, index - 1).float(), data.gather(1, index).float(), weight).to(data.dtype)


def plain_fuse(data: list[Tensor], times: list[Tensor], targets: Tensor) -> Tensor:
    return torch.cat([plain_resample(one, stamps, targets) for one, stamps in zip(data, times, strict=True)], dim=2)


def problems() -> Iterator[Problem]:
    for dtype in DTYPES:
        for case in FUSES[:2]:
            data, times, targets = dataclasses.replace(case, dtype=dtype).inputs("cpu")
            pairs = [tensor for pair in zip(data, times, strict=True) for tensor in pair]
            plain = partial(plain_fuse, data, times, targets)
            yield Problem(f"fuse {case}", dtype, 10, partial(_fuse, pairs, targets), plain)
            ordered = targets.sort(dim=1).values
            plain = partial(plain_fuse, data, times, ordered)
            yield Problem(f"fuse {case}, targets ascend", dtype, 10, partial(_fuse, pairs, ordered), plain)
        case = dataclasses.replace(RESAMPLES[0], dtype=dtype)
        inputs = case.inputs("cpu")
        yield Problem(f"resample {case}", dtype, 3, partial(_resample, inputs), partial(plain_resample, *inputs))
        yield from clouds(dtype)


def clouds(dtype: torch.dtype) -> Iterator[Problem]:
    """Points of the dtype for the counts; features of it for the mean, whose points are float32."""
    for case, goal in ((CLOUDS[0], 3), (CLOUDS[1], 3), (CLOUDS[3], 2), (CLOUDS[4], 2)):
        points, features = case.inputs("cpu")
        if features is None:
            points = points.to(dtype)
        else:
            features = features.to(dtype)
        run = partial(
            rc.voxelize_pointcloud, points, features, case.grid_min, case.voxel_size, case.grid_size, case.mode
        )
        yield Problem(f"{case}", dtype, goal, partial(_voxelize, run))
        yield Problem(f"{case}, out=", dtype, goal, partial(_voxelize, partial(run, out=_grid(run))))


def _grid(run: Callable[..., Tensor]) -> Tensor:
    return run(backend="native")


def _fuse(pairs: list[Tensor], targets: Tensor, backend: str) -> Tensor:
    return rc.fuse_multimodal(*pairs, targets, backend=backend)


def _resample(inputs: tuple[Tensor, Tensor, Tensor], backend: str) -> Tensor:
    return rc.resample_trajectories(*inputs, backend=backend)


def _voxelize(run: Callable[..., Tensor], backend: str) -> Tensor:
    return run(backend=backend)


def interleaved(calls: dict[str, Callable[[], Tensor]]) -> dict[str, list[float]]:
    """Milliseconds of each call, one of each in turn; at least three."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    end, rounds = time.perf_counter() + SECONDS_A_PAIR, 0
    while time.perf_counter() < end or rounds < 3:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - start) * 1e3)
        rounds += 1
    return took


def measure(problem: Problem, threads: int) -> dict[str, Any]:
    """Check, then time; milliseconds."""
    torch.set_num_threads(threads)
    torch.testing.assert_close(problem.run("native").clone(), problem.run("pytorch"))
    portable = partial(problem.run, "pytorch")
    took = interleaved({"native": partial(problem.run, "native"), "pytorch": portable})
    if problem.plain is not None:
        took |= {"plain": interleaved({"pytorch": portable, "plain": problem.plain})["plain"]}
    medians = {f"{name}_ms": round(statistics.median(times), 4) for name, times in took.items()}
    ratio = medians["pytorch_ms"] / medians["native_ms"]
    return {
        "case": problem.name,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "threads": threads,
        **medians,
        "ratio": round(ratio, 2),
        "goal": problem.goal,
        "is_reached": ratio >= problem.goal,
        "calls": len(took["native"]),
    }


def keep_memory() -> None:
    """Have glibc give nothing back to the system, and map nothing apart."""
    libc = ctypes.CDLL(None)
    mmap_threshold, trim_threshold = -3, -1
    if not (libc.mallopt(mmap_threshold, 1 << 30) and libc.mallopt(trim_threshold, 2**31 - 1)):
        raise SystemExit("this C library's allocator cannot be told to keep memory; use --memory returned")


def row(found: dict[str, Any]) -> str:
    plain = f"{found['plain_ms']:10.3f}" if "plain_ms" in found else f"{'':10}"
    times = f"{found['native_ms']:10.3f}{found['pytorch_ms']:10.3f}{plain}"
    goal = f"{found['ratio']:7.1f}x {found['goal']:4}x {'' if found['is_reached'] else 'MISSED'}"
    return f"{found['case']:56}{found['dtype']:>9}{found['threads']:4}{times}{goal}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--memory", choices=("kept", "returned"), default="kept")
    arguments = parser.parse_args()
    if arguments.memory == "kept":
        keep_memory()
    print(f"{'milliseconds':56}{'dtype':>9}{'thr':>4}{'native':>10}{'pytorch':>10}{'plain':>10}{'ratio':>8}{'goal':>6}")
    rows = []
    for problem in problems():
        for threads in arguments.threads:
            rows.append(measure(problem, threads))
            print(row(rows[-1]), flush=True)
    document = {
        **machine.commit(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "memory": arguments.memory,
        "instructions": native_library.instructions(),
        "load_average": machine.load_average(),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(found["is_reached"] for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
