"""Every kernel once under NVIDIA's compute-sanitizer: `python -m benchmarks.sanitize --out FILE`.

memcheck finds accesses out of bounds, racecheck threads of a program that disagree in shared memory. The calls run
without it first, so that compilation is over and a wrong result is told apart from a bad access.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import robocache as rc
from robocache.ops.fuse_multimodal.cases import EDGE_CASES as FUSES
from robocache.ops.fuse_multimodal.cases import SPEED_CASES as FAST_FUSES
from robocache.ops.resample_trajectories.cases import EDGE_CASES as STREAMS
from robocache.ops.voxelize_pointcloud.cases import EDGE_CASES as CLOUDS
from robocache.ops.voxelize_pointcloud.cases import Case as Cloud

TOOLS = ("memcheck", "racecheck")
POLICIES = (
    rc.Linear(),
    rc.Linear(max_gap=0.05, outside="nan"),
    rc.Linear(outside="extrapolate"),
    rc.Nearest(),
    rc.Previous(max_gap=0.02),
    rc.Slerp(),
    rc.Angle(),
)
LARGE_CLOUDS = tuple(
    Cloud(f"{mode}_to_{edge}", 200_000, (edge,) * 3, mode=mode, features=features)
    for mode, features, edge in (
        ("occupancy", 0, 16),
        ("occupancy", 0, 256),
        ("count", 0, 256),
        ("mean", 8, 256),
        ("max", 8, 256),
        ("sum", 3, 256),
    )
)
FOUND = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)")
Call = Callable[[str], object]


def calls() -> Iterator[tuple[str, Call]]:
    """Name, and what to call with a backend."""
    for case in STREAMS:
        data, times, targets = case.inputs("cuda")
        lengths = torch.full((case.batch,), max(case.source - 2, 0), device="cuda")
        for policy in POLICIES:
            wide_enough = not isinstance(policy, rc.Slerp) or case.dim % 4 == 0
            if wide_enough and (case.times != torch.int64 or policy.max_gap is None):
                how = {"policy": policy, "lengths": lengths, "return_valid": True}
                yield f"resample {case} {type(policy).__name__}", resample(data, times, targets, how)
    for fuse in (*FUSES, FAST_FUSES[0]):
        streams, stamps, targets = fuse.inputs("cuda")
        named = {str(number): rc.Stream(*pair) for number, pair in enumerate(zip(streams, stamps, strict=True))}
        yield (
            f"fuse {fuse}",
            lambda backend, named=named, targets=targets: rc.fuse_streams(named, targets, backend=backend).data,
        )
    for cloud in (*CLOUDS, *LARGE_CLOUDS):
        points, features = cloud.inputs("cuda")
        grid = {"grid_min": cloud.grid_min, "voxel_size": cloud.voxel_size, "grid_size": cloud.grid_size}
        packed = torch.tensor([0, cloud.points // 3, cloud.points], device="cuda")
        for name, how in (("", {}), (" packed", {"offsets": packed}), (" clamped", {"outside": "clamp"})):
            if name == "" or cloud not in LARGE_CLOUDS:
                yield f"voxelize {cloud}{name}", voxelize(points, features, {**grid, "mode": cloud.mode, **how})


def resample(data: torch.Tensor, times: torch.Tensor, targets: torch.Tensor, how: dict[str, object]) -> Call:
    return lambda backend: rc.resample_trajectories(data, times, targets, **how, backend=backend)[0]


def voxelize(points: torch.Tensor, features: torch.Tensor | None, how: dict[str, object]) -> Call:
    return lambda backend: rc.voxelize_pointcloud(points, features, **how, backend=backend)


def run(*, compares: bool) -> int:
    """Make every call; returns how many. A result that differs from PyTorch's ends the program."""
    count = 0
    for name, call in calls():
        got = call("cuda")
        if compares:
            torch.testing.assert_close(got, call("pytorch"), equal_nan=True, atol=2e-2, rtol=2e-2, msg=name)
        count += 1
    torch.cuda.synchronize()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--commit", default="")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(run(compares=False), "calls")
        return
    sanitizer = shutil.which("compute-sanitizer", path="/usr/local/cuda/bin") or shutil.which("compute-sanitizer")
    if sanitizer is None or not rc.is_cuda_available():
        raise SystemExit("compute-sanitizer (of the CUDA toolkit) and a GPU are needed")
    count = run(compares=True)
    tools = {}
    for tool in TOOLS:
        started = time.monotonic()
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--kernel-name", "kernel_substring=_kernel"]
        command += [sys.executable, "-m", "benchmarks.sanitize", "--run"]
        # Each tensor an allocation of its own: else what lies past its end is another's and allowed.
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        summary = FOUND.search(done.stdout)
        tools[tool] = {
            "is_clean": done.returncode == 0 and f"{count} calls" in done.stdout,
            "summary": summary[1] if summary else done.stdout[-2000:] + done.stderr[-2000:],
            "seconds": round(time.monotonic() - started, 1),
        }
    found = {"machine": torch.cuda.get_device_name(), "commit": given.commit, "calls": count, "tools": tools}
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if not all(tool["is_clean"] for tool in tools.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
