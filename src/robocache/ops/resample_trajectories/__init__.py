"""Put a stream on another clock: the contract of `resample_trajectories`. No arithmetic."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from robocache.ops import checks, plans, registration
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.limits import decode_policy, encode_policy
from robocache.ops.resample_trajectories import native, torch_backend
from robocache.policies import Linear, Policy

_LINEAR = Linear()


@overload
def resample_trajectories(
    source_data: Tensor,
    source_times: Tensor,
    target_times: Tensor,
    *,
    policy: Policy = ...,
    lengths: Tensor | None = ...,
    return_valid: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def resample_trajectories(
    source_data: Tensor,
    source_times: Tensor,
    target_times: Tensor,
    *,
    policy: Policy = ...,
    lengths: Tensor | None = ...,
    return_valid: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def resample_trajectories(  # noqa: PLR0913  tensors are positional, the rest is keyword-only
    source_data: Tensor,
    source_times: Tensor,
    target_times: Tensor,
    *,
    policy: Policy = _LINEAR,
    lengths: Tensor | None = None,
    return_valid: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Interpolate a batch of trajectories from their own clock onto another.

    Search and subtraction happen in the times' own dtype; only differences become floats, so epoch nanoseconds
    lose nothing. Arithmetic is float32 (float64 for float64 data), rounded once at the end. A target that meets a
    stamp exactly gives that sample, bit for bit. Of equal stamps the last counts. Work is enqueued on the current
    stream of the tensors' device; nothing waits for it.

    Args:
        source_data: [batch, source, dim]; float16, bfloat16, float32, float64, or integers and bools with `Nearest`
            or `Previous`. The result has the same dtype.
        source_times: [batch, source]; float32, float64 or int64 in any unit, ascending along `source`. That is not
            checked unless the environment says `ROBOCACHE_VALIDATE=1`, since a GPU would have to be waited for.
            Floating times may be padded with +inf.
        target_times: [batch, target], in the dtype and unit of `source_times`, in any order. NaN gives NaN.
        policy: What to do between two samples and outside of them: `Linear`, `Nearest`, `Previous`, `Slerp`, `Angle`.
        lengths: [batch] int32 or int64: how many of the source samples count; a row of length 0 gives NaN (0 for
            integers). None: all.
        return_valid: Also return which results are backed by samples.
        backend: "cuda" (GPU kernels), "native" (compiled, on a CPU), "pytorch" (portable), or None for the best on the
            tensors' device.

    Returns:
        [batch, target, dim]; with `return_valid` also bool [batch, target]: inside the range and within `max_gap`.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: The message names the argument and shows both sides.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    how = None
    if plans.may_plan():
        how = (policy, lengths is None, return_valid, backend)
        tensors: tuple[Tensor, ...] = (source_data, source_times, target_times)
        if lengths is not None:
            tensors += (lengths,)
        plan = _PLANS.recall(how, tensors) or _PLANS.find(how, tensors, (source_data,))
        if plan is not None:
            result = plan(tensors)
            return result if return_valid else result[0]
    checks.check_stream(("source_data", "source_times"), source_data, source_times, policy)
    checks.check_targets("target_times", target_times, ("source_data", source_times), "source_times")
    checks.check_lengths("lengths", lengths, source_data)
    chosen = choose_backend(backend, source_data.device.type)
    if how is not None and plans.are_plannable((source_data,), tensors):
        plan = _plan(source_data, source_times, target_times, (policy, lengths), (chosen, return_valid))
        _PLANS.remember(how, tensors, plan)
        data, valid = plan(tensors)
    elif registration.needs_operator(chosen, [source_data], (source_times, target_times, lengths)):
        data, valid = _operator(source_data, source_times, target_times, lengths, encode_policy(policy), chosen)
    else:
        if checks.validates_values():
            checks.check_values("source_times", source_times, lengths)
        data, valid = _run(source_data, source_times, target_times, (policy, lengths), chosen)
    return (data, valid) if return_valid else data


_PLANS: plans.PlanCache[plans.Plan[tuple[Tensor, Tensor]]] = plans.PlanCache()


def _plan(
    data: Tensor, times: Tensor, targets: Tensor, how: tuple[Policy, Tensor | None], wanted: tuple[str, bool]
) -> plans.Plan[tuple[Tensor, Tensor]]:
    """What a later call with tensors like these has left to do."""
    (policy, lengths), (backend, return_valid) = how, wanted
    if backend == "cuda":
        fused: plans.Plan[tuple[Tensor, Tensor]] = kernels("fuse_multimodal").FusePlan(
            [data], [times], targets, [policy], [lengths], with_valid=return_valid, is_one=True
        )
        return fused
    streams = native.StreamsPlan([data], [times], targets, [policy]) if backend == "native" else None

    def run(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        found = streams.call(tensors) if streams is not None and len(tensors) == 3 else None
        if found is not None:
            return found[0], found[1][:, :, 0] if return_valid else found[1]
        data, times, targets = tensors[:3]
        lengths = tensors[3] if len(tensors) > 3 else None
        if streams is None:
            return torch_backend.resample_trajectories(data, times, targets, policy, lengths, with_valid=return_valid)
        out, valid = streams([data], [times], targets, [lengths])
        return out, valid[:, :, 0] if return_valid else valid

    return run


def _run(
    data: Tensor, times: Tensor, targets: Tensor, how: tuple[Policy, Tensor | None], backend: str
) -> tuple[Tensor, Tensor]:
    policy, lengths = how
    if backend == "native":
        return native.resample_trajectories(data, times, targets, policy, lengths)
    module = kernels("resample_trajectories") if backend == "cuda" else torch_backend
    result: tuple[Tensor, Tensor] = module.resample_trajectories(data, times, targets, policy, lengths)
    return result


def _operator_run(
    data: Tensor, times: Tensor, targets: Tensor, lengths: Tensor | None, policy: list[float], backend: str
) -> tuple[Tensor, Tensor]:
    return _run(data, times, targets, (decode_policy(policy), lengths), backend)


def _operator_fake(
    data: Tensor, times: Tensor, targets: Tensor, lengths: Tensor | None, policy: list[float], backend: str
) -> tuple[Tensor, Tensor]:
    del times, lengths, policy, backend
    batch, target = targets.shape
    return data.new_empty(batch, target, data.shape[2]), targets.new_empty(batch, target, dtype=torch.bool)


def _keep_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: object) -> None:
    del output
    data, times, targets, lengths, policy, _ = inputs
    ctx.save_for_backward(data, times, targets, lengths)  # type: ignore[arg-type]
    ctx.policy = policy  # type: ignore[attr-defined]


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, _: object) -> tuple[Tensor | None, ...]:
    data, times, targets, lengths = ctx.saved_tensors  # type: ignore[attr-defined]
    policy = decode_policy(ctx.policy)  # type: ignore[attr-defined]

    def values(leaf: Tensor) -> Tensor:
        return torch_backend.resample_trajectories(leaf, times, targets, policy, lengths)[0]

    return (*registration.pull_back(values, [data], gradient), None, None, None, None, None)


_operator = registration.define(
    "resample",
    "(Tensor data, Tensor times, Tensor targets, Tensor? lengths, float[] policy, str backend) -> (Tensor, Tensor)",
    _operator_run,
    _operator_fake,
)
registration.differentiate("resample", _backward, _keep_inputs)

__all__ = ["resample_trajectories"]
