"""Peers in PyTorch, eager and compiled, as someone who knows it well writes them for exactly this task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robocache.benchmarks.candidates import Absent, Candidate
from robocache.benchmarks.clock_problem import ClockProblem
from robocache.benchmarks.voxel_problem import VoxelProblem
from robocache.benchmarks.workloads import Problem

COMPILED = "torch.compile"


def torch_peers(problem: Problem, *, with_compile: bool) -> list[Candidate | Absent]:
    """Eager and compiled.

    Args:
        problem: The inputs.
        with_compile: Compile as well, which takes seconds a case.
    """
    function, arguments = _voxels(problem) if isinstance(problem, VoxelProblem) else _clock(problem)
    eager = Candidate("torch eager", partial(function, *arguments))
    if not with_compile:
        return [eager, Absent(COMPILED, "not compiled in a quick run, or without --compile", "skipped")]
    compiled = torch.compile(function, fullgraph=True, dynamic=False)
    return [eager, Candidate(COMPILED, partial(compiled, *arguments))]


def resample(data: Tensor, times: Tensor, targets: Tensor) -> Tensor:
    """[B,S,D], [B,S], [B,T] -> [B,T,D]: batched searchsorted, gather, lerp; holds the edge samples.

    Args:
        data: Samples.
        times: Their times; at least two, no two equal.
        targets: Wanted times.
    """
    batch, source, dim = data.shape
    later = torch.searchsorted(times, targets, right=True).clamp_(1, source - 1)
    start = times.gather(1, later - 1)
    weight = ((targets - start) / (times.gather(1, later) - start)).clamp(0, 1).to(torch.float32)
    rows = data.reshape(batch * source, dim)
    index = (later + torch.arange(batch, device=data.device)[:, None] * source).flatten()
    low, high = rows.index_select(0, index - 1).float(), rows.index_select(0, index).float()
    return torch.lerp(low, high, weight.reshape(-1, 1)).to(data.dtype).view(batch, -1, dim)


def fuse(data: tuple[Tensor, ...], times: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """Each stream resampled, side by side.

    Args:
        data: [B,S,D] each.
        times: [B,S] each.
        targets: [B,T].
    """
    return torch.cat([resample(one, stamps, targets) for one, stamps in zip(data, times, strict=True)], dim=2)


def voxels(points: Tensor, features: Tensor | None, lowest: Tensor, edge: Tensor, how: tuple[Any, ...]) -> Tensor:
    """[N,3](, [N,F]) -> the grid: number the voxels, scatter, cut off the cell of the dropped points.

    Args:
        points: The cloud.
        features: Of each point, or None.
        lowest: [3], the grid's corner.
        edge: A voxel's edge.
        how: Grid size and mode.
    """
    (x, y, z), mode = how
    total = x * y * z
    steps = torch.floor((points.to(lowest.dtype) - lowest) / edge)
    along_x, along_y, along_z = steps.unbind(1)
    is_inside = (along_x >= 0) & (along_x < x) & (along_y >= 0) & (along_y < y) & (along_z >= 0) & (along_z < z)
    # Exact in float32: the grids that are timed have at most 2**24 voxels.
    cells = ((along_x * y + along_y) * z + along_z).long()
    cells = torch.where(is_inside, cells, total)
    if features is None:
        grid = torch.zeros(total + 1, dtype=torch.int32, device=points.device)
        ones = torch.ones_like(cells, dtype=torch.int32)
        filled = grid.index_fill(0, cells, 1) if mode == "occupancy" else grid.scatter_add(0, cells, ones)
        return filled[:total].view(x, y, z)
    features = features.to(torch.float32)
    grid = torch.zeros(total + 1, features.shape[1], device=points.device)
    if mode == "max":
        index = cells[:, None].expand_as(features)
        return grid.scatter_reduce(0, index, features, "amax", include_self=False)[:total].view(x, y, z, -1)
    counts = torch.zeros(total + 1, device=points.device).index_add(0, cells, torch.ones_like(steps[:, 0]))
    mean = grid.index_add(0, cells, features)[:total] / counts[:total].clamp(min=1)[:, None]
    return mean.view(x, y, z, -1)


def _clock(problem: ClockProblem) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    if len(problem.data) == 1:
        return resample, (problem.data[0], problem.times[0], problem.targets)
    return fuse, (problem.data, problem.times, problem.targets)


def _voxels(problem: VoxelProblem) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    case = problem.case
    lowest = torch.tensor(case.grid_min, device=problem.device)
    edge = torch.tensor(case.voxel_size, device=problem.device)
    return voxels, (problem.points, problem.features, lowest, edge, (case.grid_size, case.mode))
