"""`resample_trajectories` in the compiled CPU library, and the call that a fuse shares: one for all streams."""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor

from robocache.ops.limits import KINDS, OUTSIDE, gap_limit
from robocache.ops.native_library import DTYPES, TIME_DTYPES, is_readable, library, readable
from robocache.policies import Policy

_CALL_FIELDS = 10
_STREAM_FIELDS = 15


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]."""
    out, valid = StreamsPlan([data], [times], targets, [policy])([data], [times], targets, [lengths])
    return out, valid.view(targets.shape)


class StreamsPlan:
    """Everything about a call but its addresses, for streams of these shapes, strides and dtypes.

    Args:
        data: [B,S,D] for each stream.
        times: [B,S] for each stream.
        targets: [B,T].
        policies: One for each stream.
    """

    def __init__(self, data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy]) -> None:
        self._policies = policies
        self._width = sum(one.shape[2] for one in data)
        # As the library will read them: where that takes a copy, the copies' strides.
        targets, data, times = readable(targets), [readable(one) for one in data], [readable(one) for one in times]
        stride = targets.stride(0) * targets.element_size()
        dtypes = (DTYPES[data[0].dtype], TIME_DTYPES[targets.dtype])
        self._numbers: list[float] = [0, 0, 0, *targets.shape, stride, *dtypes, 0, len(data)]
        layout = "@10q"
        for one, stamps, policy in zip(data, times, policies, strict=True):
            self._numbers += _stream_numbers(one, stamps, policy)
            layout += "14qd" if stamps.dtype == torch.int64 else "13q2d"
        self._pack = struct.Struct(layout).pack

    def __call__(
        self, data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Data [B,T,sum D] and valid [B,T,streams] of tensors like those that the plan was made for."""
        if not all(map(is_readable, (targets, *data, *times))):
            # Named, so that the copies live until the call is over.
            targets, data, times = readable(targets), [readable(one) for one in data], [readable(one) for one in times]
            return StreamsPlan(data, times, targets, self._policies)(data, times, targets, lengths)
        out = torch.empty((*targets.shape, self._width), dtype=data[0].dtype)
        valid = torch.empty((*targets.shape, len(data)), dtype=torch.bool)
        numbers: list[Any] = self._numbers.copy()
        numbers[:3] = targets.data_ptr(), out.data_ptr(), valid.data_ptr()
        numbers[8] = torch.get_num_threads()
        at = _CALL_FIELDS
        for one, stamps, length in zip(data, times, lengths, strict=True):
            numbers[at] = one.data_ptr()
            numbers[at + 1] = stamps.data_ptr()
            if length is not None:
                numbers[at + 2] = length.data_ptr()
                numbers[at + 8] = length.stride(0) * length.element_size()
                numbers[at + 9] = length.dtype == torch.int64
            at += _STREAM_FIELDS
        library().robocache_resample(self._pack(*numbers))
        return out, valid


def _stream_numbers(data: Tensor, times: Tensor, policy: Policy) -> list[float]:
    """The fields of one stream, addresses and lengths left open."""
    batch_stride, row_stride, _ = data.stride()
    item, limit = data.element_size(), gap_limit(policy, times.dtype)
    strides = [batch_stride * item, row_stride * item, times.stride(0) * times.element_size()]
    gap = [limit is not None, limit or 0]
    rules = [KINDS[type(policy)], OUTSIDE[policy.outside], *gap, getattr(policy, "period", 0.0)]
    return [0, 0, 0, *data.shape[1:], *strides, 0, 0, *rules]
