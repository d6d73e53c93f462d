"""A fuse on a GPU: one launch for all streams. Each program takes one row, one stream, one block of targets."""

from __future__ import annotations

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
    vector_elements,
)
from robocache.policies import Policy

WARPS = 4
_NUMBERS, _FIELDS = tl.constexpr(NUMBERS_PER_STREAM), tl.constexpr(len(Spec._fields))


@triton.jit(do_not_specialize=["target_count", "target_stride", "out_stride", "blocks"])
def _fuse_kernel(
    data_ptrs, times_ptrs, lengths_ptrs, target_ptr, valid_ptr, out_ptr,
    target_count, target_stride, out_stride, blocks, numbers, SPECS: tl.constexpr, WITH_VALID: tl.constexpr,
):  # fmt: skip
    # int64 for everything that becomes an address: results pass 2**31 elements.
    row = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    out_row = row * target_count
    STREAMS: tl.constexpr = len(data_ptrs)
    for stream in tl.static_range(STREAMS):
        stream_blocks = tl.cdiv(target_count, SPECS[stream * _FIELDS + 4])
        if (block >= 0) & (block < stream_blocks):
            resample_block(
                data_ptrs[stream], times_ptrs[stream], lengths_ptrs[stream], target_ptr + row * target_stride,
                out_ptr + out_row * out_stride * SPECS[stream * _FIELDS + 6], valid_ptr + out_row * STREAMS + stream,
                row, block * SPECS[stream * _FIELDS + 4], target_count, out_stride, STREAMS,
                numbers, stream * _NUMBERS, SPECS, stream * _FIELDS, WITH_VALID,
            )  # fmt: skip
        block -= stream_blocks


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
        self._streams = len(data)
        data, times, targets, lengths = self._readable(data, times, targets, lengths)
        vector = vector_elements(data, *widths)
        specs: list[int] = []
        numbers: list[int] = []
        blocks = column = 0
        for values, stamps, policy, length in zip(data, times, policies, lengths, strict=True):
            spec = stream_spec(values, policy, length, vector)
            specs += spec
            numbers += stream_numbers(values, stamps, policy, vector, column)
            blocks += triton.cdiv(targets.shape[1], spec.block_target)
            column += values.shape[2]
        self._kernel = None
        if targets.numel():
            streams = len(data)
            self._kernel = PreparedKernel(
                _fuse_kernel,
                targets.shape[0] * blocks,
                (streams, streams, streams, 0, 0, 0),
                (targets.shape[1], targets.stride(0), column // vector, blocks, tuple(numbers)),
                {"SPECS": tuple(specs), "WITH_VALID": with_valid, "num_warps": WARPS},
            )

    def _readable(
        self, data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[list[Tensor], list[Tensor], Tensor, list[Tensor | None]]:
        readable = [None if length is None else length.contiguous() for length in lengths]
        whole = [rows_contiguous(values) for values in data]
        return whole, [rows_contiguous(stamps) for stamps in times], rows_contiguous(targets), readable

    def __call__(
        self, data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Data [B,T,sum D] and, if the plan was made with it, valid [B,T,streams]."""
        out = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        valid = None
        if self._with_valid:
            valid = torch.empty((*self._shape[:2], self._streams), dtype=torch.bool, device=self._device)
        if self._kernel is not None:
            data, times, targets, lengths = self._readable(data, times, targets, lengths)
            counted = [targets if length is None else length for length in lengths]
            self._kernel(*data, *times, *counted, targets, out if valid is None else valid, out)
        return out, valid


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    out, valid = FusePlan(data, times, targets, policies, lengths, with_valid=True)(data, times, targets, lengths)
    assert valid is not None
    return out, valid
