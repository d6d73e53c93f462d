"""Peers that are there only where someone installed them: Open3D's voxel grid on the CPU, CuPy on the GPU."""

from __future__ import annotations

import importlib
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robocache.benchmarks.candidates import Absent, Candidate
from robocache.benchmarks.voxel_problem import VoxelProblem
from robocache.benchmarks.workloads import Problem

OPEN3D, CUPY = "open3d", "cupy"
OPEN3D_POINTS = 1_000_000  # its grid is a hash map: seconds a call for more


def optional_peers(problem: Problem) -> list[Candidate | Absent]:
    """What the installed ones offer for the problem; nothing for streams, which neither of them has.

    Args:
        problem: The inputs.
    """
    return [_open3d(problem), _cupy(problem)] if isinstance(problem, VoxelProblem) else []


def _open3d(problem: VoxelProblem) -> Candidate | Absent:
    if find_spec(OPEN3D) is None:
        return Absent(OPEN3D, "not installed: pip install open3d")
    if problem.case.mode != "occupancy":
        return Absent(OPEN3D, f"its voxel grid has no {problem.case.mode}")
    if len(problem.points) > OPEN3D_POINTS:
        return Absent(OPEN3D, f"more than {OPEN3D_POINTS} points", "skipped")
    try:
        open3d = importlib.import_module(OPEN3D)
    except Exception as error:  # noqa: BLE001  a broken installation of a peer fails in many ways; the reason is shown
        return Absent(OPEN3D, f"does not import: {type(error).__name__}: {error}")
    case = problem.case
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(problem.points.double().cpu().numpy()))
    lowest = np.asarray(case.grid_min)
    highest = lowest + np.asarray(case.grid_size) * case.voxel_size
    create = open3d.geometry.VoxelGrid.create_from_point_cloud_within_bounds
    run = partial(create, cloud, case.voxel_size, lowest, highest)
    return Candidate(OPEN3D, run, read=partial(_occupied, case.grid_size), is_on_host=True)


def _occupied(grid_size: tuple[int, int, int], grid: Any) -> Tensor:  # noqa: ANN401
    indices = torch.from_numpy(np.array([voxel.grid_index for voxel in grid.get_voxels()], np.int64).reshape(-1, 3))
    # A point within rounding of the upper bound gets a voxel beyond the last.
    indices = indices[(indices < torch.tensor(grid_size)).all(1)]
    occupied = torch.zeros(grid_size, dtype=torch.int32)
    occupied[tuple(indices.T)] = 1
    return occupied


def _cupy(problem: VoxelProblem) -> Candidate | Absent:
    if problem.device.type != "cuda":
        return Absent(CUPY, "needs a GPU")
    if find_spec(CUPY) is None:
        return Absent(CUPY, "not installed: pip install cupy-cuda12x")
    if problem.features is not None:
        return Absent(CUPY, f"has no scatter for {problem.case.mode} of rows that is worth a comparison")
    cupy = importlib.import_module(CUPY)
    points = cupy.from_dlpack(problem.points)
    case = problem.case
    lowest, size = cupy.asarray(case.grid_min, cupy.float32), cupy.asarray(case.grid_size, cupy.float32)

    def run() -> Any:  # noqa: ANN401
        steps = cupy.floor((points - lowest) / cupy.float32(case.voxel_size))
        is_inside = ((steps >= 0) & (steps < size)).all(axis=1)
        x, y, z = steps[is_inside].astype(cupy.int64).T
        cells = (x * case.grid_size[1] + y) * case.grid_size[2] + z
        counts = cupy.bincount(cells, minlength=int(np.prod(case.grid_size)))
        return counts if case.mode == "count" else counts > 0

    def read(counts: Any) -> Tensor:  # noqa: ANN401
        return torch.from_numpy(cupy.asnumpy(counts)).to(torch.int32).view(case.grid_size)

    return Candidate(CUPY, run, read=read, is_capturable=False)
