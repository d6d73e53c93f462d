"""How an operation meets `torch.compile` and autograd: one policy for all.

The eager path calls a backend directly (`torch.library.custom_op` costs more than the kernel). Under
`torch.compile`, and where the result of compiled code needs a gradient, the call goes through an operator defined
here, which is opaque to the compiler and has a fake implementation and a backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from robocache.ops.backends import is_transformed

_LIBRARY = torch.library.Library("robocache", "DEF")  # type: ignore[no-untyped-call]
_OPERATORS: list[str] = []

Outputs = tuple[Tensor, ...] | Tensor


def define(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Register `robocache::name`; returns the callable operator.

    Args:
        name: The operator's name.
        schema: Arguments and results, as in PyTorch's native functions.
        run: The implementation, on tensors of any device.
        fake: The same arguments to empty results of the right shape, dtype and device.
    """
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, run, key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"robocache::{name}", fake, lib=_LIBRARY)
    _OPERATORS.append(name)
    return getattr(torch.ops.robocache, name)


def differentiate(name: str, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Give `robocache::name` a gradient."""
    torch.library.register_autograd(f"robocache::{name}", backward, setup_context=setup_context, lib=_LIBRARY)


def pull_back(function: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """The gradient of `function`, a differentiable PyTorch function, at `inputs`; differentiable if asked to be."""
    goes_on = torch.is_grad_enabled()  # a backward with `create_graph=True`
    with torch.enable_grad():
        leaves = [one if goes_on and one.requires_grad else one.detach().requires_grad_() for one in inputs]
        result = function(*leaves)
    return list(torch.autograd.grad(result, leaves, gradient, create_graph=goes_on))


def needs_operator(backend: str, data: Sequence[Tensor], others: Sequence[Tensor | None]) -> bool:
    """Whether a call must go through the registered operator rather than straight to its backend.

    Args:
        backend: The one that would run.
        data: What a gradient may go to.
        others: What none goes to, but what may stand for something else all the same.
    """
    if torch.compiler.is_compiling():
        return True
    if backend == "pytorch":
        return False
    if is_transformed():
        return True
    has_gradients = torch.is_grad_enabled()
    if any(one is not None and type(one) is not Tensor for one in (*data, *others)):
        return True
    return any(has_gradients and one.requires_grad for one in data)
