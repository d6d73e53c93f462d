"""What every operation refuses, and in which words: the argument as the caller wrote it, and both sides.

Nothing here reads a tensor's values, which on a GPU would wait for it; `ROBOCACHE_VALIDATE=1` turns on the checks
that do (`check_values`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from robocache.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from robocache.ops.limits import gap_limit
from robocache.policies import Nearest, Policy, Previous, Slerp

FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
WHOLE = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool})
TIMES = frozenset({torch.float32, torch.float64, torch.int64})
_LENGTHS = frozenset({torch.int32, torch.int64})
_QUATERNION = 4
_VALIDATE = os.environ.encodekey("ROBOCACHE_VALIDATE")  # as the environment holds it on this system


def short(dtype: torch.dtype | torch.layout) -> str:
    """A dtype, or a layout, as people say it."""
    return str(dtype).removeprefix("torch.")


def check_tensor(name: str, value: object, axes: str, dtypes: frozenset[torch.dtype]) -> Tensor:
    """`value` as a tensor with the rank of `axes` ("batch, source, dim") and one of the dtypes."""
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.is_nested or value.layout is not torch.strided:
        kind = "nested" if value.is_nested else short(value.layout)
        raise ArgumentError(f"{name} must be a dense tensor, got a {kind} one; convert it, for example with to_dense()")
    if value.ndim != axes.count(",") + 1:
        raise ShapeError(f"{name} must be [{axes}], got shape {tuple(value.shape)}")
    if value.dtype not in dtypes:
        allowed = ", ".join(sorted(short(dtype) for dtype in dtypes))
        raise DTypeError(f"{name} is {short(value.dtype)}, but must be one of {allowed}")
    return value


def check_stream(names: tuple[str, str], data: Tensor, times: Tensor, policy: Policy) -> None:
    """One stream on its own: ranks, sizes, dtypes, device, and whether its policy can serve its dtype."""
    data_name, times_name = names
    check_tensor(data_name, data, "batch, source, dim", FLOATING | WHOLE)
    check_tensor(times_name, times, "batch, source", TIMES)
    _check_same_size("batch", (data_name, data.shape[0]), (times_name, times.shape[0]))
    _check_same_size("source", (data_name, data.shape[1]), (times_name, times.shape[1]))
    if data.shape[1] == 0:
        raise ShapeError(f"{data_name} must hold at least one sample, got source=0; lengths says which rows are empty")
    _check_same_device((data_name, data), (times_name, times))
    _check_policy(data_name, data, policy)
    gap_limit(policy, times.dtype)


def check_targets(name: str, targets: Tensor, stream: tuple[str, Tensor], times_name: str) -> None:
    """The target times against one stream's times."""
    data_name, times = stream
    check_tensor(name, targets, "batch, target", TIMES)
    _check_same_size("batch", (data_name, times.shape[0]), (name, targets.shape[0]))
    if targets.dtype != times.dtype:
        message = f"{name} is {short(targets.dtype)}, but {times_name} is {short(times.dtype)}; use one dtype for both"
        raise DTypeError(message)
    _check_same_device((times_name, times), (name, targets))


def check_lengths(name: str, lengths: Tensor | None, data: Tensor) -> None:
    """How many samples count: [batch], integers, where the data is."""
    if lengths is None:
        return
    check_tensor(name, lengths, "batch", _LENGTHS)
    _check_same_size("batch", ("the data", data.shape[0]), (name, lengths.shape[0]))
    _check_same_device(("the data", data), (name, lengths))


def check_equal_dtypes(names: Sequence[str], data: Sequence[Tensor]) -> None:
    """A fuse writes all streams into one tensor, so they must be of one dtype."""
    for name, other in zip(names[1:], data[1:], strict=True):
        if other.dtype != data[0].dtype:
            message = f"{name} is {short(other.dtype)}, but {names[0]} is {short(data[0].dtype)}; convert one of them"
            raise DTypeError(message)


def validates_values() -> bool:
    """Whether `ROBOCACHE_VALIDATE=1` asks for checks that read the tensors, which waits for a GPU."""
    try:
        # The dictionary behind `os.environ`: to ask the mapping for what is not there raises, and costs ten times more.
        value = os.environ._data.get(_VALIDATE)  # type: ignore[attr-defined]  # noqa: SLF001
    except AttributeError:
        return os.environ.get("ROBOCACHE_VALIDATE", "") not in ("", "0")
    return value is not None and os.environ.get("ROBOCACHE_VALIDATE", "") not in ("", "0")


def check_values(name: str, times: Tensor, lengths: Tensor | None) -> None:
    """Source times ascend, row by row, as far as they count.

    Raises:
        ArgumentError: It names the row and the index of the first stamp that is earlier than the one before it, or NaN.
    """
    source = times.shape[1]
    if lengths is not None and bool(((lengths < 0) | (lengths > source)).any()):
        row = int(((lengths < 0) | (lengths > source)).nonzero()[0])
        raise ArgumentError(f"lengths[{row}] is {int(lengths[row])}, but {name} has source={source}")
    counts = torch.arange(1, source, device=times.device)[None] < (source if lengths is None else lengths[:, None])
    wrong = (~(times[:, 1:] >= times[:, :-1]) & counts).nonzero()
    if len(wrong):
        row, index = (int(at) for at in wrong[0])
        earlier, later = times[row, index].item(), times[row, index + 1].item()
        message = f"{name} must ascend, but row {row} goes from {earlier} at index {index} to {later} at {index + 1}"
        raise ArgumentError(message)


def _check_policy(name: str, data: Tensor, policy: object) -> None:
    if not isinstance(policy, Policy):
        raise ArgumentError(f"the policy of {name} must be a robocache policy such as Linear(), got {policy!r}")
    if data.dtype in WHOLE:
        kind = type(policy).__name__
        if not isinstance(policy, Nearest | Previous):
            message = f"{name} is {short(data.dtype)}, but {kind} needs floating data; use Nearest or Previous"
            raise DTypeError(message)
        if policy.outside == "nan":
            raise DTypeError(f"{name} is {short(data.dtype)}, which has no NaN for outside='nan'; use outside='clamp'")
    elif isinstance(policy, Slerp) and data.shape[2] % _QUATERNION:
        raise ShapeError(f"Slerp needs dim a multiple of 4 (quaternions), but {name} has dim={data.shape[2]}")


def _check_same_size(axis: str, one: tuple[str, int], other: tuple[str, int]) -> None:
    if one[1] != other[1]:
        raise ShapeError(f"{other[0]} has {axis}={other[1]}, but {one[0]} has {axis}={one[1]}")


def _check_same_device(one: tuple[str, Tensor], other: tuple[str, Tensor]) -> None:
    if one[1].device != other[1].device:
        raise DeviceError(f"{other[0]} is on {other[1].device}, but {one[0]} is on {one[1].device}")
