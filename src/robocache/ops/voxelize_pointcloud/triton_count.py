"""Device code that counts and marks voxels, and the zeros before it.

Occupancy needs no atomics, since every writer writes the same 1, but takes them: scattered stores of 4 bytes are a
quarter slower.
"""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops.triton_voxel import OCCUPANCY, voxel_numbers

_OCCUPANCY = tl.constexpr(OCCUPANCY)


@triton.jit(do_not_specialize=["fours", "rest"])
def zero_kernel(grid_ptr, fours, rest, BLOCK: tl.constexpr):
    """Zeros for four times so many voxels and the rest; the next kernel may read its points meanwhile."""
    tl.extra.cuda.gdc_launch_dependents()
    end = fours.to(tl.int64) * 4  # so that the compiler sees that 16 bytes may go at once
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(grid_ptr + at, tl.zeros([BLOCK], tl.int32), mask=at < end)
    if tl.program_id(0) == 0:
        last = tl.arange(0, 4)
        tl.store(grid_ptr + end + last, tl.zeros([4], tl.int32), mask=last < rest)


@triton.jit(do_not_specialize=["point_count", "point_stride", "cloud_count", "search_step"])
def count_kernel(
    points_ptr, offsets_ptr, grid_ptr, point_count, point_stride, cloud_count, search_step, grid,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr, IS_PACKED: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_POINT: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if IS_PACKED:
        point_stride = 3
    cell, keeps = voxel_numbers(
        points_ptr, offsets_ptr, point, point_count, point_stride, cloud_count, search_step, grid, CLAMPS, HAS_OFFSETS
    )
    one = tl.full([BLOCK_POINT], 1, tl.int32)
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()  # for the zeros
    if MODE == _OCCUPANCY:
        tl.atomic_or(grid_ptr + cell, one, mask=keeps, sem="relaxed")
    else:
        tl.atomic_add(grid_ptr + cell, one, mask=keeps, sem="relaxed")
