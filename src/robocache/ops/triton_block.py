"""Device code: what one program does for one stream, and what it is told about it.

A program takes a block of targets and searches once for all columns.

Nothing is specialised on batch, source, target or any stride: training on ragged data must not compile in the middle
of an epoch. What the compiler needs to know for wide accesses, that rows and columns are multiples of `VECTOR`
elements, is said by passing the sizes divided by it.
"""

from __future__ import annotations

import functools
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

ELEMENTS_PER_PROGRAM = 2048
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
    row, first_target, target_count, out_stride, valid_stride,
    numbers, AT: tl.constexpr, SPECS: tl.constexpr, SPEC_AT: tl.constexpr,
    WITH_VALID: tl.constexpr,
):  # fmt: skip
    """One stream, one row, one block of targets.

    `numbers` are those of `stream_numbers`, from position AT; `SPECS` the fields of a `Spec`, from SPEC_AT.
    """
    KIND: tl.constexpr = SPECS[SPEC_AT]
    OUTSIDE_RULE: tl.constexpr = SPECS[SPEC_AT + 1]
    HAS_GAP: tl.constexpr = SPECS[SPEC_AT + 2]
    HAS_LENGTHS: tl.constexpr = SPECS[SPEC_AT + 3]
    BLOCK_TARGET: tl.constexpr = SPECS[SPEC_AT + 4]
    BLOCK_DIM: tl.constexpr = SPECS[SPEC_AT + 5]
    VECTOR: tl.constexpr = SPECS[SPEC_AT + 6]
    target = first_target + tl.arange(0, BLOCK_TARGET)
    in_target = target < target_count
    wanted = tl.load(target_row_ptr + target, mask=in_target, other=0)
    count = whole(numbers[AT]).to(tl.int32)
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + row).to(tl.int32)
        count = tl.minimum(tl.maximum(length, 0), count)
    times_ptr += row * whole(numbers[AT + 1])
    search_step = whole(numbers[AT + 2]).to(tl.int32)
    gap_bits = whole_bits(numbers[AT + 3], numbers[AT + 4])
    low, high, time_low, time_high, is_single, is_filled, valid = find_neighbours(
        times_ptr, count, wanted, search_step, gap_bits, KIND, OUTSIDE_RULE, HAS_GAP
    )
    if WITH_VALID:
        tl.store(valid_row_ptr + target.to(tl.int64) * valid_stride, valid.to(tl.int8), mask=in_target)

    period_bits = whole_bits(numbers[AT + 5], numbers[AT + 6])
    data_ptr += row * whole(numbers[AT + 7]) * VECTOR
    sample_stride = whole(numbers[AT + 8])
    dim = whole(numbers[AT + 9]).to(tl.int32) * VECTOR
    out_row_ptr += whole(numbers[AT + 10]) * VECTOR
    low_ptr = data_ptr + (low.to(tl.int64) * sample_stride * VECTOR)[:, None]
    high_ptr = data_ptr + (high.to(tl.int64) * sample_stride * VECTOR)[:, None]
    out_ptr = out_row_ptr + (target.to(tl.int64) * out_stride * VECTOR)[:, None]
    has_low = in_target & ~is_filled
    if KIND != NEAREST and KIND != PREVIOUS:
        span = arithmetic(tl.where(is_single, 1, time_high - time_low), data_ptr)
        weight = divide(arithmetic(tl.where(is_single, 0, wanted - time_low), data_ptr), span)[:, None]
        has_high = has_low & ~is_single
    for start in range(0, dim, BLOCK_DIM):
        column = start + tl.arange(0, BLOCK_DIM)[None, :]
        in_dim = column < dim
        value = tl.load(low_ptr + column, mask=has_low[:, None] & in_dim, other=0)
        if KIND != NEAREST and KIND != PREVIOUS:
            value_low = arithmetic(value, data_ptr)
            value_high = arithmetic(tl.load(high_ptr + column, mask=has_high[:, None] & in_dim, other=0), data_ptr)
            between = mixed(value_low, value_high, weight, period_bits, KIND, BLOCK_TARGET, BLOCK_DIM)
            between = tl.where(is_single[:, None], value_low, between)
            value = tl.where(is_filled[:, None], float("nan"), between)
        elif value.dtype.is_floating():
            value = tl.where(is_filled[:, None], float("nan"), arithmetic(value, data_ptr))
        tl.store(out_ptr + column, value.to(out_ptr.dtype.element_ty), mask=in_target[:, None] & in_dim)


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is contiguous (expanded and sliced ones too), else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def vector_elements(data: list[Tensor], *widths: int) -> int:
    """How many elements one access may take: a power of two that divides every row, column start and width."""
    divisor = math.gcd(*widths, *(stride for one in data for stride in (one.stride(0), one.stride(1))))
    widest = _ACCESS_BYTES // data[0].element_size()
    return min(divisor & -divisor, widest) if divisor else widest


@functools.lru_cache(maxsize=512)
def _blocks(dim: int) -> tuple[int, int]:
    block_dim = min(triton.next_power_of_2(max(dim, 4)), 512)
    return max(1, min(64, ELEMENTS_PER_PROGRAM // block_dim)), block_dim


def stream_spec(data: Tensor, policy: Policy, lengths: Tensor | None, vector: int) -> Spec:
    """What the kernel is compiled for: never a size but the width of a row, rounded to a power of two."""
    block_target, block_dim = _blocks(data.shape[2])
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
