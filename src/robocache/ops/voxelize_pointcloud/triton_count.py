"""Device code that counts and marks voxels, and the zeros before it.

Occupancy needs no atomics, since every writer writes the same 1, but takes them: scattered stores of 4 bytes are a
quarter slower. Where points are many for the grid, most find their voxel taken. To look first pays where neighbours lie
side by side, as a sensor scans them, and costs a little where they are spread at random; programs find out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops.triton_voxel import OCCUPANCY, voxel_numbers

_OCCUPANCY = tl.constexpr(OCCUPANCY)
_LOOKS_PAY = tl.constexpr(8)  # where at most one in so many points finds its voxel empty


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


@triton.jit(do_not_specialize=["point_count", "point_stride", "cloud_count", "search_step", "parts"])
def count_kernel(
    points_ptr, offsets_ptr, grid_ptr, point_count, point_stride, cloud_count, search_step, parts, grid,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr, IS_PACKED: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_POINT: tl.constexpr, OVERLAPS: tl.constexpr,
):  # fmt: skip
    """`parts` blocks of points a program. Of several, it looks at its voxels first as long as most are taken."""
    looks = parts > 1
    for part in range(parts):
        block = tl.program_id(0) * parts + part
        if WIDE:
            block = block.to(tl.int64)
        point = block * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
        stride = point_stride
        if IS_PACKED:
            stride = 3
        cell, keeps = voxel_numbers(
            points_ptr, offsets_ptr, point, point_count, stride, cloud_count, search_step, grid, CLAMPS, HAS_OFFSETS
        )
        one = tl.full([BLOCK_POINT], 1, tl.int32)
        if OVERLAPS:
            tl.extra.cuda.gdc_wait()  # for the zeros
        if MODE == _OCCUPANCY:
            if looks:
                # Past the first cache, which may hold what lay here before the zeros.
                taken = tl.load(grid_ptr + cell, mask=keeps, other=1, cache_modifier=".cg")
                news = keeps & (taken == 0)  # by what is known here: another program may be there first
                looks = tl.sum(news.to(tl.int32)) * _LOOKS_PAY < tl.sum(keeps.to(tl.int32))
                keeps = news
            tl.atomic_or(grid_ptr + cell, one, mask=keeps, sem="relaxed")
        else:
            tl.atomic_add(grid_ptr + cell, one, mask=keeps, sem="relaxed")
