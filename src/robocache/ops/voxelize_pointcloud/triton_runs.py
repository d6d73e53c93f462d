"""Device code: points ordered by voxel, and what the points of each voxel come to."""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops.triton_voxel import MAX, MIN, to_key

_MAX, _MIN = tl.constexpr(MAX), tl.constexpr(MIN)


@triton.jit
def sorted_keys(keys, count, BLOCK: tl.constexpr):
    """The first keys in ascending order; what follows them stays behind them."""
    highest = 0x7FFFFFFF
    if keys.dtype == tl.int64:
        highest = 0x7FFFFFFFFFFFFFFF
    return tl.sort(tl.where(tl.arange(0, BLOCK) < count, keys, highest).to(keys.dtype))


@triton.jit
def runs(cell, count, BLOCK: tl.constexpr):
    """Which of the sorted points is the last of its voxel, and how many that voxel then has."""
    lane = tl.arange(0, BLOCK)
    one = lane * 0 + 1
    _, still = tl.associative_scan((cell, one), 0, _sum_of_cell, reverse=True)
    _, number = tl.associative_scan((cell, one), 0, _sum_of_cell)
    return (lane < count) & (still == 1), number


@triton.jit
def run_totals(cell, value, MODE: tl.constexpr):
    """[BLOCK, feature]: what each voxel's points come to so far; keys of it for max and min. In a fixed order."""
    cells = tl.broadcast_to(cell[:, None], value.shape)
    if MODE == _MAX or MODE == _MIN:
        _, total = tl.associative_scan((cells, to_key(value, MODE)), 0, _larger_of_cell)
    else:
        _, total = tl.associative_scan((cells, value), 0, _sum_of_cell)
    return total


@triton.jit
def _sum_of_cell(cell, value, later_cell, later):
    return later_cell, tl.where(cell == later_cell, value + later, later)


@triton.jit
def _larger_of_cell(cell, value, later_cell, later):
    return later_cell, tl.where((cell == later_cell) & (value > later), value, later)
