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
_Stream = tuple[Tensor, Tensor, Policy, Tensor | None]


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]."""
    out, valid = resample_streams([(data, times, policy, lengths)], targets)
    return out, valid.view(targets.shape)


def resample_streams(streams: list[_Stream], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Streams of [B,S,D] and [B,S] side by side on targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    batch, target = targets.shape
    targets = readable(targets)
    readable_streams = [(readable(data), readable(times), policy, lengths) for data, times, policy, lengths in streams]
    width = sum(data.shape[2] for data, _, _, _ in streams)
    dtype = streams[0][0].dtype
    out = torch.empty((batch, target, width), dtype=dtype)
    valid = torch.empty((batch, target, len(streams)), dtype=torch.bool)
    call = _CALL.pack(
        targets.data_ptr(),
        out.data_ptr(),
        valid.data_ptr(),
        batch,
        target,
        targets.stride(0) * targets.element_size(),
        DTYPES[dtype],
        TIME_DTYPES[targets.dtype],
        torch.get_num_threads(),
        len(streams),
    )
    library().robocache_resample(b"".join([call, *map(_packed, readable_streams)]))
    return out, valid


def _packed(stream: _Stream) -> bytes:
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
