"""Remember what was checked and prepared for a set of shapes, so that a call costs little more than its launch.

A training loop calls an operation thousands of times with the same shapes. The first call checks the arguments,
chooses the backend and prepares a plan; the following ones find it by a key of everything the checks looked at, and
the last few of them without making that key (`recent_calls.py`). The memory is bounded: when it is full, all is
forgotten and found out again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from robocache.ops.backends import is_ordinary
from robocache.ops.checks import validates_values
from robocache.ops.recent_calls import RecentCalls

LIMIT = 1024  # plans an operation; one holds a few kilobytes

Result = TypeVar("Result")
Found = TypeVar("Found")
Plan = Callable[..., Result]


class PlanCache(RecentCalls[Found]):
    """What was found out for calls, by all that matters in them: at most LIMIT of them, and a few recent ones.

    A call is described by `how`, all its arguments that are not tensors and which tensors are absent, and by the
    `tensors` that are there. `recall` is the quick way, `find` the thorough one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[object, Found] = {}

    def __len__(self) -> int:
        return len(self._found)

    def find(self, how: object, tensors: tuple[Tensor, ...], data: Iterable[Tensor]) -> Found | None:
        """What is remembered for a call like this one; nothing where `data`, some of its tensors, want a gradient."""
        if not are_plannable(data):
            return None
        try:
            found = self._found.get((how, tuple(map(signature, tensors))))
        except TypeError:  # something in it has no hash, such as a list for a policy
            return None
        if found is not None:
            self.remember_recent(how, tensors, found)
        return found

    def remember(self, how: object, tensors: tuple[Tensor, ...], found: Found) -> None:
        """Keep what was found, and alive what `how` holds."""
        if len(self._found) >= LIMIT:
            self.clear()
        with contextlib.suppress(TypeError):  # as above
            self._found[how, tuple(map(signature, tensors))] = found
        self.remember_recent(how, tensors, found)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._found.clear()


def signature(tensor: Tensor) -> object:
    """All that a check, or a plan, looks at in a tensor; for anything else nothing that a plan was ever made for."""
    if type(tensor) is not Tensor or tensor.is_nested or tensor.layout is not torch.strided:
        return object()
    stride = None if tensor.is_contiguous() else tensor.stride()
    return (tensor.shape, stride, tensor.dtype, tensor.device)


def may_plan() -> bool:
    """Whether a call may take a short way, as far as the state goes: nothing is traced, transformed or validated."""
    return is_ordinary() and not validates_values()


def are_plannable(data: Iterable[Tensor], others: Iterable[Tensor] = ()) -> bool:
    """Whether a call may take a short way, as far as its tensors go: none stands for another, nor wants a gradient.

    Args:
        data: What a gradient may go to.
        others: What none goes to.
    """
    has_gradients = torch.is_grad_enabled()
    return all(type(one) is Tensor and not (has_gradients and one.requires_grad) for one in data) and all(
        type(one) is Tensor for one in others
    )
