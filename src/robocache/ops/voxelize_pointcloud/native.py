"""`voxelize_pointcloud` in the compiled CPU library: every grid, also `out=`, is written once."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from robocache.ops.native_library import DTYPES, library, readable
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple

CALL_LAYOUT = "18q6d"
_CALL = struct.Struct("@" + CALL_LAYOUT)
_MODES = {"occupancy": 0, "count": 1, "mean": 2, "sum": 3, "max": 4, "min": 5}


def voxelize_pointcloud(  # noqa: PLR0913, PLR0917  what every backend takes
    points: Tensor,
    features: Tensor | None,
    grid_min: Triple,
    voxel_size: Triple,
    grid_size: GridSize,
    mode: str,
    offsets: Tensor | None,
    outside: str,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """[N,3](, [N,F]) -> [X,Y,Z] int32 or [X,Y,Z,F] float32, with the clouds of `offsets` in front."""
    points = readable(points)
    features = None if features is None else readable(features)
    offsets = None if offsets is None else readable(offsets)
    clouds = () if offsets is None else (len(offsets) - 1,)
    width = () if features is None else (features.shape[1],)
    grid = _new_grid((*clouds, *grid_size, *width), features) if out is None else out
    tensors, box = (points, features, offsets, grid), (grid_min, voxel_size, grid_size)
    if library().robocache_voxelize(_CALL.pack(*call_fields(tensors, box, mode, outside, is_fresh=out is None))):
        message = f"no memory to sort {len(points)} points into tiles, beyond the grid of {grid.nbytes} bytes"
        raise MemoryError(message)
    return grid


def call_fields(
    tensors: tuple[Tensor, Tensor | None, Tensor | None, Tensor],
    box: tuple[Triple, Triple, GridSize],
    mode: str,
    outside: str,
    *,
    is_fresh: bool,
) -> tuple[float, ...]:
    """The library's `voxelize_arguments`, in CALL_LAYOUT; the caller keeps the tensors, all readable."""
    points, features, offsets, grid = tensors
    grid_min, voxel_size, grid_size = box
    return (
        points.data_ptr(),
        0 if features is None else features.data_ptr(),
        0 if offsets is None else offsets.data_ptr(),
        grid.data_ptr(),
        len(points),
        points.stride(0) * points.element_size(),
        0 if features is None else features.stride(0) * features.element_size(),
        0 if features is None else features.shape[1],
        1 if offsets is None else len(offsets) - 1,
        *grid_size,
        DTYPES[points.dtype],
        0 if features is None else DTYPES[features.dtype],
        _MODES[mode],
        outside == "clamp",
        is_fresh,
        torch.get_num_threads(),
        *grid_min,
        *voxel_size,
    )


def _new_grid(shape: tuple[int, ...], features: Tensor | None) -> Tensor:
    return torch.empty(shape, dtype=torch.int32 if features is None else torch.float32)
