"""`voxelize_pointcloud` in vectorised PyTorch, on any device: number the voxels, then scatter.

Dropped points go to one cell past the end, which is cut off again: no synchronisation, no boolean indexing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple


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
    clouds = 1 if offsets is None else len(offsets) - 1
    total = clouds * grid_size[0] * grid_size[1] * grid_size[2]
    cells = voxel_numbers(points, grid_min, voxel_size, grid_size, offsets, outside)
    if features is None:
        flat = torch.zeros(total + 1, dtype=torch.int32, device=points.device)
        if mode == "occupancy":
            flat.index_fill_(0, cells, 1)
        else:
            flat.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
        tail: tuple[int, ...] = ()
    else:
        flat = reduce_features(cells, features.float(), total, mode)
        tail = (features.shape[1],)
    front = () if offsets is None else (clouds,)
    return flat[:total].view(*front, *grid_size, *tail)


def reduce_features(cells: Tensor, features: Tensor, total: int, mode: str) -> Tensor:
    """[N] cells below or at `total`, [N,F] -> [total + 1, F]; the last row holds what was dropped."""
    flat = features.new_zeros(total + 1, features.shape[1])
    if mode in ("max", "min"):
        index = cells[:, None].expand_as(features)
        return flat.scatter_reduce(0, index, features, "amax" if mode == "max" else "amin", include_self=False)
    flat = flat.index_add(0, cells, features)
    if mode == "sum":
        return flat
    counts = torch.zeros(total + 1, dtype=torch.int32, device=cells.device)
    counts.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
    return flat / counts.clamp(min=1)[:, None]


def voxel_numbers(
    points: Tensor,
    grid_min: Triple,
    voxel_size: Triple,
    grid_size: GridSize,
    offsets: Tensor | None,
    outside: str,
) -> Tensor:
    """[N] int64: the flat number of each point's voxel; the number past the last one where it is dropped."""
    points = points.double() if points.dtype == torch.float64 else points.float()
    keeps = torch.ones(len(points), dtype=torch.bool, device=points.device)
    cells = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for axis, size in enumerate(grid_size):
        # A full tensor, not a Python number: dividing by a number multiplies by its rounded reciprocal.
        edge = torch.full((), voxel_size[axis], dtype=points.dtype, device=points.device)
        coordinate = points[:, axis]
        steps = torch.floor((coordinate - grid_min[axis]) / edge)
        if outside == "clamp":
            steps = steps.clamp(0, size - 1)
            keeps &= torch.isfinite(coordinate)
        keeps &= (steps >= 0) & (steps < size)
        cells = cells * size + torch.where(keeps, steps, 0).to(torch.int64)
    clouds = 1
    if offsets is not None:
        clouds = len(offsets) - 1
        rows = torch.arange(len(points), device=points.device)
        cloud = torch.searchsorted(offsets[1:].contiguous(), rows, right=True)
        keeps &= (rows >= offsets[0]) & (cloud < clouds)
        cells = cells + cloud * (grid_size[0] * grid_size[1] * grid_size[2])
    return torch.where(keeps, cells, clouds * grid_size[0] * grid_size[1] * grid_size[2])
