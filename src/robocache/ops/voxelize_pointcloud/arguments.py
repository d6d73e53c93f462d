"""What `voxelize_pointcloud` refuses, and the numbers its backends take."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from robocache.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from robocache.ops.checks import FLOATING, check_tensor, short
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple

COUNTING = ("occupancy", "count")
REDUCING = ("mean", "max", "min", "sum")
_OFFSETS = frozenset({torch.int64})
_HASHABLE = frozenset({tuple, float, int})  # as most callers give them: known without asking an abstract class


def present(
    points: Tensor, features: Tensor | None, offsets: Tensor | None = None, out: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The tensors that are there."""
    tensors: tuple[Tensor, ...] = (points,)
    if features is not None:
        tensors += (features,)
    if offsets is not None:
        tensors += (offsets,)
    if out is not None:
        tensors += (out,)
    return tensors


def as_key(value: object) -> object:
    """The value as a dictionary takes it: a list of numbers is as good as a tuple of them."""
    if type(value) in _HASHABLE or isinstance(value, tuple | numbers.Real):
        return value
    return tuple(value) if isinstance(value, Iterable) else object()


def as_triple(name: str, value: float | Sequence[float]) -> Triple:
    """Three finite numbers; one number stands for all three."""
    try:
        sequence = (value,) * 3 if isinstance(value, numbers.Real) else tuple(value)  # type: ignore[arg-type]
        x, y, z = (float(number) for number in sequence)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must be one number or three, got {value!r}") from error
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise ArgumentError(f"{name} must be finite, got {value!r}")
    return x, y, z


def as_voxel_size(value: float | Sequence[float]) -> Triple:
    """Edge lengths, each greater than 0."""
    size = as_triple("voxel_size", value)
    if not min(size) > 0:
        raise ArgumentError(f"voxel_size must be greater than 0, got {value!r}")
    return size


def as_grid_size(value: Sequence[int]) -> GridSize:
    """Three whole numbers of voxels, each at least 1."""
    try:
        x, y, z = (operator.index(size) for size in value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"grid_size must be three whole numbers, got {value!r}") from error
    if min(x, y, z) < 1:
        raise ArgumentError(f"grid_size must be at least 1 along each axis, got {value!r}")
    return x, y, z


def check_cloud(points: Tensor, features: Tensor | None, mode: str, offsets: Tensor | None) -> None:
    """The tensors and whether the mode has a use for them."""
    check_tensor("points", points, "point, 3", FLOATING)
    if points.shape[1] != 3:
        raise ShapeError(f"points must be [point, 3], got shape {tuple(points.shape)}")
    _check_mode(mode)
    if features is None:
        if mode in REDUCING:
            raise ArgumentError(f"mode={mode!r} needs features [point, feature], got None")
    elif mode in COUNTING:
        raise ArgumentError(f"mode={mode!r} has no use for features; pass mode='mean', 'max', 'min' or 'sum'")
    else:
        check_tensor("features", features, "point, feature", FLOATING)
        if len(features) != len(points):
            raise ShapeError(f"features has point={len(features)}, but points has point={len(points)}")
        _check_device("features", features, points)
    if offsets is not None:
        check_tensor("offsets", offsets, "cloud + 1", _OFFSETS)
        if len(offsets) == 0:
            raise ShapeError("offsets must hold the start of the first cloud at least, got none")
        _check_device("offsets", offsets, points)


def check_columns(features: object, mode: str) -> None:
    """The number of feature columns of a grid, and whether the mode has a use for them."""
    _check_mode(mode)
    if not isinstance(features, int) or isinstance(features, bool) or features < 0:
        raise ArgumentError(f"features must be a number of columns, 0 or more, got {features!r}")
    if features == 0 and mode in REDUCING:
        raise ArgumentError(f"mode={mode!r} needs features, the number of feature columns, got 0")
    if features > 0 and mode in COUNTING:
        raise ArgumentError(f"mode={mode!r} has no use for features; pass mode='mean', 'max', 'min' or 'sum'")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in choices:
        raise ArgumentError(f"{name} must be {' or '.join(repr(choice) for choice in choices)}, got {value!r}")


def check_out(out: Tensor, shape: tuple[int, ...], dtype: torch.dtype, points: Tensor) -> None:
    """A grid to fill again must be exactly what a new one would be."""
    if not isinstance(out, Tensor):
        raise ArgumentError(f"out must be a torch.Tensor, got {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise ShapeError(f"out has shape {tuple(out.shape)}, but the result has shape {shape}")
    if out.dtype != dtype:
        raise DTypeError(f"out is {short(out.dtype)}, but the result is {short(dtype)}")
    if not out.is_contiguous():
        raise ShapeError("out must be contiguous, so that it can be filled in one pass")
    _check_device("out", out, points)


def check_no_out(out: Tensor | None) -> None:
    """The number of occupied voxels is not known before."""
    if out is not None:
        raise ArgumentError("out goes with layout='dense'; the size of a coo result is not known before")


def check_offsets_values(offsets: Tensor, points: Tensor) -> None:
    """Offsets ascend from 0 to the number of points (`ROBOCACHE_VALIDATE=1` only: it reads the values)."""
    wanted = f"offsets must ascend from 0 to point={len(points)}"
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(points):
        raise ArgumentError(f"{wanted}, got {int(offsets[0])} to {int(offsets[-1])}")
    falls = (offsets[1:] < offsets[:-1]).nonzero()
    if len(falls):
        at = int(falls[0])
        raise ArgumentError(f"{wanted}, but go from {int(offsets[at])} at index {at} to {int(offsets[at + 1])}")


def _check_mode(mode: str) -> None:
    if mode not in COUNTING + REDUCING:
        raise ArgumentError(f"mode must be one of {', '.join(COUNTING + REDUCING)}, got {mode!r}")


def _check_device(name: str, tensor: Tensor, points: Tensor) -> None:
    if tensor.device != points.device:
        raise DeviceError(f"{name} is on {tensor.device}, but points is on {points.device}")
