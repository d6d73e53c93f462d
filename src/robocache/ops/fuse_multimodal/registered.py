"""A fuse on a backend, and as a registered operator: for what is compiled, differentiated or transformed."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops import registration
from robocache.ops.backends import kernels
from robocache.ops.fuse_multimodal import native, torch_backend
from robocache.ops.limits import decode_policies
from robocache.policies import Policy


def run(
    data: list[Tensor],
    times: list[Tensor],
    targets: Tensor,
    how: tuple[list[Policy], list[Tensor | None]],
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Data [B,T,sum D] and valid [B,T,streams], on this backend; `how` holds the policies and the lengths."""
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
    return run(data, times, targets, (decode_policies(policies), lengths), backend)


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


operator = registration.define(
    "fuse",
    "(Tensor[] data, Tensor[] times, Tensor targets, Tensor?[] lengths, float[] policies, str backend)"
    " -> (Tensor, Tensor)",
    _operator_run,
    _operator_fake,
)
registration.differentiate("fuse", _backward, _keep_inputs)
