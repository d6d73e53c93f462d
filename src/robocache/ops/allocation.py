"""A new tensor of a fixed shape, again and again, for less than `torch.empty` takes to read its arguments.

The functions are those that `torch.compile` allocates with: the same allocator and the same tensors, without the
dispatcher. They are private to PyTorch, so the first tensor of each is looked at; where it is not as expected,
`torch.empty` serves, and `check_installation()` says so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PROBLEMS: set[str] = set()
_current_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", lambda: -1)  # noqa: SLF001
_is_deterministic = torch.are_deterministic_algorithms_enabled


def allocation_problems() -> list[str]:
    """Why tensors so far in this process were allocated the slower way; empty when they were not."""
    return sorted(_PROBLEMS)


def allocator(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """What makes a contiguous tensor with unspecified contents, as `torch.empty` would."""
    slowly = functools.partial(torch.empty, shape, dtype=dtype, device=device)
    problem = _problem(device)
    if problem is not None:
        _PROBLEMS.add(problem)
        return slowly
    quickly, index = _function(device.type), -1 if device.type == "cpu" else device.index
    sizes, strides = tuple(shape), torch.empty(shape, device="meta").stride()  # it takes nothing but tuples

    def allocate() -> Tensor:
        # It takes the current device, and leaves out the NaN that deterministic algorithms fill empty tensors with.
        if (index < 0 or _current_device() == index) and not _is_deterministic():
            made: Tensor = quickly(sizes, strides, dtype)
            return made
        return slowly()

    return allocate


def _function(device_type: str) -> Any:  # noqa: ANN401
    return getattr(torch._C._dynamo.guards, f"_empty_strided_{device_type}")  # noqa: SLF001


@functools.cache
def _problem(device: torch.device) -> str | None:
    how = f"this PyTorch allocates on {device.type} in another way"
    # Not on the current device, where a context of its own would be made for it.
    place = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    try:
        with place:
            made = _function(device.type)((2, 3), (3, 1), torch.int16)
        expected = torch.empty(2, 3, dtype=torch.int16, device=device)
        is_alike = type(made) is Tensor and made.is_contiguous() and not made.requires_grad
        looks = [(one.shape, one.stride(), one.dtype, one.device) for one in (made, expected)]
    except torch.OutOfMemoryError:  # says nothing of PyTorch, and is the caller's to see
        raise
    except Exception as error:  # noqa: BLE001  what is private may be gone or changed; the reason is kept and shown
        return f"{how}: {type(error).__name__}: {error}"
    return None if is_alike and looks[0] == looks[1] else how
