"""Device code that numbers voxels, and floats as integers that order like them. Triton inlines it."""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops.triton_search import count_at_or_before, divide, from_bits, whole, whole_bits

OCCUPANCY, COUNT, SUM, MEAN, MAX, MIN = range(6)
_MIN = tl.constexpr(MIN)
HIGHEST, SIGN = tl.constexpr(0xFFFFFFFF), tl.constexpr(0x80000000)


@triton.jit
def _step(coordinate, lowest, edge, size, CLAMPS: tl.constexpr):
    """Along one axis: the voxel's number as a float, and whether the point is kept."""
    # IEEE division: an approximate one moves points that lie on a voxel's plane.
    steps = divide(coordinate - lowest, edge + coordinate * 0)
    step = tl.floor(steps)
    # The GPU's floor takes the smallest negative numbers (denormals) for zero.
    step = tl.where((steps < 0) & (step == 0), -1.0, step)
    keeps = (coordinate - coordinate) == 0  # neither NaN nor inf
    if CLAMPS:
        step = tl.minimum(tl.maximum(step, 0), (size - 1).to(step.dtype))
    # Compare as floats: a cast of a number beyond the integer's range is undefined.
    keeps = keeps & (step >= 0) & (step < size.to(step.dtype))
    return tl.where(keeps, step, 0), keeps


@triton.jit
def voxel_numbers(points_ptr, offsets_ptr, point, point_count, point_stride, cloud_count, search_step, grid,
                   CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr):  # fmt: skip
    """The flat number of each point's voxel, and whether the point is kept; `grid` is that of `_grid_numbers`.

    In the integers of `point`: int32 unless the grid or the cloud is too large for them.
    """
    keeps = point < point_count
    row_ptr = points_ptr + point * point_stride
    cell = point * 0
    for axis in tl.static_range(3):
        coordinate = tl.load(row_ptr + axis, mask=point < point_count, other=0)
        if coordinate.dtype != tl.float64:
            coordinate = coordinate.to(tl.float32)
        size = whole(grid[axis]).to(point.dtype)
        lowest = from_bits(whole_bits(grid[3 + 2 * axis], grid[4 + 2 * axis]), coordinate)
        edge = from_bits(whole_bits(grid[9 + 2 * axis], grid[10 + 2 * axis]), coordinate)
        step, is_in = _step(coordinate, lowest, edge, size, CLAMPS)
        cell = cell * size + step.to(point.dtype)
        keeps = keeps & is_in
    if HAS_OFFSETS:
        wanted = point.to(tl.int64)
        cloud = count_at_or_before(offsets_ptr + 1, cloud_count, wanted, search_step)
        keeps = keeps & (wanted >= tl.load(offsets_ptr)) & (cloud < cloud_count)
        volume = (whole(grid[0]) * whole(grid[1]) * whole(grid[2])).to(point.dtype)
        cell += cloud.to(point.dtype) * volume
    return cell, keeps


@triton.jit
def to_key(value, MODE):
    """A float as an unsigned integer above 0 that grows with it (for min: falls); a NaN is the highest."""
    bits = value.to(tl.uint32, bitcast=True)
    key = tl.where(bits >= SIGN, ~bits, bits | SIGN)
    if MODE == _MIN:
        key = ~key
    return tl.where(value != value, HIGHEST, key).to(tl.uint32)


@triton.jit
def from_key(key, MODE):
    ordered = key
    if MODE == _MIN:
        ordered = ~key
    bits = tl.where(ordered >= SIGN, ordered ^ SIGN, ~ordered)
    return tl.where(key == HIGHEST, 0x7FC00000, bits).to(tl.uint32)
