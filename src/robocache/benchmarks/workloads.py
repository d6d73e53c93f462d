"""Which shapes are timed: the speed cases that the operations promise, on a CPU cut down to what fits in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch

from robocache.benchmarks.clock_problem import ClockProblem
from robocache.benchmarks.voxel_problem import VoxelProblem
from robocache.errors import ArgumentError
from robocache.ops.fuse_multimodal import cases as fuse_cases
from robocache.ops.resample_trajectories import cases as resample_cases
from robocache.ops.voxelize_pointcloud import cases as voxelize_cases

CPU_LIMIT_BYTES = 100_000_000
QUICK_LIMIT_BYTES = 250_000
Case = resample_cases.Case | fuse_cases.Case | voxelize_cases.Case
Problem = ClockProblem | VoxelProblem


@dataclass(frozen=True)
class Workload:
    """A case to time.

    Args:
        name: The name of the case that the operation promises.
        operation: The public function.
        case: What is timed: the case itself, or a smaller one.
        scaled: How it was made smaller, or None.
    """

    name: str
    operation: str
    case: Case
    scaled: str | None = None

    def problem(self, device: str) -> Problem:
        """The inputs on a device.

        Args:
            device: "cpu" or "cuda".
        """
        if isinstance(self.case, voxelize_cases.Case):
            return VoxelProblem.of(self.case, device)
        return ClockProblem.of(self.case, device)


def workloads(device: str, *, quick: bool = False, wanted: Sequence[str] = ()) -> list[Workload]:
    """What to time on a device.

    Args:
        device: "cpu" or "cuda"; on a CPU bfloat16 cases get a float32 twin, and big ones are cut down.
        quick: Cut all down to tiny ones.
        wanted: Names or patterns (`fuse*`) of cases; empty for all.

    Raises:
        ArgumentError: A pattern that no case has; lists those there are.
    """
    known = _promised(device)
    for pattern in wanted:
        if not any(fnmatchcase(one.name, pattern) for one in known):
            names = ", ".join(one.name for one in known)
            raise ArgumentError(f"no benchmark case is called {pattern!r}; there are {names}")
    chosen = [one for one in known if not wanted or any(fnmatchcase(one.name, pattern) for pattern in wanted)]
    if quick:
        return [_within(one, QUICK_LIMIT_BYTES) for one in chosen]
    return [_within(one, CPU_LIMIT_BYTES) for one in chosen] if device == "cpu" else chosen


def _promised(device: str) -> list[Workload]:
    fuses = [Workload(f"fuse_{case}", "fuse_multimodal", case) for case in fuse_cases.SPEED_CASES]
    resamples = [Workload(f"resample_{case}", "resample_trajectories", case) for case in resample_cases.SPEED_CASES]
    voxels = [Workload(str(case), "voxelize_pointcloud", case) for case in voxelize_cases.SPEED_CASES]
    twins = [_float32_twin(one) for one in (*fuses[:2], *resamples[:1])] if device == "cpu" else []
    return [*fuses, *resamples, *twins, *voxels]


def _float32_twin(workload: Workload) -> Workload:
    case = workload.case
    if isinstance(case, voxelize_cases.Case):
        raise TypeError("clouds are float32 as they are")
    return replace(workload, name=f"{workload.name}_f32", case=replace(case, dtype=torch.float32))


def _within(workload: Workload, limit_bytes: int) -> Workload:
    case = workload.case
    while _size_bytes(case) > limit_bytes:
        case = _smaller(case, limit_bytes)
    if case == workload.case:
        return workload
    return replace(workload, case=case, scaled=f"{_sizes(case)} instead of {_sizes(workload.case)}")


def _size_bytes(case: Case) -> int:
    if isinstance(case, voxelize_cases.Case):
        x, y, z = case.grid_size
        return case.points * (12 + 4 * case.features) + x * y * z * max(case.features, 1) * 4
    streams = case.streams if isinstance(case, fuse_cases.Case) else ((case.source, case.dim),)
    numbers = sum((source + case.target) * dim for source, dim in streams)
    return case.batch * numbers * case.dtype.itemsize


def _smaller(case: Case, limit_bytes: int) -> Case:
    if isinstance(case, voxelize_cases.Case):
        x, y, z = case.grid_size
        if x * y * z * max(case.features, 1) * 4 <= limit_bytes // 2:
            return replace(case, points=case.points // 2)
        return replace(case, points=case.points // 8, grid_size=(x // 2, y // 2, z // 2))
    if case.batch > 1:
        return replace(case, batch=case.batch // 2)
    if isinstance(case, fuse_cases.Case):
        return replace(case, target=case.target // 2)
    return replace(case, source=case.source // 2, target=case.target // 2)


def _sizes(case: Case) -> str:
    if isinstance(case, voxelize_cases.Case):
        return f"{case.points} points to {case.grid_size[0]}"
    if isinstance(case, fuse_cases.Case):
        return f"batch {case.batch}"
    return f"{case.batch}x{case.source} to {case.target}"
