"""The definition of `voxelize_pointcloud`: voxel numbers in the points' dtype, then one voxel at a time in float64.

Judged by numpy.histogramdd and scipy's binned statistics in the tests; every backend is judged by it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Triple = tuple[float, float, float]
GridSize = tuple[int, int, int]


def _sum(rows: Tensor) -> Tensor:
    return rows.sum(0)


def _mean(rows: Tensor) -> Tensor:
    return rows.sum(0) / len(rows)


def _max(rows: Tensor) -> Tensor:
    return torch.where(rows.isnan().any(0), torch.nan, rows.amax(0))


def _min(rows: Tensor) -> Tensor:
    return torch.where(rows.isnan().any(0), torch.nan, rows.amin(0))


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sum": _sum, "mean": _mean, "max": _max, "min": _min}


def voxelize_pointcloud(  # noqa: PLR0913, PLR0917  what every backend takes
    points: Tensor,
    features: Tensor | None,
    grid_min: Triple,
    voxel_size: Triple,
    grid_size: GridSize,
    mode: str,
    offsets: Tensor | None,
    outside: str,
) -> Tensor:
    """[N,3](, [N,F]) -> [X,Y,Z] int32 or [X,Y,Z,F] float32, with the clouds of `offsets` in front."""
    cells = voxel_numbers(points, grid_min, voxel_size, grid_size, offsets, outside)
    clouds = () if offsets is None else (len(offsets) - 1,)
    shape = (*clouds, *grid_size)
    total = torch.Size(shape).numel()
    inside = cells >= 0
    if features is None:
        counts = torch.bincount(cells[inside], minlength=total)
        return (counts.clamp(max=1) if mode == "occupancy" else counts).to(torch.int32).view(shape)
    cells, features = cells[inside], features[inside].double()
    grid = features.new_zeros(total, features.shape[1])
    for cell in torch.unique(cells):
        grid[cell] = REDUCTIONS[mode](features[cells == cell])
    return grid.float().view(*shape, features.shape[1])


def voxel_numbers(
    points: Tensor,
    grid_min: Triple,
    voxel_size: Triple,
    grid_size: GridSize,
    offsets: Tensor | None,
    outside: str,
) -> Tensor:
    """[N] int64: the flat number of each point's voxel, -1 where the point is dropped."""
    if points.dtype in (torch.float16, torch.bfloat16):
        points = points.float()
    lowest, edge, size = points.new_tensor(grid_min), points.new_tensor(voxel_size), points.new_tensor(grid_size)
    steps = torch.floor((points - lowest) / edge)
    keeps = torch.isfinite(points).all(1)
    if outside == "clamp":
        steps = steps.clamp(min=0).minimum(size - 1)
    keeps &= ((steps >= 0) & (steps < size)).all(1)
    x, y, z = torch.where(keeps[:, None], steps, 0).to(torch.int64).unbind(1)
    cells = (x * grid_size[1] + y) * grid_size[2] + z
    if offsets is not None:
        rows = torch.arange(len(points), device=points.device)
        cloud = (offsets[None, 1:] <= rows[:, None]).sum(1)
        keeps &= (rows >= offsets[0]) & (cloud < len(offsets) - 1)
        cells += cloud * (grid_size[0] * grid_size[1] * grid_size[2])
    return torch.where(keeps, cells, -1)
