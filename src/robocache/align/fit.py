"""Does what a description asks of a stream fit what the stream holds?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robocache.align.then import Resize, Voxelize
from robocache.errors import ArgumentError
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

if TYPE_CHECKING:
    from robocache.align.spec import From
    from robocache.records import RecordedStream

_FEATURE_MODES = ("mean", "max", "min", "sum")


def check_fit(name: str, source: From, stream: RecordedStream) -> None:
    """Refuse a policy or a `then` that has no meaning for the stream.

    Raises:
        ArgumentError: The message names the stream, what it holds, and what would fit.
    """
    where = f"streams[{name!r}]"
    policy = source.policy
    if stream.kind in ("points", "image") and policy is not None and not isinstance(policy, Nearest | Previous):
        what = "is a point cloud, between whose scans" if stream.kind == "points" else "holds images, between which"
        message = f"{where} {what} there is nothing: use Nearest or Previous"
        raise ArgumentError(f"{message}, not {type(policy).__name__}")
    if isinstance(policy, Linear | Slerp | Angle) and stream.values.dtype.kind in "iub":
        message = f"{where} holds {stream.values.dtype}, between whose values there is nothing: use Nearest, Previous"
        raise ArgumentError(f"{message} or Window, not {type(policy).__name__}")
    if isinstance(source.then, Resize) and stream.kind != "image":
        raise ArgumentError(f"{where} holds {_held(stream)}, and Resize is for images: leave then= out")
    if isinstance(source.then, Voxelize):
        _check_voxels(where, source.then, stream)


def _check_voxels(where: str, then: Voxelize, stream: RecordedStream) -> None:
    if stream.kind != "points":
        raise ArgumentError(f"{where} holds {_held(stream)}, and Voxelize is for point clouds: leave then= out")
    if then.mode in _FEATURE_MODES and stream.values.shape[1] <= 3:
        message = f"{where} has points of x, y and z only, of which Voxelize(mode={then.mode!r}) finds no feature"
        raise ArgumentError(f"{message}: use mode='occupancy' or 'count'")


def _held(stream: RecordedStream) -> str:
    if stream.kind == "points":
        return "point clouds"
    if stream.kind == "image":
        return "images"
    kind = "" if stream.kind == "vector" else f" ({stream.kind})"
    return f"{np.dtype(stream.values.dtype).name} numbers{kind}"
