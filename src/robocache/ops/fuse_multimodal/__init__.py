"""Put several streams on one clock, side by side: the contract of a fuse. No arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar, overload

from torch import Tensor

from robocache.errors import ArgumentError
from robocache.ops import checks, plans, registration
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.fuse_multimodal import registered, torch_backend
from robocache.ops.limits import encode_policies
from robocache.ops.resample_trajectories.native import StreamsPlan
from robocache.policies import Linear, Policy
from robocache.records import Fused, Stream

_LINEAR = Linear()
_LINEARS = (_LINEAR,) * 3
_SINGLE = (Policy, Tensor)
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
    tensors = (stream1_data, stream2_data, stream3_data, stream1_times, stream2_times, stream3_times, target_times)
    chosen = _LINEARS if policies is None else _one_each("policies", policies)
    counted = None if lengths is None else _one_each("lengths", lengths)
    fused, valid, _ = _fuse(None, tensors, (chosen, counted), (backend, return_valid))
    return (fused, valid) if return_valid else fused


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
    data, times, policies, lengths = [], [], [], []
    has_lengths = False
    for name, part in streams.items():
        if not isinstance(part, Stream):
            raise ArgumentError(f"streams[{name!r}] must be a robocache.Stream, got {type(part).__name__}")
        data.append(part.data)
        times.append(part.times)
        policies.append(part.policy)
        lengths.append(part.lengths)
        has_lengths = has_lengths or part.lengths is not None
    how = (tuple(policies), tuple(lengths) if has_lengths else None)
    fused, valid, slices = _fuse(streams, (*data, *times, target_times), how, (backend, True))
    return Fused(fused, valid, dict(zip(streams, slices, strict=True)))


_Columns = tuple[list[Tensor], list[Tensor], list[Policy], list[Tensor | None]]
_How = tuple[tuple[Policy, ...], tuple[Tensor | None, ...] | None]
_Slices = tuple[slice, ...]


def _one_each(name: str, values: Sequence[_T]) -> tuple[_T, ...]:
    if isinstance(values, _SINGLE) or len(values) != 3:
        count = "one" if isinstance(values, _SINGLE) else len(values)
        raise ArgumentError(f"{name} must hold one entry for each of the 3 streams, got {count}")
    return tuple(values)


_PLANS: plans.PlanCache[tuple[plans.Plan[tuple[Tensor, Tensor]], _Slices]] = plans.PlanCache()


def _fuse(
    names: Iterable[str] | None, tensors: tuple[Tensor, ...], how: _How, wanted: tuple[str | None, bool]
) -> tuple[Tensor, Tensor, _Slices]:
    """The fused data, its validity if it is wanted, and where each stream's columns lie.

    Args:
        names: Of the streams; None for those that are the arguments of `fuse_multimodal`.
        tensors: All data, all times, the targets.
        how: The policies, and the lengths or None.
        wanted: The backend asked for, and whether validity is.
    """
    policies, lengths = how
    may_plan, count, given = plans.may_plan(), len(policies), tensors
    if may_plan:
        counted = None
        if lengths is not None:
            counted = tuple([length is not None for length in lengths])
            given += tuple([length for length in lengths if length is not None])
        call = (policies, counted, wanted)
        found = _PLANS.recall(call, given) or _PLANS.find(call, given, tensors[:count])
        if found is not None:
            plan, slices = found
            fused, valid = plan(given)
            return fused, valid, slices
    data, times, targets = list(tensors[:count]), list(tensors[count:-1]), tensors[-1]
    columns = (data, times, list(policies), list((None,) * count if lengths is None else lengths))
    labels = _labels(names)
    _check(labels, columns, targets)
    chosen = choose_backend(wanted[0], targets.device.type)
    slices = _slices(data)
    if may_plan and plans.are_plannable(data, given):
        plan = _plan(columns, targets, (chosen, wanted[1]))
        _PLANS.remember(call, given, (plan, slices))
        fused, valid = plan(given)
    else:
        fused, valid = _run_once(labels, columns, targets, chosen)
    return fused, valid, slices


def _run_once(
    labels: tuple[tuple[str, str], ...], columns: _Columns, targets: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """A call that is traced, transformed, differentiated or validated: nothing to remember."""
    data, times, policies, lengths = columns
    if registration.needs_operator(backend, data, (*times, targets, *lengths)):
        fused, valid = registered.operator(data, times, targets, lengths, encode_policies(policies), backend)
        return fused, valid
    if checks.validates_values():
        for pair, stamps, length in zip(labels, times, lengths, strict=True):
            checks.check_values(pair[1], stamps, length)
    return registered.run(data, times, targets, (policies, lengths), backend)


def _labels(names: Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    """What the caller calls the data and the times of each stream."""
    if names is None:
        return _NAMES
    return tuple((f"streams[{name!r}].data", f"streams[{name!r}].times") for name in names)


def _slices(data: list[Tensor]) -> _Slices:
    slices, start = [], 0
    for values in data:
        slices.append(slice(start, start + values.shape[2]))
        start += values.shape[2]
    return tuple(slices)


def _check(labels: tuple[tuple[str, str], ...], columns: _Columns, targets: Tensor) -> None:
    data, times, policies, lengths = columns
    for pair, values, stamps, policy, length in zip(labels, data, times, policies, lengths, strict=True):
        checks.check_stream(pair, values, stamps, policy)
        checks.check_targets("target_times", targets, (pair[0], stamps), pair[1])
        checks.check_lengths(pair[0].replace("data", "lengths"), length, values)
    checks.check_equal_dtypes([pair[0] for pair in labels], data)


def _plan(columns: _Columns, targets: Tensor, wanted: tuple[str, bool]) -> plans.Plan[tuple[Tensor, Tensor]]:
    """What a later call with tensors like these has left to do."""
    data, times, policies, lengths = columns
    backend, with_valid = wanted
    if backend == "cuda":
        fused: plans.Plan[tuple[Tensor, Tensor]] = kernels("fuse_multimodal").FusePlan(
            data, times, targets, policies, lengths, with_valid=with_valid
        )
        return fused
    streams = StreamsPlan(data, times, targets, policies) if backend == "native" else None
    count, places = len(data), [length is not None for length in lengths]
    has_lengths = any(places)

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        found = streams.call(tensors) if streams is not None and not has_lengths else None
        if found is not None:
            return found
        data, times, targets = list(tensors[:count]), list(tensors[count : 2 * count]), tensors[2 * count]
        rest = iter(tensors[2 * count + 1 :])
        lengths = [next(rest) if is_there else None for is_there in places]
        if streams is not None:
            return streams(data, times, targets, lengths)
        return torch_backend.fuse(data, times, targets, policies, lengths, with_valid=with_valid)

    return run


__all__ = ["fuse_multimodal", "fuse_streams"]
