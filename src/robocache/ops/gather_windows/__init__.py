"""Windows of consecutive rows out of packed episodes: the contract of `gather_windows`. No arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.errors import ArgumentError, BackendUnavailableError, DeviceError, ShapeError
from robocache.ops import checks, plans
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.gather_windows import torch_backend


def gather_windows(
    packed: Tensor, starts: Tensor, window: int, *, ends: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Batches of windows: row `starts[b] + k` of `packed`, for k below `window`.

    Episodes lie one after the other in `packed`, and a window that reaches beyond its episode holds the last row. On a
    GPU it is one launch that copies each window in one piece. Work is enqueued on the current stream of the tensors'
    device; nothing waits for it.

    Args:
        packed: [rows, ...] of any dtype, contiguous; gradients flow back to it.
        starts: [batch] int64: the first row of each window. Whatever it holds, no memory outside of `packed` is read:
            a row before the first or behind the last is the nearest one.
        window: Rows of each window, 0 or more.
        ends: [batch] int64: the row after the last one of each window's episode. None: the end of `packed`.
        backend: "cuda" (GPU kernels), "pytorch" (portable), or None for the best on the tensors' device.

    Returns:
        [batch, window, ...] in the dtype of `packed`.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: The message names the argument and shows both sides.
        BackendUnavailableError: The backend asked for cannot run here.

    Example:
        >>> gather_windows(torch.arange(10.0), torch.tensor([3, 8]), 3)
        tensor([[3., 4., 5.],
                [8., 9., 9.]])
    """
    how = None
    if plans.may_plan():
        how = (window, ends is None, backend)
        tensors: tuple[Tensor, ...] = (packed, starts) if ends is None else (packed, starts, ends)
        plan = _PLANS.recall(how, tensors) or _PLANS.find(how, tensors, (packed,))
        if plan is not None:
            return plan(tensors)
    _check(packed, starts, window, ends)
    chosen = _choose(backend, packed.device.type)
    if how is not None and chosen == "cuda" and plans.are_plannable((packed,), tensors):
        made: plans.Plan[Tensor] = kernels("gather_windows").WindowPlan(
            packed, starts.shape[0], window, with_ends=ends is not None
        )
        _PLANS.remember(how, tensors, made)
        return made(tensors)
    # What is compiled or differentiated is PyTorch's own business: it traces these few operations by itself.
    return torch_backend.gather_windows(packed, starts, window, ends)


_PLANS: plans.PlanCache[plans.Plan[Tensor]] = plans.PlanCache()


def _choose(backend: str | None, device_type: str) -> str:
    if backend is None:
        return "cuda" if choose_backend(None, device_type) == "cuda" else "pytorch"
    if backend == "native":
        message = "backend='native' cannot run: gather_windows has none, PyTorch's own gather is as fast on a CPU"
        raise BackendUnavailableError(f"{message}; use 'pytorch', or None")
    return choose_backend(backend, device_type)


def _check(packed: object, starts: Tensor, window: object, ends: Tensor | None) -> None:
    if not isinstance(packed, Tensor):
        raise ArgumentError(f"packed must be a torch.Tensor, got {type(packed).__name__}")
    if packed.is_nested or packed.layout is not torch.strided or packed.ndim == 0 or not packed.is_contiguous():
        raise ShapeError(f"packed must be [rows, ...], dense and contiguous, got shape {tuple(packed.shape)}")
    if isinstance(window, bool) or not isinstance(window, int) or window < 0:
        raise ArgumentError(f"window must be an integer of 0 or more, got {window!r}")
    checks.check_tensor("starts", starts, "batch", _INT64)
    if packed.shape[0] == 0 and starts.shape[0]:
        raise ShapeError(f"packed has no rows, but starts asks for {starts.shape[0]} windows")
    for name, tensor in (("starts", starts), ("ends", ends)):
        if tensor is None:
            continue
        checks.check_tensor(name, tensor, "batch", _INT64)
        if tensor.shape != starts.shape:
            raise ShapeError(f"ends has batch={tensor.shape[0]}, but starts has batch={starts.shape[0]}")
        if tensor.device != packed.device:
            raise DeviceError(f"{name} is on {tensor.device}, but packed is on {packed.device}; move one of them")
        if not tensor.is_contiguous():
            raise ShapeError(f"{name} must be contiguous")


_INT64 = frozenset({torch.int64})
