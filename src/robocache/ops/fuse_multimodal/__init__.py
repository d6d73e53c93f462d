"""Put several streams on one clock, side by side: the contract of a fuse. No arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, overload

import torch
from torch import Tensor

from robocache.errors import ArgumentError
from robocache.ops import checks, plans, registration
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.fuse_multimodal import native, torch_backend
from robocache.ops.limits import decode_policies, encode_policies
from robocache.ops.resample_trajectories.native import StreamsPlan
from robocache.policies import Linear, Policy
from robocache.records import Fused, Stream

_LINEAR = Linear()
_NAMES = tuple((f"stream{index}_data", f"stream{index}_times") for index in (1, 2, 3))
Lengths = Sequence[Tensor | None]
_T = TypeVar("_T")


@overload
def fuse_multimodal(
    stream1_data: Tensor,
    stream1_times: Tensor,
    stream2_data: Tensor,
    stream2_times: Tensor,
    stream3_data: Tensor,
    stream3_times: Tensor,
    target_times: Tensor,
    *,
    policies: Sequence[Policy] | None = ...,
    lengths: Lengths | None = ...,
    return_valid: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def fuse_multimodal(
    stream1_data: Tensor,
    stream1_times: Tensor,
    stream2_data: Tensor,
    stream2_times: Tensor,
    stream3_data: Tensor,
    stream3_times: Tensor,
    target_times: Tensor,
    *,
    policies: Sequence[Policy] | None = ...,
    lengths: Lengths | None = ...,
    return_valid: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def fuse_multimodal(  # noqa: PLR0913, PLR0917  three streams are the contract; fuse_streams takes any number
    stream1_data: Tensor,
    stream1_times: Tensor,
    stream2_data: Tensor,
    stream2_times: Tensor,
    stream3_data: Tensor,
    stream3_times: Tensor,
    target_times: Tensor,
    *,
    policies: Sequence[Policy] | None = None,
    lengths: Lengths | None = None,
    return_valid: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Interpolate three streams onto one clock and lay them side by side, in one launch on a GPU.

    Each stream is treated as `resample_trajectories` would: same policies, same validity, same arithmetic.

    Args:
        stream1_data: [batch, source1, dim1]; all three streams share dtype, batch and device.
        stream1_times: [batch, source1], ascending; float32, float64 or int64, the same for all streams and targets.
        stream2_data: [batch, source2, dim2].
        stream2_times: [batch, source2].
        stream3_data: [batch, source3, dim3].
        stream3_times: [batch, source3].
        target_times: [batch, target], in any order.
        policies: One policy a stream; None means `Linear()` for each.
        lengths: One [batch] tensor of counts, or None, a stream; None means all samples of all streams.
        return_valid: Also return which results are backed by samples.
        backend: "cuda" (GPU kernels), "native" (compiled, on a CPU), "pytorch" (portable), or None for the best on the
            tensors' device.

    Returns:
        [batch, target, dim1 + dim2 + dim3]; with `return_valid` also bool [batch, target, 3].

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: The message names the argument and shows both sides.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    data = [stream1_data, stream2_data, stream3_data]
    times = [stream1_times, stream2_times, stream3_times]
    chosen_policies = _one_each("policies", policies, _LINEAR)
    chosen_lengths = _one_each("lengths", lengths, None)
    result = _fuse(_NAMES, (data, times, chosen_policies, chosen_lengths), target_times, (backend, return_valid))
    return result if return_valid else result[0]


def fuse_streams(streams: Mapping[str, Stream], target_times: Tensor, *, backend: str | None = None) -> Fused:
    """Interpolate any number of streams onto one clock and lay them side by side, in one launch on a GPU.

    Args:
        streams: By name, each with its data [batch, source, dim], times [batch, source], policy and lengths. They
            share dtype, batch and device. The order is that of the columns.
        target_times: [batch, target], in the dtype of the streams' times, in any order.
        backend: "cuda" (GPU kernels), "native" (compiled, on a CPU), "pytorch" (portable), or None for the best on the
            tensors' device.

    Returns:
        `Fused`: data [batch, target, sum of dims], valid bool [batch, target, streams], and the slice of each name.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: The message names the stream and shows both sides.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    if not streams:
        raise ArgumentError("streams is empty: give at least one stream to fuse")
    for name, part in streams.items():
        if not isinstance(part, Stream):
            raise ArgumentError(f"streams[{name!r}] must be a robocache.Stream, got {type(part).__name__}")
    names = tuple((f"streams[{name!r}].data", f"streams[{name!r}].times") for name in streams)
    parts = list(streams.values())
    columns = (
        [part.data for part in parts],
        [part.times for part in parts],
        [part.policy for part in parts],
        [part.lengths for part in parts],
    )
    fused, valid = _fuse(names, columns, target_times, (backend, True))
    slices, start = {}, 0
    for name, part in streams.items():
        slices[name] = slice(start, start + part.data.shape[2])
        start += part.data.shape[2]
    return Fused(fused, valid, slices)


_Columns = tuple[list[Tensor], list[Tensor], list[Policy], list[Tensor | None]]


def _one_each(name: str, values: Sequence[_T] | None, default: _T) -> list[_T]:
    if values is None:
        return [default] * 3
    if isinstance(values, Policy | Tensor) or len(values) != 3:
        count = "one" if isinstance(values, Policy | Tensor) else len(values)
        raise ArgumentError(f"{name} must hold one entry for each of the 3 streams, got {count}")
    return list(values)


_PLANS: plans.PlanCache[tuple[Tensor, Tensor]] = plans.PlanCache()


def _fuse(
    names: tuple[tuple[str, str], ...], columns: _Columns, targets: Tensor, wanted: tuple[str | None, bool]
) -> tuple[Tensor, Tensor]:
    """The fused data, and its validity if it is wanted."""
    data, times, policies, lengths = columns
    backend, with_valid = wanted
    key = None
    if plans.are_plannable(data):
        tensors = tuple(map(plans.signature, (*data, *times, targets, *lengths)))
        key = (tensors, tuple(map(id, policies)), with_valid, backend)
        plan = _PLANS.find(key)
        if plan is not None:
            return plan(data, times, targets, lengths)
    for pair, values, stamps, policy, length in zip(names, data, times, policies, lengths, strict=True):
        checks.check_stream(pair, values, stamps, policy)
        checks.check_targets("target_times", targets, (pair[0], stamps), pair[1])
        checks.check_lengths(pair[0].replace("data", "lengths"), length, values)
    checks.check_equal_dtypes([pair[0] for pair in names], data)
    chosen = choose_backend(backend, targets.device.type)
    if key is not None:
        plan = _plan(columns, targets, (chosen, with_valid))
        return _PLANS.remember(key, plan, policies)(data, times, targets, lengths)
    if registration.needs_operator(chosen, data):
        fused, valid = _operator(data, times, targets, lengths, encode_policies(policies), chosen)
        return fused, valid
    if checks.validates_values():
        for pair, stamps, length in zip(names, times, lengths, strict=True):
            checks.check_values(pair[1], stamps, length)
    return _run(data, times, targets, (policies, lengths), chosen)


def _plan(columns: _Columns, targets: Tensor, wanted: tuple[str, bool]) -> plans.Plan[tuple[Tensor, Tensor]]:
    """What a later call with tensors like these has left to do."""
    data, times, policies, lengths = columns
    backend, with_valid = wanted
    if backend == "cuda":
        fused: plans.Plan[tuple[Tensor, Tensor]] = kernels("fuse_multimodal").FusePlan(
            data, times, targets, policies, lengths, with_valid=with_valid
        )
        return fused
    if backend == "native":
        return StreamsPlan(data, times, targets, policies)

    def run(
        data: list[Tensor], times: list[Tensor], targets: Tensor, lengths: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        return _run(data, times, targets, (policies, lengths), backend)

    return run


def _run(
    data: list[Tensor],
    times: list[Tensor],
    targets: Tensor,
    how: tuple[list[Policy], list[Tensor | None]],
    backend: str,
) -> tuple[Tensor, Tensor]:
    policies, lengths = how
    if backend == "native":
        return native.fuse(data, times, targets, policies, lengths)
    module = kernels("fuse_multimodal") if backend == "cuda" else torch_backend
    result: tuple[Tensor, Tensor] = module.fuse(data, times, targets, policies, lengths)
    return result


def _operator_run(
    data: list[Tensor],
    times: list[Tensor],
    targets: Tensor,
    lengths: list[Tensor | None],
    policies: list[float],
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _run(data, times, targets, (decode_policies(policies), lengths), backend)


def _operator_fake(
    data: list[Tensor],
    times: list[Tensor],
    targets: Tensor,
    lengths: list[Tensor | None],
    policies: list[float],
    backend: str,
) -> tuple[Tensor, Tensor]:
    del times, lengths, policies, backend
    batch, target = targets.shape
    width = sum(values.shape[2] for values in data)
    return data[0].new_empty(batch, target, width), targets.new_empty(batch, target, len(data), dtype=torch.bool)


def _keep_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: object) -> None:
    del output
    data, times, targets, lengths, policies, _ = inputs
    ctx.save_for_backward(*data, *times, targets, *lengths)  # type: ignore[misc, arg-type]
    ctx.policies = policies  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, _: object) -> tuple[object, ...]:
    saved = list(ctx.saved_tensors)  # type: ignore[attr-defined]
    policies = decode_policies(ctx.policies)  # type: ignore[attr-defined]
    count = len(policies)
    data, times, targets, lengths = saved[:count], saved[count : 2 * count], saved[2 * count], saved[2 * count + 1 :]

    def values(*leaves: Tensor) -> Tensor:
        return torch_backend.fuse(list(leaves), times, targets, policies, lengths)[0]

    # PyTorch wants a list back for a list of tensors, and None for a list that holds a None.
    no_lengths = None if any(length is None for length in lengths) else [None] * count
    return registration.pull_back(values, data, gradient), [None] * count, None, no_lengths, None, None


_operator = registration.define(
    "fuse",
    "(Tensor[] data, Tensor[] times, Tensor targets, Tensor?[] lengths, float[] policies, str backend)"
    " -> (Tensor, Tensor)",
    _operator_run,
    _operator_fake,
)
registration.differentiate("fuse", _backward, _keep_inputs)

__all__ = ["fuse_multimodal", "fuse_streams"]
