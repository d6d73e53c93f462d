"""Remember what was checked and prepared for a set of shapes, so that a call costs little more than its launch.

A training loop calls an operation thousands of times with the same shapes. The first call checks the arguments,
chooses the backend and prepares a plan; the following ones find it by a key of everything the checks looked at. The
memory is bounded: when it is full, all is forgotten and found out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from robocache.ops.backends import is_transformed
from robocache.ops.checks import validates_values

LIMIT = 1024  # plans an operation; one holds a few kilobytes

Result = TypeVar("Result")
Plan = Callable[..., Result]


class PlanCache(Generic[Result]):
    """Plans by key, at most LIMIT of them."""

    def __init__(self) -> None:
        self._plans: dict[object, tuple[Plan[Result], object]] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def find(self, key: object) -> Plan[Result] | None:
        """The plan made for this key, if it is still remembered."""
        found = self._plans.get(key)
        return None if found is None else found[0]

    def remember(self, key: object, plan: Plan[Result], keeps: object) -> Plan[Result]:
        """Keep a plan, and alive what its key names by identity."""
        if len(self._plans) >= LIMIT:
            self._plans.clear()
        self._plans[key] = (plan, keeps)
        return plan

    def clear(self) -> None:
        """Forget all plans."""
        self._plans.clear()


def signature(tensor: Tensor | None) -> object:
    """All that a check, or a plan, looks at in a tensor; for anything else nothing that a plan was ever made for."""
    if type(tensor) is not Tensor:
        return None if tensor is None else object()
    stride = None if tensor.is_contiguous() else tensor.stride()
    return (tensor.shape, stride, tensor.dtype, tensor.device)


def are_plannable(data: Iterable[Tensor]) -> bool:
    """Whether a call may take the short way: nothing is traced, differentiated or validated."""
    if torch.compiler.is_compiling() or is_transformed() or validates_values():
        return False
    has_gradients = torch.is_grad_enabled()
    return all(type(one) is Tensor and not (has_gradients and one.requires_grad) for one in data)
