"""Device code of `voxelize_pointcloud` for grids larger than the cache: points into tiles, then each tile in one go.

A tile is a run of voxels in memory. Its points are collected in its bin, as keys that order by voxel, then by point;
one program then writes the whole tile, zeros and results, so that every byte of the grid travels to memory once and no
float is added by an atomic. What few tiles need, if any, waits for a second kernel, since it would take registers from
all: a crowded tile has more points than the first one sorts at once, an overfull tile more than its bin holds. Points
of overfull tiles go to a list, from which they are added with atomics. `tile_plan.py` says how large all these are.

`counts` holds a number of points for each tile, the length of that list, the numbers of overfull and of crowded tiles,
and then which these are: the former from its front, the latter from its end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops.triton_voxel import MAX, MEAN, MIN, from_key, voxel_numbers
from robocache.ops.voxelize_pointcloud.triton_runs import run_totals, runs, sorted_keys

_MEAN, _MAX, _MIN = tl.constexpr(MEAN), tl.constexpr(MAX), tl.constexpr(MIN)
_HIGHEST_TILE = tl.constexpr(0x7FFFFFFF)


@triton.jit(
    do_not_specialize=[
        "point_count", "point_stride", "cloud_count", "search_step", "tile_count", "tile_bits", "key_bits", "capacity"
    ]
)  # fmt: skip
def bin_kernel(
    points_ptr, offsets_ptr, counts_ptr, bins_ptr, list_ptr,
    point_count, point_stride, cloud_count, search_step, tile_count, tile_bits, key_bits, capacity, grid,
    CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr, WIDE: tl.constexpr, BLOCK_POINT: tl.constexpr,
):  # fmt: skip
    """Put each point's key into the bin of its tile; where that is full, the point onto the list."""
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell, keeps = voxel_numbers(
        points_ptr, offsets_ptr, point, point_count, point_stride, cloud_count, search_step, grid, CLAMPS, HAS_OFFSETS
    )
    tile = cell >> tile_bits
    # In a cloud that lies in one tile, an atomic for each point would wait for all the others.
    lowest = tl.min(tl.where(keeps, tile, _HIGHEST_TILE), axis=0)
    highest = tl.max(tl.where(keeps, tile, -1), axis=0)
    if lowest == highest:
        kept = keeps.to(tl.int32)
        rank = tl.atomic_add(counts_ptr + highest, tl.sum(kept, axis=0), sem="relaxed") + tl.cumsum(kept, axis=0) - 1
    else:
        rank = tl.atomic_add(counts_ptr + tile, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps, sem="relaxed")
    has_room = rank < capacity
    wide = bins_ptr.dtype.element_ty
    key = ((cell - (tile << tile_bits)).to(wide) << key_bits) | point.to(wide)
    tl.store(bins_ptr + tile * capacity + rank, key, mask=keeps & has_room)
    has_none = (keeps & ~has_room).to(tl.int32)
    missing = tl.sum(has_none, axis=0)
    if missing > 0:
        start = tl.atomic_add(counts_ptr + tile_count, missing, sem="relaxed")
        at = (start + tl.cumsum(has_none, axis=0) - 1).to(cell.dtype)
        tl.store(list_ptr + at, cell, mask=has_none > 0)
        tl.store(list_ptr + point_count + at, point, mask=has_none > 0)


@triton.jit(
    do_not_specialize=[
        "point_count", "cell_count", "tile_count", "last_busy", "tile_bits", "key_bits", "capacity", "feature_stride",
        "features",
    ]
)  # fmt: skip
def tile_kernel(
    features_ptr, counts_ptr, bins_ptr, list_ptr, grid_ptr,
    point_count, cell_count, tile_count, last_busy, tile_bits, key_bits, capacity, feature_stride, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
    BLOCK_ZERO: tl.constexpr,
):  # fmt: skip
    """Write one tile: zeros, and the results of its points. `feature_stride` and `features` come divided by VECTOR."""
    tile = tl.program_id(0)
    if WIDE:
        tile = tile.to(tl.int64)
    first = tile << tile_bits
    width = features * VECTOR
    tile_ptr = grid_ptr + tl.multiple_of(first * width, 4)  # a tile has a multiple of 4 voxels
    bin_ptr = bins_ptr + tile * capacity
    # Asked for before the zeros are written, so that they come meanwhile, and all, so that they need not wait for the
    # count: a bin holds at least a block, and what lies behind its keys is not looked at.
    keys = tl.load(bin_ptr + tl.arange(0, BLOCK))
    count = tl.load(counts_ptr + tile)
    cells = tl.minimum(cell_count - first, 1 << tile_bits).to(tl.int32)
    size = cells * width
    whole = tl.multiple_of(size & -4, 4)
    for start in range(0, whole, BLOCK_ZERO):
        at = start + tl.arange(0, BLOCK_ZERO)
        tl.store(tile_ptr + at, tl.zeros([BLOCK_ZERO], tl.float32), mask=at < whole)
    at_end = whole + tl.arange(0, 4)
    tl.store(tile_ptr + at_end, tl.zeros([4], tl.float32), mask=at_end < size)
    tl.debug_barrier()  # what one thread cleared another one fills
    if count > capacity:
        _empty_bin(counts_ptr, bin_ptr, list_ptr, tile, first,
                   point_count, tile_count, tile_bits, key_bits, capacity, WIDE, BLOCK)  # fmt: skip
    elif count > BLOCK:
        rank = tl.atomic_add(counts_ptr + tile_count + 2, 1, sem="relaxed")
        tl.store(counts_ptr + last_busy - rank, tile.to(tl.int32))
    elif count > 0:
        _reduce_tile(features_ptr, tile_ptr, keys, count, key_bits, feature_stride, features, MODE, WIDE, VECTOR,
                     BLOCK, BLOCK_FEATURE)  # fmt: skip


@triton.jit(
    do_not_specialize=[
        "point_count", "tile_count", "last_busy", "tile_bits", "key_bits", "capacity", "feature_stride", "features"
    ]
)  # fmt: skip
def rest_kernel(
    features_ptr, counts_ptr, bins_ptr, list_ptr, grid_ptr,
    point_count, tile_count, last_busy, tile_bits, key_bits, capacity, feature_stride, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
    BLOCK_MIDDLE: tl.constexpr, BLOCK_MIDDLE_FEATURE: tl.constexpr,
    BLOCK_FULL: tl.constexpr, BLOCK_FULL_FEATURE: tl.constexpr,
):  # fmt: skip
    """Add the points of overfull tiles, and write the results of crowded ones. Mostly there are none."""
    programs = tl.num_programs(0)
    listed = tl.load(counts_ptr + tile_count)
    for start in range(tl.program_id(0) * BLOCK, listed, programs * BLOCK):
        _add_listed(features_ptr, bins_ptr, list_ptr, grid_ptr, start, listed - start, point_count, tile_bits, capacity,
                    feature_stride, features, MODE, VECTOR, BLOCK, BLOCK_FEATURE)  # fmt: skip
    crowded = tl.load(counts_ptr + tile_count + 2)
    for number in range(tl.program_id(0), crowded, programs):
        tile = tl.load(counts_ptr + last_busy - number)
        count = tl.load(counts_ptr + tile)
        if WIDE:
            tile = tile.to(tl.int64)
        bin_ptr = bins_ptr + tile * capacity
        tile_ptr = grid_ptr + (tile << tile_bits) * (features * VECTOR)
        if count <= BLOCK_MIDDLE:
            _reduce_bin(features_ptr, tile_ptr, bin_ptr, count, key_bits, feature_stride, features, MODE, WIDE, VECTOR,
                        BLOCK_MIDDLE, BLOCK_MIDDLE_FEATURE)  # fmt: skip
        else:
            _reduce_bin(features_ptr, tile_ptr, bin_ptr, count, key_bits, feature_stride, features, MODE, WIDE, VECTOR,
                        BLOCK_FULL, BLOCK_FULL_FEATURE)  # fmt: skip


@triton.jit(do_not_specialize=["cell_count", "tile_count", "tile_bits", "capacity", "features"])
def overfull_kernel(
    counts_ptr, bins_ptr, grid_ptr, cell_count, tile_count, tile_bits, capacity, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
):  # fmt: skip
    """Finish the voxels of overfull tiles: sum to mean, or key to float."""
    for number in range(tl.program_id(0), tl.load(counts_ptr + tile_count + 1), tl.num_programs(0)):
        tile = tl.load(counts_ptr + tile_count + 3 + number)
        if WIDE:
            tile = tile.to(tl.int64)
        first = tile << tile_bits
        cells = tl.minimum(cell_count - first, 1 << tile_bits).to(tl.int32)
        width = features * VECTOR
        for start in range(0, cells, BLOCK):
            cell = start + tl.arange(0, BLOCK)
            count = cell * 0
            if MODE == _MEAN:
                count = tl.load(bins_ptr + tile * capacity + cell, mask=cell < cells, other=0).to(tl.int32)
            for begin in range(0, width, BLOCK_FEATURE):
                feature = begin + tl.arange(0, BLOCK_FEATURE)[None, :]
                to_ptr = grid_ptr + first * width + (cell * width)[:, None] + feature
                mask = (cell < cells)[:, None] & (feature < width)
                if MODE == _MEAN:
                    mask = mask & (count > 1)[:, None]
                    total = tl.load(to_ptr, mask=mask, other=0)
                    divisor = tl.broadcast_to(count.to(tl.float32)[:, None], [BLOCK, BLOCK_FEATURE])
                    tl.store(to_ptr, tl.div_rn(total, divisor), mask=mask)
                else:
                    key_ptr = to_ptr.to(tl.pointer_type(tl.uint32))
                    key = tl.load(key_ptr, mask=mask, other=0)
                    tl.store(key_ptr, from_key(key, MODE), mask=mask & (key != 0))


@triton.jit
def _add_listed(
    features_ptr, bins_ptr, list_ptr, grid_ptr,
    start, count, point_count, tile_bits, capacity, feature_stride, features,
    MODE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
):  # fmt: skip
    """Add a block of the list: one atomic for those of its points that share a voxel."""
    lane = tl.arange(0, BLOCK)
    listed = tl.load(list_ptr + start + lane, mask=lane < count, other=0)
    keys = sorted_keys(listed.to(tl.int64) * BLOCK + lane, count, BLOCK)
    cell = tl.where(lane < count, keys // BLOCK, -1).to(listed.dtype)
    is_last, number = runs(cell, count, BLOCK)
    point = tl.load(list_ptr + point_count + start + keys % BLOCK, mask=lane < count, other=0)
    if MODE == _MEAN:
        tile = cell >> tile_bits
        count_ptr = bins_ptr + tile * capacity + (cell - (tile << tile_bits))
        tl.atomic_add(count_ptr, number.to(bins_ptr.dtype.element_ty), mask=is_last, sem="relaxed")
    width = features * VECTOR
    for begin in range(0, width, BLOCK_FEATURE):
        feature = begin + tl.arange(0, BLOCK_FEATURE)[None, :]
        from_ptr = features_ptr + (point * feature_stride * VECTOR)[:, None] + feature
        mask = (lane < count)[:, None] & (feature < width)
        total = run_totals(cell, tl.load(from_ptr, mask=mask, other=0).to(tl.float32), MODE)
        to_ptr = grid_ptr + (cell * features * VECTOR)[:, None] + feature
        mask = is_last[:, None] & (feature < width)
        if MODE == _MAX or MODE == _MIN:
            tl.atomic_max(to_ptr.to(tl.pointer_type(tl.uint32)), total, mask=mask, sem="relaxed")
        else:
            tl.atomic_add(to_ptr, total, mask=mask, sem="relaxed")


@triton.jit
def _reduce_bin(
    features_ptr, tile_ptr, bin_ptr, count, key_bits, feature_stride, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
):  # fmt: skip
    """Store the result of each occupied voxel of a tile, whose bin has at most a block of keys."""
    lane = tl.arange(0, BLOCK)
    keys = tl.load(bin_ptr + lane, mask=lane < count, other=0)
    _reduce_tile(features_ptr, tile_ptr, keys, count, key_bits, feature_stride, features, MODE, WIDE, VECTOR,
                 BLOCK, BLOCK_FEATURE)  # fmt: skip


@triton.jit
def _reduce_tile(
    features_ptr, tile_ptr, keys, count, key_bits, feature_stride, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
):  # fmt: skip
    """Store the result of each occupied voxel of a tile, whose keys lie in a block."""
    keys = sorted_keys(keys, count, BLOCK)
    is_in = tl.arange(0, BLOCK) < count
    high = keys >> key_bits
    point = (keys - (high << key_bits)).to(tl.int32)
    cell = tl.where(is_in, high, -1).to(tl.int32)
    if WIDE:
        point = point.to(tl.int64)
    is_last, number = runs(cell, count, BLOCK)
    width = features * VECTOR
    for begin in range(0, width, BLOCK_FEATURE):
        feature = begin + tl.arange(0, BLOCK_FEATURE)[None, :]
        from_ptr = features_ptr + (point * feature_stride * VECTOR)[:, None] + feature
        mask = is_in[:, None] & (feature < width)
        total = run_totals(cell, tl.load(from_ptr, mask=mask, other=0).to(tl.float32), MODE)
        to_ptr = tile_ptr + (cell * features * VECTOR)[:, None] + feature
        mask = is_last[:, None] & (feature < width)
        if MODE == _MAX or MODE == _MIN:
            tl.store(to_ptr.to(tl.pointer_type(tl.uint32)), from_key(total, MODE), mask=mask)
        else:
            total += 0.0  # a sum starts from 0.0: of -0.0 alone it is 0.0
            if MODE == _MEAN:
                divisor = tl.broadcast_to(number.to(tl.float32)[:, None], [BLOCK, BLOCK_FEATURE])
                total = tl.div_rn(total, divisor)
            tl.store(to_ptr, total, mask=mask)


@triton.jit
def _empty_bin(
    counts_ptr, bin_ptr, list_ptr, tile, first, point_count, tile_count, tile_bits, key_bits, capacity,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Move the points of an overfull tile onto the list, and clear its bin, which is to count the tile's voxels."""
    rank = tl.atomic_add(counts_ptr + tile_count + 1, 1, sem="relaxed")
    tl.store(counts_ptr + tile_count + 3 + rank, tile.to(tl.int32))
    to = tl.atomic_add(counts_ptr + tile_count, capacity, sem="relaxed")
    if WIDE:
        to = to.to(tl.int64)
    wide = list_ptr.dtype.element_ty
    for start in range(0, capacity, BLOCK):
        at = start + tl.arange(0, BLOCK)
        keys = tl.load(bin_ptr + at, mask=at < capacity, other=0)
        high = keys >> key_bits
        tl.store(list_ptr + to + at, first + high.to(wide), mask=at < capacity)
        tl.store(list_ptr + point_count + to + at, (keys - (high << key_bits)).to(wide), mask=at < capacity)
    tl.debug_barrier()  # what one thread read another one clears
    for start in range(0, 1 << tile_bits, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(bin_ptr + at, tl.zeros([BLOCK], bin_ptr.dtype.element_ty), mask=at < 1 << tile_bits)
