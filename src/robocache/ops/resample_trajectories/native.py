"""`resample_trajectories` in the compiled CPU library, and the call that a fuse shares: one for all streams."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from robocache.ops.allocation import allocator
from robocache.ops.direct_launch import QUICK
from robocache.ops.limits import KINDS, OUTSIDE, gap_limit
from robocache.ops.native_library import DTYPES, TIME_DTYPES, is_readable, library, readable
from robocache.policies import Policy

_CALL_FIELDS = 10
_STREAM_FIELDS = 15
_TARGETS, _OUT, _VALID, _THREADS = 0, 1, 2, 8  # fields of a call; data and times are the first two of a stream
_pointer, _is_negative = Tensor.data_ptr, Tensor.is_neg


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
        given = (targets, *data, *times)
        # As the library will read them: where that takes a copy, the copies' strides.
        targets, data, times = readable(targets), [readable(one) for one in data], [readable(one) for one in times]
        taken = (targets, *data, *times)
        self._needs_copies = any(one is not other for one, other in zip(given, taken, strict=True))
        self._items = max(one.element_size() for one in taken) - 1  # a mask: sizes are powers of two
        stride = targets.stride(0) * targets.element_size()
        dtypes = (DTYPES[data[0].dtype], TIME_DTYPES[targets.dtype])
        numbers: list[float] = [0, 0, 0, *targets.shape, stride, *dtypes, 0, len(data)]
        layout = "@10q"
        for one, stamps, policy in zip(data, times, policies, strict=True):
            numbers += _stream_numbers(one, stamps, policy)
            layout += "14qd" if stamps.dtype == torch.int64 else "13q2d"
        self._call = struct.pack(layout, *numbers)
        shape = tuple(targets.shape)
        self._new_out = allocator((*shape, sum(one.shape[2] for one in data)), data[0].dtype, targets.device)
        self._new_valid = allocator((*shape, len(data)), torch.bool, targets.device)
        self._quick = None if self._needs_copies else _quick_call(self._call, len(data), self._items)

    def call(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor] | None:
        """The same for (*data, *times, targets) without lengths; None where that takes the long way."""
        if self._quick is None:
            return None
        out, valid = self._new_out(), self._new_valid()
        return (out, valid) if self._quick((*tensors, out, valid)) else None

    def __call__(
        self, data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Data [B,T,sum D] and valid [B,T,streams] of tensors like those that the plan was made for."""
        given = (targets, *data, *times)
        pointers = [*map(_pointer, given)]
        together = 0
        for pointer in pointers:
            together |= pointer
        may_need_copies = self._needs_copies or together & self._items or any(map(_is_negative, given))
        if may_need_copies and not all(map(is_readable, given)):
            # Named, so that the copies live until the call is over.
            targets, data, times = readable(targets), [readable(one) for one in data], [readable(one) for one in times]
            return StreamsPlan(data, times, targets, self._policies)(data, times, targets, lengths)
        out, valid = self._new_out(), self._new_valid()
        fields = bytearray(self._call)
        numbers = memoryview(fields).cast("q")
        numbers[_TARGETS], numbers[_OUT], numbers[_VALID] = pointers[0], _pointer(out), _pointer(valid)
        numbers[_THREADS] = torch.get_num_threads()
        at, count = _CALL_FIELDS, len(data)
        for stream, length in enumerate(lengths, 1):
            numbers[at], numbers[at + 1] = pointers[stream], pointers[stream + count]
            if length is not None:
                numbers[at + 2] = length.data_ptr()
                numbers[at + 8] = length.stride(0) * length.element_size()
                numbers[at + 9] = length.dtype == torch.int64
            at += _STREAM_FIELDS
        library().robocache_resample(bytes(fields))
        return out, valid


def _quick_call(fields: bytes, streams: int, mask: int) -> Callable[[tuple[Tensor, ...]], bool] | None:
    """The call in C, where that could be built and has room for so many streams."""
    if QUICK is None or len(fields) > 8 * QUICK.MOST_FIELDS:
        return None
    address = ctypes.cast(library().robocache_resample, ctypes.c_void_p).value
    firsts = [_CALL_FIELDS + _STREAM_FIELDS * stream for stream in range(streams)]
    places = (*firsts, *(first + 1 for first in firsts), _TARGETS, _OUT, _VALID)
    asked = (_pointer, _is_negative, torch.get_num_threads)
    made: Callable[[tuple[Tensor, ...]], bool] = QUICK.HostCall(address, fields, places, _THREADS, mask, asked)
    return made


def _stream_numbers(data: Tensor, times: Tensor, policy: Policy) -> list[float]:
    """The fields of one stream, addresses and lengths left open."""
    batch_stride, row_stride, _ = data.stride()
    item, limit = data.element_size(), gap_limit(policy, times.dtype)
    strides = [batch_stride * item, row_stride * item, times.stride(0) * times.element_size()]
    gap = [limit is not None, limit or 0]
    rules = [KINDS[type(policy)], OUTSIDE[policy.outside], *gap, getattr(policy, "period", 0.0)]
    return [0, 0, 0, *data.shape[1:], *strides, 0, 0, *rules]
