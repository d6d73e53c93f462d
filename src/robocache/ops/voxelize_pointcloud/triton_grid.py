"""The cells of a `VoxelGrid` on a GPU: each point leaves the number of its voxel, by which the next cloud clears it.

Where a voxel must be finished once, the point that finds it empty owns it, as in `triton_kernel.py`; the marks that
tell are cleared with the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.direct_launch import fill_zero
from robocache.ops.launch import PreparedKernel
from robocache.ops.plans import LIMIT
from robocache.ops.triton_voxel import MAX, MEAN, MIN, OCCUPANCY, SUM, from_key, to_key, voxel_numbers
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple
from robocache.ops.voxelize_pointcloud.triton_kernel import KINDS, _grid_numbers, _readable

POINTS_PER_PROGRAM = 512
ELEMENTS_PER_PROGRAM = 2048
WARPS = 4
_ALIGNED_ENTRIES = 4  # a cloud's entries begin at multiples of 16 bytes, as pointers do that Triton compiled for
_ACCESS_BYTES = 16
_INT32_LIMIT = 2**31

_OCCUPANCY, _SUM, _MEAN = tl.constexpr(OCCUPANCY), tl.constexpr(SUM), tl.constexpr(MEAN)
_MAX, _MIN = tl.constexpr(MAX), tl.constexpr(MIN)


@triton.jit(do_not_specialize=["entries", "features"])
def _clear_kernel(
    marks_ptr, touched_ptr, grid_ptr, entries, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """Zeros for every voxel in the list, and for its mark. `features` comes divided by VECTOR."""
    entry = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell = tl.load(touched_ptr + entry, mask=entry < entries, other=-1)
    if WIDE:
        cell = cell.to(tl.int64)
    is_listed = cell >= 0
    if MODE == _MEAN:
        tl.store(marks_ptr + cell, tl.zeros([BLOCK_POINT], tl.int32), mask=is_listed)
    elif MODE == _MAX or MODE == _MIN:
        # All voxels of a word of marks are emptied together.
        tl.store(marks_ptr + cell // 32, tl.zeros([BLOCK_POINT], tl.int32), mask=is_listed)
    width = features * VECTOR
    for start in range(0, width, BLOCK_FEATURE):
        feature = start + tl.arange(0, BLOCK_FEATURE)[None, :]
        to_ptr = grid_ptr + (cell * features * VECTOR)[:, None] + feature
        zero = tl.zeros([BLOCK_POINT, BLOCK_FEATURE], grid_ptr.dtype.element_ty)
        tl.store(to_ptr, zero, mask=is_listed[:, None] & (feature < width))


@triton.jit(do_not_specialize=["point_count", "point_stride", "entries"])
def _touch_kernel(
    points_ptr, touched_ptr, grid_ptr, point_count, point_stride, entries, grid,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, IS_PACKED: tl.constexpr, WIDE: tl.constexpr, BLOCK_POINT: tl.constexpr,
):  # fmt: skip
    """Count every point, and list its voxel where `entries` has room for it."""
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if IS_PACKED:
        point_stride = 3
    cell, keeps = voxel_numbers(points_ptr, points_ptr, point, point_count, point_stride, 1, 1, grid, CLAMPS, False)
    tl.store(touched_ptr + point, tl.where(keeps, cell, -1), mask=point < entries)
    one = tl.full([BLOCK_POINT], 1, tl.int32)
    if MODE == _OCCUPANCY:
        tl.store(grid_ptr + cell, one, mask=keeps)
    else:
        tl.atomic_add(grid_ptr + cell, one, mask=keeps, sem="relaxed")


@triton.jit(do_not_specialize=["point_count", "point_stride", "entries", "feature_stride", "features"])
def _gather_kernel(
    points_ptr, features_ptr, marks_ptr, touched_ptr, grid_ptr,
    point_count, point_stride, entries, feature_stride, features, grid,
    MODE: tl.constexpr, CLAMPS: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Add or compare every feature into its voxel. `feature_stride` and `features` come divided by VECTOR."""
    point = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    if WIDE:
        point = tl.program_id(0).to(tl.int64) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell, keeps = voxel_numbers(points_ptr, points_ptr, point, point_count, point_stride, 1, 1, grid, CLAMPS, False)
    owns = keeps
    if MODE == _MEAN:
        earlier = tl.atomic_add(marks_ptr + cell, tl.full([BLOCK_POINT], 1, tl.int32), mask=keeps, sem="relaxed")
        owns = keeps & (earlier == 0)
    elif MODE != _SUM:
        bit = tl.full([BLOCK_POINT], 1, tl.int32) << (cell % 32).to(tl.int32)
        earlier = tl.atomic_or(marks_ptr + cell // 32, bit, mask=keeps, sem="relaxed") & bit
        owns = keeps & (earlier == 0)
    tl.store(touched_ptr + point, tl.where(owns, cell, -1), mask=point < entries)
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


@triton.jit(do_not_specialize=["entries", "features"])
def _settle_kernel(
    marks_ptr, touched_ptr, grid_ptr, entries, features,
    MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK_POINT: tl.constexpr, BLOCK_FEATURE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """For each voxel, by the point that owns it: sum to mean, or key to float."""
    entry = tl.program_id(0) * BLOCK_POINT + tl.arange(0, BLOCK_POINT)
    cell = tl.load(touched_ptr + entry, mask=entry < entries, other=-1)
    if WIDE:
        cell = cell.to(tl.int64)
    owns = cell >= 0
    count = 1
    if MODE == _MEAN:
        count = tl.load(marks_ptr + cell, mask=owns, other=1)
        owns = owns & (count > 1)
    width = features * VECTOR
    for start in range(0, width, BLOCK_FEATURE):
        feature = start + tl.arange(0, BLOCK_FEATURE)[None, :]
        mask = owns[:, None] & (feature < width)
        to_ptr = grid_ptr + (cell * features * VECTOR)[:, None] + feature
        if MODE == _MEAN:
            total = tl.load(to_ptr, mask=mask, other=0)
            tl.store(to_ptr, tl.div_rn(total, count.to(tl.float32)[:, None] + total * 0), mask=mask)
        else:
            to_ptr = to_ptr.to(tl.pointer_type(tl.uint32))
            tl.store(to_ptr, from_key(tl.load(to_ptr, mask=mask, other=0), MODE), mask=mask)


class TritonCells:
    """A grid on a GPU, and a list of its voxels that are not empty, with gaps and some more than once.

    Args:
        box: The grid's lowest corner, the edges of a voxel, and the number of voxels.
        how: The mode and the rule for points outside.
        features: Columns, or 0 for modes that count.
        device: The GPU.
    """

    def __init__(
        self, box: tuple[Triple, Triple, GridSize], how: tuple[str, str], features: int, device: torch.device
    ) -> None:
        self._box, self._features, self._device = box, features, device
        self._mode, self._clamps = KINDS[how[0]], how[1] == "clamp"
        self._cells = math.prod(box[2])
        tail = (features,) if features else ()
        self.values = torch.zeros((*box[2], *tail), dtype=torch.float32 if features else torch.int32, device=device)
        # A count for each voxel, or a bit; where there is neither, kernels are given one word that they do not read.
        marks = {MEAN: self._cells, MAX: (self._cells + 31) // 32, MIN: (self._cells + 31) // 32}.get(self._mode, 1)
        self._marks = torch.zeros(marks, dtype=torch.int32, device=device)
        self._is_wide = self.values.numel() + ELEMENTS_PER_PROGRAM * _ACCESS_BYTES >= _INT32_LIMIT
        self._touched = torch.empty(0, dtype=torch.int64 if self._is_wide else torch.int32, device=device)
        self.touched = 0
        self._kernels: dict[object, PreparedKernel] = {}

    def reserve(self, points: int, *, beside: int) -> None:
        """Have room in the list for a cloud's voxels beside the first so many; what is in the list stays."""
        wanted = beside + _whole_entries(points)
        if wanted > len(self._touched):
            size = max(wanted, 2 * len(self._touched))
            grown = torch.empty(size, dtype=self._touched.dtype, device=self._device)
            grown[: self.touched] = self._touched[: self.touched]
            self._touched = grown

    def clear_all(self) -> None:
        """Empty every voxel."""
        fill_zero(self.values)
        fill_zero(self._marks)
        self.touched = 0

    def clear_touched(self) -> None:
        """Empty the voxels in the list, and the list."""
        if self.touched:
            self._prepared(("clear", self.touched), self._clear)(self._marks, self._touched, self.values)
        self.touched = 0

    def add(self, points: Tensor, features: Tensor | None, *, lists: bool) -> None:
        """Add a cloud, and the voxels it touches to the list."""
        if len(points) == 0:
            return
        if lists:
            self.reserve(len(points), beside=self.touched)
        points, features, _ = _readable(points, features, None)
        entries = _whole_entries(len(points)) if lists else 0
        layout = (points.shape, points.stride(), points.dtype, entries)
        key = layout if features is None else (*layout, features.stride(), features.dtype)
        scatter = self._prepared(key, lambda: self._scatter(points, features, entries))
        touched = self._touched[self.touched : self.touched + entries]
        if features is None:
            scatter(points, touched, self.values)
        else:
            scatter(points, features, self._marks, touched, self.values)
            if self._mode != SUM:
                settle = self._prepared(("settle", entries), lambda: self._settle(entries))
                settle(self._marks, touched, self.values)
        self.touched += entries

    def _prepared(self, key: object, make: Callable[[], PreparedKernel]) -> PreparedKernel:
        """The kernel of a key, made if it is not there; when there are many, all are forgotten first."""
        kernel = self._kernels.get(key)
        if kernel is None:
            if len(self._kernels) >= LIMIT:
                self._kernels.clear()
            kernel = self._kernels[key] = make()
        return kernel

    def _clear(self) -> PreparedKernel:
        width = self._features or 1
        options, vector = self._blocks(width)
        programs = triton.cdiv(self.touched, options["BLOCK_POINT"])
        return PreparedKernel(_clear_kernel, programs, (0,) * 3, (self.touched, width // vector), options)

    def _settle(self, entries: int) -> PreparedKernel:
        options, vector = self._blocks(self._features)
        programs = triton.cdiv(entries, options["BLOCK_POINT"])
        return PreparedKernel(_settle_kernel, programs, (0,) * 3, (entries, self._features // vector), options)

    def _scatter(self, points: Tensor, features: Tensor | None, entries: int) -> PreparedKernel:
        reach = max(len(points) * max(points.stride(0), 1), 0 if features is None else features.stride(0) * len(points))
        is_wide = self._is_wide or reach + ELEMENTS_PER_PROGRAM * _ACCESS_BYTES >= _INT32_LIMIT
        numbers = (len(points), points.stride(0), entries)
        runtime = _grid_numbers(points, *self._box)
        how = {"CLAMPS": self._clamps, "WIDE": is_wide}
        if features is None:
            options = {"MODE": self._mode, "IS_PACKED": points.stride(0) == 3, "BLOCK_POINT": POINTS_PER_PROGRAM}
            options |= {**how, "num_warps": WARPS}
            programs = triton.cdiv(max(len(points), entries), POINTS_PER_PROGRAM)
            return PreparedKernel(_touch_kernel, programs, (0,) * 3, (*numbers, runtime), options)
        blocks, vector = self._blocks(math.gcd(self._features, features.stride(0)))
        strides = (features.stride(0) // vector, self._features // vector)
        programs = triton.cdiv(entries, blocks["BLOCK_POINT"])
        return PreparedKernel(_gather_kernel, programs, (0,) * 5, (*numbers, *strides, runtime), blocks | how)

    def _blocks(self, divisor: int) -> tuple[dict[str, int], int]:
        """How a kernel cuts up points by features, rows being multiples of `divisor` floats; and what it may access."""
        vector = min(divisor & -divisor, _ACCESS_BYTES // self.values.element_size())
        block_feature = min(triton.next_power_of_2(max(self._features, 1)), 64)
        block_point = max(32, ELEMENTS_PER_PROGRAM // block_feature)
        options = {"BLOCK_POINT": block_point, "BLOCK_FEATURE": block_feature, "VECTOR": vector}
        return options | {"MODE": self._mode, "WIDE": self._is_wide, "num_warps": WARPS}, vector


def _whole_entries(points: int) -> int:
    """Entries for so many points, at most an eighth more: few numbers, so that few launches need to be prepared."""
    step = max(_ALIGNED_ENTRIES, 1 << max(points.bit_length() - 4, 0))
    return -(-points // step) * step
