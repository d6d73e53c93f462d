"""The coo layout: the occupied voxels only, for clouds that fill little of their grid."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple
from robocache.ops.voxelize_pointcloud.torch_backend import reduce_features, voxel_numbers
from robocache.records import SparseVoxels


def occupied_voxels(
    points: Tensor,
    features: Tensor | None,
    grid: tuple[Triple, Triple, GridSize],
    mode: str,
    offsets: Tensor | None,
    outside: str,
) -> SparseVoxels:
    """Sort the voxel numbers, keep one of each; memory grows with the points, not with the grid."""
    x, y, z = grid[2]
    clouds = 1 if offsets is None else len(offsets) - 1
    cells = voxel_numbers(points, *grid, offsets, outside)
    inside = cells < clouds * x * y * z
    occupied, rank, counts = torch.unique(cells[inside], return_inverse=True, return_counts=True)
    counts = counts.to(torch.int32)
    if features is None:
        values = counts.clamp(max=1) if mode == "occupancy" else counts
    else:
        values = reduce_features(rank, features[inside].float(), len(occupied), mode)[:-1]
    axes = [occupied // (x * y * z)] if offsets is not None else []
    axes += [occupied // (y * z) % x, occupied // z % y, occupied % z]
    return SparseVoxels(torch.stack(axes, dim=1), values, counts)
