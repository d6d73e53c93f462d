"""A fuse on a GPU: one launch for all streams. Each program takes one row, one stream, one block of targets."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.allocation import allocator
from robocache.ops.launch import PreparedKernel
from robocache.ops.triton_block import (
    NUMBERS_PER_STREAM,
    Spec,
    resample_block,
    rows_contiguous,
    stream_numbers,
    stream_spec,
    targets_per_program,
    vector_elements,
)
from robocache.ops.triton_search import whole
from robocache.policies import Policy

_NUMBERS, _FIELDS = tl.constexpr(NUMBERS_PER_STREAM), tl.constexpr(len(Spec._fields))
_BLOCK_TARGETS = tl.constexpr(NUMBERS_PER_STREAM - 1)  # the last of a stream's numbers


@triton.jit(do_not_specialize=["target_count", "target_stride", "out_stride", "programs"])
def _fuse_kernel(
    data_ptrs, times_ptrs, lengths_ptrs, target_ptr, valid_ptr, out_ptr,
    target_count, target_stride, out_stride, programs, numbers,
    SPECS: tl.constexpr, WITH_VALID: tl.constexpr,
):  # fmt: skip
    # int64 for everything that becomes an address: results pass 2**31 elements.
    row = (tl.program_id(0) // programs).to(tl.int64)
    program = tl.program_id(0) % programs
    out_row = row * target_count
    STREAMS: tl.constexpr = len(data_ptrs)
    for stream in tl.static_range(STREAMS):
        stream_programs = tl.cdiv(target_count, whole(numbers[stream * _NUMBERS + _BLOCK_TARGETS]).to(tl.int32))
        if (program >= 0) & (program < stream_programs):
            resample_block(
                data_ptrs[stream], times_ptrs[stream], lengths_ptrs[stream], target_ptr + row * target_stride,
                out_ptr + out_row * out_stride * SPECS[stream * _FIELDS + 6], valid_ptr + out_row * STREAMS + stream,
                row, program, target_count, out_stride, STREAMS,
                numbers, stream * _NUMBERS, SPECS, stream * _FIELDS, WITH_VALID,
            )  # fmt: skip
        program -= stream_programs


class FusePlan:
    """Everything about a fuse but its pointers: made once for a set of shapes, then only launched.

    The tensors of later calls must agree with those it was made for in shape, stride, dtype and device, and in which
    of the lengths are absent. With `is_one` there is one stream, and valid is [B,T] instead of [B,T,1].
    """

    def __init__(
        self,
        data: Sequence[Tensor],
        times: Sequence[Tensor],
        targets: Tensor,
        policies: Sequence[Policy],
        lengths: Sequence[Tensor | None],
        *,
        with_valid: bool,
        is_one: bool = False,
    ) -> None:
        widths, streams, self._index = [values.shape[2] for values in data], len(data), targets.get_device()
        shape = (*targets.shape, sum(widths))
        valid_shape = shape[:2] if is_one else (*shape[:2], streams)
        self._new_out = allocator(shape, data[0].dtype, targets.device)
        self._new_valid = allocator(valid_shape, torch.bool, targets.device) if with_valid else None
        self._order = _kernel_order(lengths, with_valid=with_valid)
        tensors = flat(data, times, targets, lengths)
        read = _readable(tensors)
        self._needs_copies = any(before is not after for before, after in zip(tensors, read, strict=True))
        data, times, targets = read[:streams], read[streams : 2 * streams], read[2 * streams]
        vector = vector_elements(data, *widths)
        specs: list[int] = []
        numbers: list[int] = []
        programs = column = 0
        for values, stamps, policy, length in zip(data, times, policies, lengths, strict=True):
            spec = stream_spec(values, policy, length, vector)
            block_targets = targets_per_program(targets, spec.group) if targets.numel() else 1
            specs += spec
            numbers += stream_numbers(values, stamps, policy, vector, (column, block_targets))
            programs += triton.cdiv(targets.shape[1], block_targets)
            column += values.shape[2]
        self._kernel = None
        if targets.numel():
            self._kernel = PreparedKernel(
                _fuse_kernel,
                targets.shape[0] * programs,
                (streams, streams, streams, 0, 0, 0),
                (targets.shape[1], targets.stride(0), column // vector, programs, tuple(numbers)),
                {"SPECS": tuple(specs), "WITH_VALID": with_valid, "num_warps": 1, "num_stages": 1},
            )

    def __call__(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """Data [B,T,sum D] and, if the plan was made with it, valid [B,T,streams].

        Args:
            tensors: As `flat` lays them out.
        """
        out = self._new_out()
        valid = None if self._new_valid is None else self._new_valid()
        kernel = self._kernel
        if kernel is not None:
            if self._needs_copies:
                tensors = _readable(tensors)
            ordered = self._order(tensors + ((out,) if valid is None else (out, valid)))
            if not kernel.relaunch(ordered, self._index):
                kernel.launch(ordered, self._index)
        return out, valid

    def bound(self, tensors: tuple[Tensor, ...], into: tuple[Tensor, Tensor]) -> Callable[[], object]:
        """A call without arguments that fuses what these tensors then hold, into `into`."""
        kernel, index, order = self._kernel, self._index, self._order
        if kernel is None:
            return lambda: None

        def launch() -> None:
            kernel(*order((*_readable(tensors), *into)))

        if self._needs_copies:
            return launch
        taken = order((*tensors, *into))
        pointers, relaunch = tuple(map(Tensor.data_ptr, taken)), kernel.relaunch

        def again() -> None:
            if not relaunch(pointers, index):
                kernel.launch(taken, index)

        return again


def flat(
    data: Sequence[Tensor], times: Sequence[Tensor], targets: Tensor, lengths: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """The tensors of a fuse in one row: all data, all times, the targets, the lengths that there are."""
    return (*data, *times, targets, *(length for length in lengths if length is not None))


def _kernel_order(lengths: Sequence[Tensor | None], *, with_valid: bool) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """From the flat row, with the result and valid at its end, to the kernel's order.

    Lengths and a valid that are not there become the targets, which the kernel then does not touch.
    """
    targets = 2 * len(lengths)
    places, at = [*range(targets)], targets + 1
    for length in lengths:
        places.append(targets if length is None else at)
        at += length is not None
    return operator.itemgetter(*places, targets, at + 1 if with_valid else targets, at)


def _readable(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Last axes contiguous, as the kernel reads them; copies only where they are not."""
    return tuple(map(rows_contiguous, tensors))


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    plan = FusePlan(data, times, targets, policies, lengths, with_valid=True)
    out, valid = plan(flat(data, times, targets, lengths))
    assert valid is not None
    return out, valid
