"""Device code: what one program does for one stream, and what it is told about it.

A program takes a block of targets and searches once for all columns.

Nothing is specialised on batch, source, target or any stride: training on ragged data must not compile in the middle
of an epoch. What the compiler needs to know for wide accesses, that rows and columns are multiples of `VECTOR`
elements, is said by passing the sizes divided by it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.errors import ShapeError
from robocache.ops.limits import KINDS, OUTSIDE, gap_limit, number_bits, runtime_halves, runtime_number
from robocache.ops.triton_blend import arithmetic, mixed
from robocache.ops.triton_search import NEAREST, PREVIOUS, divide, find_neighbours, first_step, whole, whole_bits
from robocache.policies import Angle, Policy

NUMBERS_PER_STREAM = 11
_LONGEST = 1 << 30  # stamps in a row: positions are int32, probes reach a little beyond the end
_ACCESS_BYTES = 16


class Spec(NamedTuple):
    """What one stream is compiled for."""

    kind: int
    outside: int
    has_gap: bool
    has_lengths: bool
    block_target: int
    block_dim: int
    vector: int


@triton.jit
def resample_block(
    data_ptr, times_ptr, lengths_ptr, target_row_ptr, out_row_ptr, valid_row_ptr,
    row, block, target_count, out_stride, valid_stride,
    numbers, AT: tl.constexpr, SPECS: tl.constexpr, SPEC_AT: tl.constexpr, WITH_VALID: tl.constexpr,
):  # fmt: skip
    """One stream, one row, one block of targets: searched once, then all columns.

    `numbers` are those of `stream_numbers`, from position AT; `SPECS` the fields of a `Spec`, from SPEC_AT.
    """
    HAS_LENGTHS: tl.constexpr = SPECS[SPEC_AT + 3]
    VECTOR: tl.constexpr = SPECS[SPEC_AT + 6]
    count = whole(numbers[AT]).to(tl.int32)
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + row).to(tl.int32)
        count = tl.minimum(tl.maximum(length, 0), count)
    times_ptr += row * whole(numbers[AT + 1])
    data_ptr += row * whole(numbers[AT + 7]) * VECTOR
    out_row_ptr += whole(numbers[AT + 10]) * VECTOR
    KIND: tl.constexpr = SPECS[SPEC_AT]
    OUTSIDE_RULE: tl.constexpr = SPECS[SPEC_AT + 1]
    HAS_GAP: tl.constexpr = SPECS[SPEC_AT + 2]
    BLOCK_TARGET: tl.constexpr = SPECS[SPEC_AT + 4]
    BLOCK_DIM: tl.constexpr = SPECS[SPEC_AT + 5]
    target = block * BLOCK_TARGET + tl.arange(0, BLOCK_TARGET)
    in_target = target < target_count
    wanted = tl.load(target_row_ptr + target, mask=in_target, other=0)
    search_step = whole(numbers[AT + 2]).to(tl.int32)
    gap_bits = whole_bits(numbers[AT + 3], numbers[AT + 4])
    low, high, time_low, time_high, is_single, is_filled, valid = find_neighbours(
        times_ptr, count, wanted, search_step, gap_bits, KIND, OUTSIDE_RULE, HAS_GAP
    )
    if WITH_VALID:
        tl.store(valid_row_ptr + target.to(tl.int64) * valid_stride, valid.to(tl.int8), mask=in_target)

    # Few numbers a target go on to the threads that hold its columns: a weight of 0 stands for the one sample that
    # is the value itself, a NaN weight or a negative index for no value.
    sample_stride = whole(numbers[AT + 8])
    period_bits = whole_bits(numbers[AT + 5], numbers[AT + 6])
    dim = whole(numbers[AT + 9]).to(tl.int32) * VECTOR
    out_ptr = out_row_ptr + target[:, None].to(tl.int64) * out_stride * VECTOR
    if KIND != NEAREST and KIND != PREVIOUS:
        low = tl.where(is_filled, 0, low)[:, None]
        high = tl.where(is_filled, 0, high)[:, None]
        span = arithmetic(tl.where(is_single, 1, time_high - time_low), data_ptr)
        weight = divide(arithmetic(tl.where(is_single, 0, wanted - time_low), data_ptr), span)
        weight = tl.where(is_filled, float("nan"), weight)[:, None]
        high_ptr = data_ptr + high.to(tl.int64) * sample_stride * VECTOR
    else:
        low = tl.where(is_filled, -1, low)[:, None]
    low_ptr = data_ptr + low.to(tl.int64) * sample_stride * VECTOR
    for start in range(0, dim, BLOCK_DIM):
        column = start + tl.arange(0, BLOCK_DIM)[None, :]
        in_out = in_target[:, None] & (column < dim)
        if KIND != NEAREST and KIND != PREVIOUS:
            value_low = arithmetic(tl.load(low_ptr + column, mask=in_out, other=0), data_ptr)
            value_high = arithmetic(tl.load(high_ptr + column, mask=in_out, other=0), data_ptr)
            between = mixed(value_low, value_high, weight, period_bits, KIND, BLOCK_TARGET, BLOCK_DIM)
            value = tl.where(weight == 0, value_low, between)
        else:
            value = tl.load(low_ptr + column, mask=in_out & (low >= 0), other=0)
            if value.dtype.is_floating():
                value = tl.where(low < 0, float("nan"), arithmetic(value, data_ptr))
        tl.store(out_ptr + column, value.to(out_ptr.dtype.element_ty), mask=in_out)


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is contiguous (expanded and sliced ones too), else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def vector_elements(data: list[Tensor], *widths: int) -> int:
    """How many elements one access may take: a power of two that divides every row, column start and width."""
    divisor = math.gcd(*widths, *(stride for one in data for stride in (one.stride(0), one.stride(1))))
    widest = _ACCESS_BYTES // data[0].element_size()
    return min(divisor & -divisor, widest) if divisor else widest


class Shape(NamedTuple):
    """How a kernel cuts up its work: chosen by how much there is, never by a single size."""

    warps: int
    elements: int  # of one block of targets by columns
    columns: int  # at most, of one block: wide rows are walked through, searched for once


FEW = Shape(warps=1, elements=512, columns=512)  # every block to a program of its own: the shortest time
MANY = Shape(warps=1, elements=1024, columns=256)  # more targets a search: the most bytes a second


def stream_spec(data: Tensor, policy: Policy, lengths: Tensor | None, vector: int, shape: Shape) -> Spec:
    """What the kernel is compiled for: never a size but the width of a row, rounded to a power of two."""
    block_dim = min(triton.next_power_of_2(max(data.shape[2], 4)), shape.columns)
    block_target = max(1, min(64, shape.elements // block_dim))
    kind, outside = KINDS[type(policy)], OUTSIDE[policy.outside]
    return Spec(kind, outside, policy.max_gap is not None, lengths is not None, block_target, block_dim, vector)


def stream_numbers(data: Tensor, times: Tensor, policy: Policy, vector: int, first_column: int) -> tuple[int, ...]:
    """What the kernel is told at run time about one stream; `resample_block` reads them by position."""
    source, dim = data.shape[1:]
    if source > _LONGEST:
        raise ShapeError(f"a trajectory may have at most {_LONGEST} samples, got source={source}")
    limit = gap_limit(policy, times.dtype)
    gap_bits = 0 if limit is None else number_bits(limit, times.dtype)
    computed = torch.float64 if data.dtype == torch.float64 else torch.float32
    period_bits = number_bits(policy.period, computed) if isinstance(policy, Angle) else 0
    plain = (source, times.stride(0), first_step(source))
    strides = (data.stride(0) // vector, data.stride(1) // vector, dim // vector, first_column // vector)
    return (
        *map(runtime_number, plain),
        *runtime_halves(gap_bits),
        *runtime_halves(period_bits),
        *map(runtime_number, strides),
    )
