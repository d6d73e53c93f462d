"""A fuse on a GPU: one launch for all streams. Each program takes one row, one stream, one block of targets."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from robocache.ops.resample_trajectories.triton_kernel import (
    NUMBERS_PER_STREAM,
    WARPS,
    Spec,
    as_bytes,
    resample_block,
    rows_contiguous,
    stream_numbers,
    stream_spec,
    vector_elements,
)
from robocache.policies import Policy

_NUMBERS, _FIELDS = tl.constexpr(NUMBERS_PER_STREAM), tl.constexpr(len(Spec._fields))


@triton.jit(do_not_specialize=["target_count", "target_stride", "out_stride", "blocks"])
def _fuse_kernel(
    data_ptrs, times_ptrs, lengths_ptrs, target_ptr, out_ptr, valid_ptr,
    target_count, target_stride, out_stride, blocks, numbers, SPECS: tl.constexpr,
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
                numbers, stream * _NUMBERS, SPECS, stream * _FIELDS,
            )  # fmt: skip
        block -= stream_blocks


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    batch, target_count = targets.shape
    widths = [values.shape[2] for values in data]
    out = data[0].new_empty(batch, target_count, sum(widths))
    valid = targets.new_empty(batch, target_count, len(data), dtype=torch.bool)
    if batch == 0 or target_count == 0:
        return out, valid
    data = [rows_contiguous(values) for values in data]
    times = [rows_contiguous(stamps) for stamps in times]
    targets = rows_contiguous(targets)
    vector = vector_elements(out, data, *widths)
    specs: list[int] = []
    numbers: list[int] = []
    blocks = column = 0
    for values, stamps, policy, length in zip(data, times, policies, lengths, strict=True):
        spec = stream_spec(values, policy, length, vector)
        specs += spec
        numbers += stream_numbers(values, stamps, policy, vector, column)
        blocks += triton.cdiv(target_count, spec.block_target)
        column += values.shape[2]
    with torch.cuda.device_of(out):  # Triton launches on the current device, not the tensors'
        _fuse_kernel[(batch * blocks,)](
            tuple(as_bytes(values) for values in data), tuple(times),
            tuple(targets if length is None else length.contiguous() for length in lengths),
            targets, as_bytes(out), as_bytes(valid),
            target_count, targets.stride(0), column // vector, blocks, tuple(numbers),
            SPECS=tuple(specs), num_warps=WARPS,
        )  # fmt: skip
    return out, valid
