"""Device code: what one program does for one stream, and what it is told about it.

A program is one warp. It takes a block of targets, searches once for all columns, and then copies row after row.

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
from robocache.ops.triton_blend import IS_COMPILED, arithmetic, mixed, mixed_words
from robocache.ops.triton_search import (
    LINEAR,
    NEAREST,
    PREVIOUS,
    divide,
    find_neighbours,
    first_step,
    whole,
    whole_bits,
)
from robocache.policies import Angle, Policy

NUMBERS_PER_STREAM = 12
SEARCHED_TARGETS = 32  # in one program of one warp: each thread searches for one
COPIED = 512  # elements copied at once: a group of targets by columns
MOST_GROUPS = 8  # one after another in a program: more amortise the search, fewer finish together
PROGRAMS_PER_PROCESSOR = 8  # at least, before a program takes more than one group
SEARCHED = tl.constexpr(SEARCHED_TARGETS)
_LONGEST = 1 << 30  # stamps in a row: positions are int32, probes reach a little beyond the end
_ACCESS_BYTES = 16


class Spec(NamedTuple):
    """What one stream is compiled for."""

    kind: int
    outside: int
    has_gap: bool
    has_lengths: bool
    group: int
    block_dim: int
    vector: int


@triton.jit
def resample_block(
    data_ptr, times_ptr, lengths_ptr, target_row_ptr, out_row_ptr, valid_row_ptr,
    row, block, target_count, out_stride, valid_stride,
    numbers, AT: tl.constexpr, SPECS: tl.constexpr, SPEC_AT: tl.constexpr, WITH_VALID: tl.constexpr,
):  # fmt: skip
    """One stream, one row, one block of targets: each thread searches for one, then all copy group after group.

    `numbers` are those of `stream_numbers`, from position AT; `SPECS` the fields of a `Spec`, from SPEC_AT.
    """
    KIND: tl.constexpr = SPECS[SPEC_AT]
    OUTSIDE_RULE: tl.constexpr = SPECS[SPEC_AT + 1]
    HAS_GAP: tl.constexpr = SPECS[SPEC_AT + 2]
    HAS_LENGTHS: tl.constexpr = SPECS[SPEC_AT + 3]
    HOLDS: tl.constexpr = KIND == NEAREST or KIND == PREVIOUS
    GROUP: tl.constexpr = SPECS[SPEC_AT + 4]
    TYPE: tl.constexpr = data_ptr.dtype.element_ty
    # Numbers of 16 bits travel in pairs.
    IS_PAIRED: tl.constexpr = (
        IS_COMPILED and KIND == LINEAR and SPECS[SPEC_AT + 6] >= 2 and (tl.bfloat16 == TYPE or tl.float16 == TYPE)
    )
    if IS_PAIRED:
        data_ptr = data_ptr.to(tl.pointer_type(tl.int32))
        out_row_ptr = out_row_ptr.to(tl.pointer_type(tl.int32))
    BLOCK_DIM: tl.constexpr = SPECS[SPEC_AT + 5] // 2 if IS_PAIRED else SPECS[SPEC_AT + 5]
    VECTOR: tl.constexpr = SPECS[SPEC_AT + 6] // 2 if IS_PAIRED else SPECS[SPEC_AT + 6]
    count = whole(numbers[AT]).to(tl.int32)
    if HAS_LENGTHS:
        length = tl.load(lengths_ptr + row).to(tl.int32)
        count = tl.minimum(tl.maximum(length, 0), count)
    times_ptr += row * whole(numbers[AT + 1])
    data_ptr += row * whole(numbers[AT + 7]) * VECTOR
    out_row_ptr += whole(numbers[AT + 10]) * VECTOR
    block_targets = whole(numbers[AT + 11]).to(tl.int32)
    start = block * block_targets
    end = tl.minimum(start + block_targets, target_count)
    target = start + tl.arange(0, SEARCHED)
    in_block = target < end
    wanted = tl.load(target_row_ptr + target, mask=in_block, other=0)
    search_step = whole(numbers[AT + 2]).to(tl.int32)
    gap_bits = whole_bits(numbers[AT + 3], numbers[AT + 4])
    low, high, time_low, time_high, is_single, is_filled, valid = find_neighbours(
        times_ptr, count, wanted, search_step, gap_bits, KIND, OUTSIDE_RULE, HAS_GAP
    )
    if WITH_VALID:
        tl.store(valid_row_ptr + target.to(tl.int64) * valid_stride, valid.to(tl.int8), mask=in_block)

    # Few numbers a target go on to the threads that copy its columns: a weight of 0 stands for the one sample that is
    # the value itself, a NaN weight for no value.
    low = tl.where(is_filled, 0, low)
    high = tl.where(is_filled, 0, high)
    if HOLDS:
        weight = tl.where(is_filled, float("nan"), 0.0)
    else:
        span = arithmetic(tl.where(is_single, 1, time_high - time_low), data_ptr)
        weight = divide(arithmetic(tl.where(is_single, 0, wanted - time_low), data_ptr), span)
        if KIND == LINEAR:
            # From the nearer end, so that the far end's rounding does not show close to a stamp.
            is_later = weight >= 0.5
            low, high = tl.where(is_later, high, low), tl.where(is_later, low, high)
            weight = tl.where(is_later, 1 - weight, weight)
        weight = tl.where(is_filled, float("nan"), weight)
    sample_stride = whole(numbers[AT + 8])
    period_bits = whole_bits(numbers[AT + 5], numbers[AT + 6])
    dim = whole(numbers[AT + 9]).to(tl.int32) * VECTOR
    members = end - start
    # Always one step ahead: what is stored has been on its way for a whole step.
    value_low, value_high, share = _read(
        data_ptr, low, high, weight, 0, 0, members, dim, sample_stride, HOLDS, GROUP, BLOCK_DIM, VECTOR
    )
    first, first_column = 0, 0
    while first < members:
        is_last = first_column + BLOCK_DIM >= dim
        next_first = tl.where(is_last, first + GROUP, first)
        next_column = tl.where(is_last, 0, first_column + BLOCK_DIM)
        next_low, next_high, next_share = _read(
            data_ptr, low, high, weight, next_first, next_column, members, dim, sample_stride,
            HOLDS, GROUP, BLOCK_DIM, VECTOR,
        )  # fmt: skip
        if HOLDS:
            if value_low.dtype.is_floating():
                value = tl.where(share == share, arithmetic(value_low, data_ptr), float("nan"))
            else:
                value = tl.where(share == share, value_low, 0)
        elif IS_PAIRED:
            value = mixed_words(value_low, value_high, share, TYPE)
        else:
            value_low, value_high = arithmetic(value_low, data_ptr), arithmetic(value_high, data_ptr)
            between = mixed(value_low, value_high, share, period_bits, KIND, GROUP, BLOCK_DIM)
            value = tl.where(share == 0, value_low, between)
        member = first + tl.arange(0, GROUP)[:, None]
        column = first_column + tl.arange(0, BLOCK_DIM)[None, :]
        to_ptr = out_row_ptr + (start + member).to(tl.int64) * out_stride * VECTOR + column
        tl.store(to_ptr, value.to(to_ptr.dtype.element_ty), mask=(member < members) & (column < dim))
        value_low, value_high, share = next_low, next_high, next_share
        first, first_column = next_first, next_column


@triton.jit
def _read(
    data_ptr, low, high, weight, first, first_column, members, dim, sample_stride,
    HOLDS: tl.constexpr, GROUP: tl.constexpr, BLOCK_DIM: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The two samples of each target of a group, so many columns of them, and their weight; past the end anything."""
    member = first + tl.arange(0, GROUP)
    column = first_column + tl.arange(0, BLOCK_DIM)[None, :]
    # Masked here, masked in the store: it may be anything, and zeros would cost an instruction a word.
    mask = (member < members)[:, None] & (column < dim)
    member = tl.minimum(member, SEARCHED - 1)
    low_ptr = data_ptr + _of_group(low, member, GROUP).to(tl.int64) * sample_stride * VECTOR
    value_low = tl.load(low_ptr + column, mask=mask)
    value_high = value_low
    if not HOLDS:
        high_ptr = data_ptr + _of_group(high, member, GROUP).to(tl.int64) * sample_stride * VECTOR
        value_high = tl.load(high_ptr + column, mask=mask)
    return value_low, value_high, _of_group(weight, member, GROUP)


@triton.jit
def _of_group(values, member, GROUP: tl.constexpr):
    """What each thread found, brought to all threads that copy for it: [group, 1]."""
    if GROUP == SEARCHED:
        found = values
    else:
        found = tl.gather(values, member, 0)
    return found[:, None]


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is contiguous (expanded and sliced ones too), else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def vector_elements(data: list[Tensor], *widths: int) -> int:
    """How many elements one access may take: a power of two that divides every row, column start and width."""
    divisor = math.gcd(*widths, *(stride for one in data for stride in (one.stride(0), one.stride(1))))
    widest = _ACCESS_BYTES // data[0].element_size()
    return min(divisor & -divisor, widest) if divisor else widest


def stream_spec(data: Tensor, policy: Policy, lengths: Tensor | None, vector: int) -> Spec:
    """What the kernel is compiled for: never a size but the width of a row, rounded to a power of two."""
    block_dim = min(triton.next_power_of_2(max(data.shape[2], 4)), COPIED)
    group = min(SEARCHED_TARGETS, COPIED // block_dim)
    kind, outside = KINDS[type(policy)], OUTSIDE[policy.outside]
    return Spec(kind, outside, policy.max_gap is not None, lengths is not None, group, block_dim, vector)


def targets_per_program(targets: Tensor, group: int) -> int:
    """As many as one program can search for at once, but few enough that all programs together fill the GPU."""
    batch, target = targets.shape
    fill = _processors(targets.device) * PROGRAMS_PER_PROCESSOR
    most = min(MOST_GROUPS * group, SEARCHED_TARGETS)
    wanted = min(max(batch * target // fill, 1), most, target)
    even = triton.cdiv(target, triton.cdiv(target, wanted))  # rather 25 and 25 than 32 and 18
    return min(triton.cdiv(even, group) * group, SEARCHED_TARGETS)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def stream_numbers(
    data: Tensor, times: Tensor, policy: Policy, vector: int, placed: tuple[int, int]
) -> tuple[int, ...]:
    """What the kernel is told at run time about one stream; `resample_block` reads them by position.

    `placed` says the stream's first column in the result, and how many targets a program takes.
    """
    first_column, block_targets = placed
    source, dim = data.shape[1:]
    if source > _LONGEST:
        raise ShapeError(f"a trajectory may have at most {_LONGEST} samples, got source={source}")
    limit = gap_limit(policy, times.dtype)
    gap_bits = 0 if limit is None else number_bits(limit, times.dtype)
    computed = torch.float64 if data.dtype == torch.float64 else torch.float32
    period_bits = number_bits(policy.period, computed) if isinstance(policy, Angle) else 0
    plain = (source, times.stride(0), first_step(source))
    strides = (data.stride(0) // vector, data.stride(1) // vector, dim // vector, first_column // vector)
    strides = (*strides, block_targets)
    return (
        *map(runtime_number, plain),
        *runtime_halves(gap_bits),
        *runtime_halves(period_bits),
        *map(runtime_number, strides),
    )
