"""`voxelize_pointcloud` on a GPU: zeros, then one pass over the points; features of large grids go by tiles.

Mean, max and min look once more at one point of each occupied voxel. `tile_plan.py` has the tiles.

Max and min compare the floats' bits in an order-preserving unsigned form in which 0 means empty, so that they are the
same whatever the order of arrival and a NaN wins. The point that finds its voxel empty owns it, and finishes it in the
last pass: nothing but the zeros grows with the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.allocation import allocator
from robocache.ops.direct_launch import fill_zero
from robocache.ops.launch import PreparedKernel, can_overlap
from robocache.ops.limits import number_bits, runtime_halves, runtime_number
from robocache.ops.triton_search import first_step
from robocache.ops.triton_voxel import COUNT, MAX, MEAN, MIN, OCCUPANCY, SUM, from_key, to_key, voxel_numbers
from robocache.ops.voxelize_pointcloud import torch_backend
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple
from robocache.ops.voxelize_pointcloud.tile_plan import TilePlan, Tiling
from robocache.ops.voxelize_pointcloud.triton_count import count_kernel, zero_kernel

POINTS_PER_PROGRAM = 256
ELEMENTS_PER_PROGRAM = 2048
WARPS = 4
ZEROS_PER_PROGRAM = 4096
_ACCESS_BYTES = 16
_INT32_LIMIT = 2**31

KINDS = {"occupancy": OCCUPANCY, "count": COUNT, "sum": SUM, "mean": MEAN, "max": MAX, "min": MIN}
_SUM, _MEAN = tl.constexpr(SUM), tl.constexpr(MEAN)


@triton.jit(
    do_not_specialize=["point_count", "point_stride", "cloud_count", "search_step", "feature_stride", "features"]
)
def _reduce_kernel(
    points_ptr, offsets_ptr, features_ptr, grid_ptr, marks_ptr, owned_ptr,
    point_count, point_stride, cloud_count, search_step, feature_stride, features, grid,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, HAS_OFFSETS: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Add or compare every feature into its voxel. `feature_stride` and `features` come divided by VECTOR."""
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell, keeps = voxel_numbers(
        points_ptr, offsets_ptr, point, point_count, point_stride, cloud_count, search_step, grid, CLAMPS, HAS_OFFSETS
    )
    if MODE != _SUM:
        if MODE == _MEAN:
            earlier = tl.atomic_add(marks_ptr + cell, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps, sem="relaxed")
        else:
            bit = tl.full([BLOCK_POINT], 1, tl.int32) << (cell % 32).to(tl.int32)
            earlier = tl.atomic_or(marks_ptr + cell // 32, bit, mask=keeps, sem="relaxed") & bit
        tl.store(owned_ptr + point, tl.where(keeps & (earlier == 0), cell, -1), mask=point < point_count)
    width = features * VECTOR
    for start in range(0, width, BLOCK_FEATURE):
        feature = start + tl.arange(0, BLOCK_FEATURE)[None, :]
        mask = keeps[:, None] & (feature < width)
        from_ptr = features_ptr + (point * feature_stride * VECTOR)[:, None] + feature
        value = tl.load(from_ptr, mask=mask, other=0).to(tl.float32)
        to_ptr = grid_ptr + (cell * features * VECTOR)[:, None] + feature
        if MODE == _SUM or MODE == _MEAN:
            tl.atomic_add(to_ptr, value, mask=mask, sem="relaxed")
        else:
            tl.atomic_max(to_ptr.to(tl.pointer_type(tl.uint32)), to_key(value, MODE), mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=["point_count", "features"])
def _finish_kernel(
    marks_ptr, owned_ptr, grid_ptr, point_count, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """For each voxel, by the point that owns it: sum to mean, or key to float."""
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell = tl.load(owned_ptr + point, mask=point < point_count, other=-1)
    is_owner = cell >= 0
    count = 1
    if MODE == _MEAN:
        count = tl.load(marks_ptr + cell, mask=is_owner, other=1)
        is_owner = is_owner & (count > 1)
    width = features * VECTOR
    for start in range(0, width, BLOCK_FEATURE):
        feature = start + tl.arange(0, BLOCK_FEATURE)[None, :]
        mask = is_owner[:, None] & (feature < width)
        to_ptr = grid_ptr + (cell * features * VECTOR)[:, None] + feature
        if MODE == _MEAN:
            total = tl.load(to_ptr, mask=mask, other=0)
            divisor = tl.broadcast_to(count.to(tl.float32)[:, None], [BLOCK_POINT, BLOCK_FEATURE])
            tl.store(to_ptr, tl.div_rn(total, divisor), mask=mask)
        else:
            to_ptr = to_ptr.to(tl.pointer_type(tl.uint32))
            tl.store(to_ptr, from_key(tl.load(to_ptr, mask=mask, other=0), MODE), mask=mask)


class VoxelPlan:
    """Everything about a voxelization but its pointers: made once for a set of shapes, then only launched.

    The tensors of later calls must agree with those it was made for in shape, stride, dtype and device.
    """

    def __init__(
        self,
        points: Tensor,
        features: Tensor | None,
        grid: tuple[Triple, Triple, GridSize],
        mode: str,
        offsets: Tensor | None,
        outside: str,
    ) -> None:
        front = () if offsets is None else (len(offsets) - 1,)
        tail = () if features is None else (features.shape[1],)
        self._cells = math.prod((*front, *grid[2]))
        self._device, self._points, self._mode = points.device, len(points), KINDS[mode]
        self._new_grid = allocator(
            (*front, *grid[2], *tail), torch.int32 if features is None else torch.float32, self._device
        )
        given = (points, features, offsets)
        points, features, offsets = _readable(points, features, offsets)
        self._needs_copies = any(
            one is not other for one, other in zip(given, (points, features, offsets), strict=True)
        )
        width = 1 if features is None else features.shape[1]
        reach = max(self._cells * max(width, 1), len(points) * max(points.stride(0), 1))
        reach = max(reach, 0 if features is None else len(points) * features.stride(0))
        self._is_wide = reach + ELEMENTS_PER_PROGRAM * _ACCESS_BYTES >= _INT32_LIMIT
        self._zero: Callable[[Tensor], None] = fill_zero
        self._scatter = self._finish = self._tiles = None
        if len(points) == 0 or self._cells * width == 0:
            return
        clouds = 1 if offsets is None else len(offsets) - 1
        options: dict[str, object] = {
            "MODE": self._mode,
            "CLAMPS": outside == "clamp",
            "HAS_OFFSETS": offsets is not None,
            "WIDE": self._is_wide,
            "num_warps": WARPS,
        }
        numbers = (len(points), points.stride(0), clouds, first_step(clouds))
        runtime = _grid_numbers(points, *grid)
        if features is None:
            block = POINTS_PER_PROGRAM
            options |= {"IS_PACKED": points.stride(0) == 3, "BLOCK_POINT": block, "OVERLAPS": False}
            if can_overlap(points.device):
                zeroing = {"BLOCK": ZEROS_PER_PROGRAM, "num_warps": WARPS}
                programs = triton.cdiv(self._cells, ZEROS_PER_PROGRAM)
                self._zero = PreparedKernel(zero_kernel, programs, (0,), divmod(self._cells, 4), zeroing)
                options |= {"OVERLAPS": True, "launch_pdl": True}
            programs = triton.cdiv(len(points), block)
            self._scatter = PreparedKernel(count_kernel, programs, (0, 0, 0), (*numbers, runtime), options)
        else:
            self._prepare_reduction(features, numbers, runtime, options)

    def _prepare_reduction(
        self, features: Tensor, numbers: tuple[int, ...], runtime: tuple[int, ...], options: dict[str, object]
    ) -> None:
        width = features.shape[1]
        divisor = math.gcd(width, features.stride(0))
        vector = min(divisor & -divisor, _ACCESS_BYTES // features.element_size())
        block_feature = min(triton.next_power_of_2(width), 64)
        block = max(32, ELEMENTS_PER_PROGRAM // block_feature)
        programs = triton.cdiv(self._points, block)
        options |= {"BLOCK_POINT": block, "BLOCK_FEATURE": block_feature, "VECTOR": vector}
        strides = (features.stride(0) // vector, width // vector)
        tiling = Tiling.of(self._points, self._cells, width)
        if tiling.pays():
            self._tiles = TilePlan(tiling, numbers, strides, runtime, options)
            return
        self._scatter = PreparedKernel(_reduce_kernel, programs, (0,) * 6, (*numbers, *strides, runtime), options)
        if self._mode != SUM:
            options = {name: value for name, value in options.items() if name not in ("CLAMPS", "HAS_OFFSETS")}
            shape = (self._points, width // vector)
            # A count for each voxel, or a bit; and for each point the voxel it owns, or -1.
            size = self._cells if self._mode == MEAN else (self._cells + 31) // 32
            self._new_marks = allocator((size,), torch.int32, self._device)
            self._new_owned = allocator((self._points,), torch.int64 if self._is_wide else torch.int32, self._device)
            self._finish = PreparedKernel(_finish_kernel, programs, (0, 0, 0), shape, options)

    def __call__(
        self, points: Tensor, features: Tensor | None, offsets: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        """The grid, in `out` where given."""
        if out is None:
            out = self._new_grid()
        if self._tiles is not None:
            if self._needs_copies:
                points, features, offsets = _readable(points, features, offsets)
            return self._tiles(points, points if offsets is None else offsets, features, out)
        self._zero(out)
        if self._scatter is None:
            return out
        if self._needs_copies:
            points, features, offsets = _readable(points, features, offsets)
        starts = points if offsets is None else offsets
        if features is None:
            self._scatter(points, starts, out)
        elif self._finish is None:
            self._scatter(points, starts, features, out, out, out)
        else:
            marks, owned = self._new_marks(), self._new_owned()
            fill_zero(marks)
            self._scatter(points, starts, features, out, marks, owned)
            self._finish(marks, owned, out)
        return out


def voxelize_pointcloud(
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
    if adds_in_fixed_order(mode):
        how = (grid_min, voxel_size, grid_size, mode, offsets, outside)
        return torch_backend.voxelize_pointcloud(points, features, *how)
    plan = VoxelPlan(points, features, (grid_min, voxel_size, grid_size), mode, offsets, outside)
    return plan(points, features, offsets)


def adds_in_fixed_order(mode: str) -> bool:
    """Float atomics add in any order: under deterministic algorithms PyTorch's sorting index_add does it instead."""
    return mode in ("mean", "sum") and torch.are_deterministic_algorithms_enabled()


def _readable(
    points: Tensor, features: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    points = points if points.stride(1) == 1 else points.contiguous()
    if features is not None and features.stride(1) != 1 and features.shape[1] > 1:
        features = features.contiguous()
    return points, features, None if offsets is None else offsets.contiguous()


def _grid_numbers(points: Tensor, grid_min: Triple, voxel_size: Triple, grid_size: GridSize) -> tuple[int, ...]:
    """Sizes, then the bits of the lowest corner and of the edges in the dtype the voxel numbers are computed in."""
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    halves = (runtime_halves(number_bits(number, dtype)) for number in (*grid_min, *voxel_size))
    return (*map(runtime_number, grid_size), *(half for pair in halves for half in pair))
