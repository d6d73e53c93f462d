"""A fuse on a GPU: one launch for all streams. Each program takes one row, one stream, one block of targets."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

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

    The tensors of later calls must agree with those it was made for in shape, stride, dtype and device.
    """

    def __init__(
        self,
        data: list[Tensor],
        times: list[Tensor],
        targets: Tensor,
        policies: list[Policy],
        lengths: list[Tensor | None],
        *,
        with_valid: bool,
    ) -> None:
        widths = [values.shape[2] for values in data]
        self._shape = (*targets.shape, sum(widths))
        self._dtype, self._device, self._with_valid = data[0].dtype, targets.device, with_valid
        self._streams, self._index = len(data), targets.get_device()
        self._needs_copies = not _is_readable(data, times, targets, lengths)
        data, times, targets, lengths = _readable(data, times, targets, lengths)
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
            streams = len(data)
            self._kernel = PreparedKernel(
                _fuse_kernel,
                targets.shape[0] * programs,
                (streams, streams, streams, 0, 0, 0),
                (targets.shape[1], targets.stride(0), column // vector, programs, tuple(numbers)),
                {"SPECS": tuple(specs), "WITH_VALID": with_valid, "num_warps": 1, "num_stages": 1},
            )

    def __call__(
        self, data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Data [B,T,sum D] and, if the plan was made with it, valid [B,T,streams]."""
        out = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        valid = None
        if self._with_valid:
            valid = torch.empty((*self._shape[:2], self._streams), dtype=torch.bool, device=self._device)
        if self._kernel is not None:
            tensors, pointers = self._arguments(data, times, targets, lengths, (out, valid))
            self._kernel.launch(tensors, pointers, self._index)
        return out, valid

    def bound(
        self,
        data: list[Tensor],
        times: list[Tensor],
        targets: Tensor,
        lengths: list[Tensor | None],
        into: tuple[Tensor, Tensor | None],
    ) -> Callable[[], object]:
        """A call without arguments that fuses what these tensors then hold, into `into`."""
        kernel, index = self._kernel, self._index
        if kernel is None:
            return lambda: None
        if self._needs_copies:
            return lambda: kernel.launch(*self._arguments(data, times, targets, lengths, into), index)
        return functools.partial(kernel.launch, *self._arguments(data, times, targets, lengths, into), index)

    def _arguments(
        self,
        data: list[Tensor],
        times: list[Tensor],
        targets: Tensor,
        lengths: list[Tensor | None],
        into: tuple[Tensor, Tensor | None],
    ) -> tuple[tuple[Tensor, ...], list[int]]:
        """The tensors that the kernel takes, and their pointers; those of absent ones are the targets'."""
        out, valid = into
        if self._needs_copies:
            data, times, targets, lengths = _readable(data, times, targets, lengths)
        counted = [targets if length is None else length for length in lengths]
        tensors = (*data, *times, *counted, targets, targets if valid is None else valid, out)
        to = targets.data_ptr()
        pointers = [one.data_ptr() for one in data]
        pointers += [one.data_ptr() for one in times]
        pointers += [to if length is None else length.data_ptr() for length in lengths]
        pointers += (to, to if valid is None else valid.data_ptr(), out.data_ptr())
        return tensors, pointers


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    out, valid = FusePlan(data, times, targets, policies, lengths, with_valid=True)(data, times, targets, lengths)
    assert valid is not None
    return out, valid


def _is_readable(data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]) -> bool:
    copies = zip((*data, *times, targets, *lengths), _flat(_readable(data, times, targets, lengths)), strict=True)
    return all(before is after for before, after in copies)


def _readable(
    data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
) -> tuple[list[Tensor], list[Tensor], Tensor, list[Tensor | None]]:
    """Last axes contiguous, as the kernel reads them; copies only where they are not."""
    counted = [None if length is None else length.contiguous() for length in lengths]
    values = [rows_contiguous(one) for one in data]
    return values, [rows_contiguous(stamps) for stamps in times], rows_contiguous(targets), counted


def _flat(parts: tuple[list[Tensor], list[Tensor], Tensor, list[Tensor | None]]) -> tuple[Tensor | None, ...]:
    data, times, targets, lengths = parts
    return (*data, *times, targets, *lengths)
