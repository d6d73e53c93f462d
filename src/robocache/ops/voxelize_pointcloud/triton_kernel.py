"""`voxelize_pointcloud` on a GPU: number the voxels, then store, count, add, or compare atomically.

Occupancy needs no atomics: every writer writes the same 1. Max and min compare the floats' bits in an order-preserving
integer form, so that they are the same whatever the order of arrival, and a NaN wins.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.limits import number_bits, runtime_halves, runtime_number
from robocache.ops.triton_search import count_at_or_before, divide, first_step, from_bits, whole, whole_bits
from robocache.ops.voxelize_pointcloud import torch_backend
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple

POINTS_PER_PROGRAM = 1024
ELEMENTS_PER_PROGRAM = 2048

OCCUPANCY, COUNT, SUM, MAX, MIN = range(5)
_OCCUPANCY, _COUNT, _SUM = tl.constexpr(OCCUPANCY), tl.constexpr(COUNT), tl.constexpr(SUM)
_MAX, _MIN = tl.constexpr(MAX), tl.constexpr(MIN)
_LOWEST, _HIGHEST = tl.constexpr(-(2**31)), tl.constexpr(2**31 - 1)
_SIZES = ["point_count", "cloud_count", "search_step", "point_stride", "feature_stride", "features"]


@triton.jit
def _step(coordinate, lowest_bits, edge_bits, size, CLAMPS: tl.constexpr):
    """Along one axis: the voxel's number as a float, and whether the point is kept."""
    # IEEE division: an approximate one moves points that lie on a voxel's plane.
    steps = divide(coordinate - from_bits(lowest_bits, coordinate), from_bits(edge_bits, coordinate) + coordinate * 0)
    step = tl.floor(steps)
    # The GPU's floor takes the smallest negative numbers (denormals) for zero.
    step = tl.where((steps < 0) & (step == 0), -1.0, step)
    keeps = (coordinate - coordinate) == 0  # neither NaN nor inf
    if CLAMPS:
        step = tl.minimum(tl.maximum(step, 0), (size - 1).to(step.dtype))
    # Compare as floats: a cast of a number beyond the integer's range is undefined.
    keeps = keeps & (step >= 0) & (step < size.to(step.dtype))
    return tl.where(keeps, step, 0).to(tl.int64), keeps


@triton.jit
def _voxel_numbers(points_ptr, offsets_ptr, point, point_count, cloud_count, search_step, grid, point_stride,
                   CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr):  # fmt: skip
    """The flat number of each point's voxel, and whether the point is kept; `grid` is that of `_grid_numbers`."""
    in_cloud = point < point_count
    row_ptr = points_ptr + point * point_stride
    cell = point * 0
    keeps = in_cloud
    for axis in tl.static_range(3):
        coordinate = tl.load(row_ptr + axis, mask=in_cloud, other=0)
        if coordinate.dtype != tl.float64:
            coordinate = coordinate.to(tl.float32)
        size = whole(grid[axis])
        lowest = whole_bits(grid[3 + 2 * axis], grid[4 + 2 * axis])
        edge = whole_bits(grid[9 + 2 * axis], grid[10 + 2 * axis])
        step, is_in = _step(coordinate, lowest, edge, size, CLAMPS)
        cell = cell * size + step
        keeps = keeps & is_in
    if HAS_OFFSETS:
        cloud = count_at_or_before(offsets_ptr + 1, cloud_count, point, search_step)
        keeps = keeps & (point >= tl.load(offsets_ptr)) & (cloud < cloud_count)
        cell += cloud.to(tl.int64) * whole(grid[0]) * whole(grid[1]) * whole(grid[2])
    return cell, keeps


@triton.jit
def _ordered(bits):
    """The bits of a float as an integer of the same order, and back again."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit(do_not_specialize=_SIZES)
def _scatter_kernel(
    points_ptr, features_ptr, offsets_ptr, grid_ptr, counts_ptr,
    point_count, cloud_count, search_step, grid, point_stride, feature_stride, features,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr, COUNTS: tl.constexpr,
    BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell, keeps = _voxel_numbers(
        points_ptr, offsets_ptr, point, point_count, cloud_count, search_step, grid, point_stride, CLAMPS, HAS_OFFSETS
    )
    if MODE == _OCCUPANCY:
        tl.store(grid_ptr + cell, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps)
    elif MODE == _COUNT:
        tl.atomic_add(grid_ptr + cell, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps, sem="relaxed")
    else:
        if COUNTS:
            tl.atomic_add(counts_ptr + cell, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps, sem="relaxed")
        for start in range(0, features, BLOCK_FEATURE):
            feature = start + tl.arange(0, BLOCK_FEATURE)[None, :]
            mask = keeps[:, None] & (feature < features)
            value = tl.load(features_ptr + point[:, None] * feature_stride + feature, mask=mask, other=0).to(tl.float32)
            to = grid_ptr + cell[:, None] * features + feature
            if MODE == _SUM:
                tl.atomic_add(to, value, mask=mask, sem="relaxed")
            elif MODE == _MAX:
                key = tl.where(value != value, _HIGHEST, _ordered(value.to(tl.int32, bitcast=True)))
                tl.atomic_max(to, key, mask=mask, sem="relaxed")
            else:
                key = tl.where(value != value, _LOWEST, _ordered(value.to(tl.int32, bitcast=True)))
                tl.atomic_min(to, key, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=["total", "features"])
def _divide_by_counts_kernel(grid_ptr, counts_ptr, total, features, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    in_grid = at < total
    count = tl.load(counts_ptr + at // features, mask=in_grid, other=0)
    has_many = in_grid & (count > 1)
    value = tl.load(grid_ptr + at, mask=has_many, other=0)
    tl.store(grid_ptr + at, tl.div_rn(value, tl.maximum(count, 1).to(tl.float32)), mask=has_many)


@triton.jit(do_not_specialize=["total"])
def _from_ordered_kernel(grid_ptr, total, EMPTY: tl.constexpr, NAN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(grid_ptr + at, mask=at < total, other=0)
    bits = tl.where(key == EMPTY, 0, tl.where(key == NAN, 0x7FC00000, _ordered(key)))
    tl.store(grid_ptr + at, bits, mask=at < total)


def voxelize_pointcloud(
    points: Tensor,
    features: Tensor | None,
    grid_min: Triple,
    voxel_size: Triple,
    grid_size: GridSize,
    mode: str,
    offsets: Tensor | None,
    outside: str,
    out: Tensor | None = None,
) -> Tensor:
    """[N,3](, [N,F]) -> [X,Y,Z] int32 or [X,Y,Z,F] float32, with the clouds of `offsets` in front."""
    if mode in ("mean", "sum") and torch.are_deterministic_algorithms_enabled():
        # Float atomics add in any order; PyTorch's deterministic index_add sorts first.
        how = (grid_min, voxel_size, grid_size, mode, offsets, outside)
        result = torch_backend.voxelize_pointcloud(points, features, *how)
        return result if out is None else out.copy_(result)
    front = () if offsets is None else (len(offsets) - 1,)
    tail = () if features is None else (features.shape[1],)
    if out is None:
        dtype = torch.int32 if features is None else torch.float32
        out = points.new_empty((*front, *grid_size, *tail), dtype=dtype)
    with torch.cuda.device_of(points):  # Triton launches on the current device, not the tensors'
        _fill(out, mode)
        counts = _scatter(points, features, (grid_min, voxel_size, grid_size), mode, offsets, outside == "clamp", out)
        _finish(out, mode, counts)
    return out


def _fill(out: Tensor, mode: str) -> None:
    if mode in ("max", "min"):
        out.view(torch.int32).fill_(-(2**31) if mode == "max" else 2**31 - 1)
    else:
        out.zero_()


def _scatter(
    points: Tensor,
    features: Tensor | None,
    grid: tuple[Triple, Triple, GridSize],
    mode: str,
    offsets: Tensor | None,
    clamps: bool,
    out: Tensor,
) -> Tensor:
    width = 0 if features is None else features.shape[1]
    counts = out
    if mode == "mean":
        counts = torch.zeros(out.shape[:-1], dtype=torch.int32, device=out.device)
    if len(points) == 0 or out.numel() == 0:
        return counts
    points = points if points.stride(1) == 1 else points.contiguous()
    if features is not None and features.stride(1) != 1 and width > 1:
        features = features.contiguous()
    block_feature = triton.next_power_of_2(min(max(width, 1), 64))
    block_point = (
        (POINTS_PER_PROGRAM if offsets is None else 256)
        if features is None
        else max(32, ELEMENTS_PER_PROGRAM // block_feature)
    )
    clouds = 1 if offsets is None else len(offsets) - 1
    kind = {"occupancy": OCCUPANCY, "count": COUNT, "max": MAX, "min": MIN}.get(mode, SUM)
    _scatter_kernel[(triton.cdiv(len(points), block_point),)](
        points, points if features is None else features, points if offsets is None else offsets.contiguous(),
        out.view(torch.int32) if mode in ("max", "min") else out, counts,
        len(points), clouds, first_step(clouds), _grid_numbers(points, *grid), points.stride(0),
        0 if features is None else features.stride(0), width,
        MODE=kind, CLAMPS=clamps, HAS_OFFSETS=offsets is not None, COUNTS=mode == "mean",
        BLOCK_POINT=block_point, BLOCK_FEATURE=block_feature, num_warps=4,
    )  # fmt: skip
    return counts


def _finish(out: Tensor, mode: str, counts: Tensor) -> None:
    total, block = out.numel(), 1024
    if total == 0:
        return
    blocks = (triton.cdiv(total, block),)
    if mode == "mean":
        _divide_by_counts_kernel[blocks](out, counts, total, out.shape[-1], BLOCK=block)
    elif mode in ("max", "min"):
        empty, nan = (-(2**31), 2**31 - 1) if mode == "max" else (2**31 - 1, -(2**31))
        _from_ordered_kernel[blocks](out.view(torch.int32), total, EMPTY=empty, NAN=nan, BLOCK=block)


def _grid_numbers(points: Tensor, grid_min: Triple, voxel_size: Triple, grid_size: GridSize) -> tuple[int, ...]:
    """Sizes, then the bits of the lowest corner and of the edges in the dtype the voxel numbers are computed in."""
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    halves = (runtime_halves(number_bits(number, dtype)) for number in (*grid_min, *voxel_size))
    return (*map(runtime_number, grid_size), *(half for pair in halves for half in pair))
