"""`resample_trajectories` in the compiled CPU library, and the call that a fuse shares: one for all streams."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from robocache.ops.limits import KINDS, OUTSIDE, gap_limit
from robocache.ops.native_library import DTYPES, TIME_DTYPES, library, readable
from robocache.policies import Policy

_CALL = struct.Struct("@10q")
_STREAM = struct.Struct("@14qd")
_STREAM_REAL = struct.Struct("@13qdd")  # the gap limit of floating times
NativeStream = tuple[Tensor, Tensor, Policy, Tensor | None]


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]."""
    out = torch.empty((*targets.shape, data.shape[2]), dtype=data.dtype)
    valid = torch.empty(targets.shape, dtype=torch.bool)
    resample_into(out, valid, [(data, times, policy, lengths)], targets)
    return out, valid


def resample_into(out: Tensor, valid: Tensor, streams: list[NativeStream], targets: Tensor) -> None:
    """Streams of [B,S,D] and [B,S] side by side on targets [B,T], into [B,T,sum D] and [B,T,streams], contiguous."""
    targets = readable(targets)
    # Copies, where there are any, must live until the call is over.
    readable_streams = [(readable(data), readable(times), policy, lengths) for data, times, policy, lengths in streams]
    call = _CALL.pack(
        targets.data_ptr(),
        out.data_ptr(),
        valid.data_ptr(),
        *targets.shape,
        targets.stride(0) * targets.element_size(),
        DTYPES[out.dtype],
        TIME_DTYPES[targets.dtype],
        torch.get_num_threads(),
        len(streams),
    )
    library().robocache_resample(b"".join([call, *map(_packed, readable_streams)]))


def _packed(stream: NativeStream) -> bytes:
    data, times, policy, lengths = stream
    batch_stride, row_stride, _ = data.stride()
    item, is_int = data.element_size(), times.dtype == torch.int64
    limit = gap_limit(policy, times.dtype)
    return (_STREAM if is_int else _STREAM_REAL).pack(
        data.data_ptr(),
        times.data_ptr(),
        0 if lengths is None else lengths.data_ptr(),
        data.shape[1],
        data.shape[2],
        batch_stride * item,
        row_stride * item,
        times.stride(0) * times.element_size(),
        0 if lengths is None else lengths.stride(0) * lengths.element_size(),
        lengths is not None and lengths.dtype == torch.int64,
        KINDS[type(policy)],
        OUTSIDE[policy.outside],
        limit is not None,
        limit or 0,
        getattr(policy, "period", 0.0),
    )
