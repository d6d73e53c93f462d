"""Know a call again: the quick way to a plan, in front of the dictionary of plans.

A key of seven tensors' sizes and strides takes several microseconds to make. The guards of PyTorch's compiler compare
the same, and dispatch keys, devices and `requires_grad` besides, in a fraction of one. They are private to PyTorch, so
they are tried out when this module is imported; where they do not behave, every call takes the dictionary, and
`check_installation()` says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from robocache.ops.direct_launch import QUICK

RECENT = 4  # calls an operation; a failed comparison costs a tenth of a microsecond

Found = TypeVar("Found")
_Accepts = Callable[..., bool]


class RecentCalls(Generic[Found]):
    """The last few different calls, and what was found for them. Threads may share it; it keeps no tensor alive."""

    def __init__(self) -> None:
        self._recent: tuple[tuple[object, _Accepts, Found], ...] = ()  # replaced as a whole, never changed

    def recall(self, how: object, tensors: tuple[Tensor, ...]) -> Found | None:
        """What was remembered for a call like this one.

        Args:
            how: All arguments that are not tensors, and which of the tensors are absent; compared by value.
            tensors: Those that are there; that they are tensors need not have been checked.
        """
        if not self._recent:
            return None
        try:
            known: Found | None = recall(self._recent, how, tensors)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            # An array for a tensor, a list for a policy: the full checks have the words for it.
            return None
        return known

    def remember_recent(self, how: object, tensors: tuple[Tensor, ...], found: Found) -> None:
        """Keep what was found for a call that was neither traced, nor transformed, nor differentiated."""
        if _PROBLEM is not None or has_torch_function(tensors) or not all(map(_is_plain, tensors)):
            return
        accepts = _guard(tensors)
        if accepts(*tensors):
            self._recent = ((how, accepts, found), *self._recent[: RECENT - 1])

    def clear(self) -> None:
        """Forget all calls."""
        self._recent = ()


def recall_in_python(recent: tuple[tuple[object, _Accepts, Any], ...], how: object, tensors: tuple[Tensor, ...]) -> Any:  # noqa: ANN401
    """What `recall` of `_native/python/quick.c` gives, where that is not there.

    Args:
        recent: Calls, what accepts tensors like theirs, and what was found for them.
        how: All arguments of a call that are not tensors.
        tensors: Those that are.
    """
    if has_torch_function(tensors):
        return None
    for one in tensors:
        if one.is_nested:  # it has no strides, and to ask a guard for them would end the process
            return None
    for wanted, accepts, found in recent:
        if wanted == how and accepts(*tensors):
            return found
    return None


recall: Callable[..., Any] = recall_in_python if QUICK is None else functools.partial(QUICK.recall, Tensor)


def guard_problem() -> str | None:
    """Why recent calls cannot be known again the quick way, or None when they can."""
    return _PROBLEM


def _is_plain(one: Tensor) -> bool:
    # A guard does not ask whether gradients are switched on, so it is made only where that makes no difference.
    return type(one) is Tensor and one.layout is torch.strided and not (one.is_nested or one.requires_grad)


def _guard(tensors: tuple[Tensor, ...]) -> _Accepts:
    """Whether other tensors, as many, are like these: in all but their contents, and in which of them are the same."""
    firsts = [next(at for at, other in enumerate(tensors) if other is one) for one in tensors]
    distinct = sorted(set(firsts))
    # Without sizes and strides of its own the guard takes those of the tensors.
    dynamic: dict[str, Any] = {"dynamic_dims_sizes": None, "dynamic_dims_strides": None}
    make: Any = torch._C._dynamo.guards.TensorGuards  # noqa: SLF001
    check: _Accepts = make(*(tensors[at] for at in distinct), **dynamic).check
    if len(distinct) == len(tensors):
        return check
    repeats = [(at, first) for at, first in enumerate(firsts) if at != first]

    def accepts(*others: Tensor) -> bool:
        # A guard refuses a tensor that it meets twice.
        for at, first in repeats:
            if others[at] is not others[first]:
                return False
        return check(*[others[at] for at in distinct])

    return accepts


class _Subclass(Tensor):
    pass


def _misbehaviour() -> str | None:
    how = {"dtype": torch.float32, "device": "cpu"}
    try:
        with torch.inference_mode(mode=False):
            here = torch.empty(2, 3, **how), torch.empty(2, 1, **how)  # type: ignore[call-overload]
            accepts = _guard(here)
            others = {
                "shape": torch.empty(2, 4, **how),  # type: ignore[call-overload]
                "rank": torch.empty(6, **how),  # type: ignore[call-overload]
                "strides": torch.empty(3, 2, **how).t(),  # type: ignore[call-overload]
                "dtype": here[0].to(torch.int32),
                "device": here[0].to("meta"),
                "gradient": torch.empty(2, 3, requires_grad=True, **how),  # type: ignore[call-overload]
                "class": here[0].as_subclass(_Subclass),
                "value": None,
            }
            wrong = [name for name, other in others.items() if accepts(other, here[1]) is not False]
            if accepts(*here) is not True or accepts(here[0].clone(), here[1].clone()) is not True:
                return "the tensor guards of this PyTorch refuse tensors that are alike"
    except Exception as error:  # noqa: BLE001  what is private may be gone or changed; the reason is kept and shown
        return f"this PyTorch has no tensor guards as they are known: {type(error).__name__}: {error}"
    return f"the tensor guards of this PyTorch accept another {' and '.join(wrong)}" if wrong else None


_PROBLEM = _misbehaviour()
