"""Sort points into voxels: the contract of `voxelize_pointcloud`. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from robocache.ops import checks, plans, registration
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.voxelize_pointcloud import arguments, native, sparse, torch_backend
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple
from robocache.records import SparseVoxels

Numbers = float | Sequence[float]
_Grid = tuple[Triple, Triple, GridSize]


@overload
def voxelize_pointcloud(
    points: Tensor,
    features: Tensor | None = ...,
    grid_min: Sequence[float] = ...,
    voxel_size: Numbers = ...,
    grid_size: Sequence[int] = ...,
    mode: str = ...,
    *,
    offsets: Tensor | None = ...,
    outside: str = ...,
    layout: Literal["dense"] = ...,
    out: Tensor | None = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def voxelize_pointcloud(
    points: Tensor,
    features: Tensor | None = ...,
    grid_min: Sequence[float] = ...,
    voxel_size: Numbers = ...,
    grid_size: Sequence[int] = ...,
    mode: str = ...,
    *,
    offsets: Tensor | None = ...,
    outside: str = ...,
    layout: Literal["coo"],
    out: None = ...,
    backend: str | None = ...,
) -> SparseVoxels: ...
def voxelize_pointcloud(  # noqa: PLR0913  the extra ones are keyword-only
    points: Tensor,
    features: Tensor | None = None,
    grid_min: Sequence[float] = (-10.0, -10.0, -10.0),
    voxel_size: Numbers = 0.1,
    grid_size: Sequence[int] = (128, 128, 128),
    mode: str = "occupancy",
    *,
    offsets: Tensor | None = None,
    outside: str = "drop",
    layout: str = "dense",
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | SparseVoxels:
    """Sort a point cloud into a regular grid of half-open voxels.

    A point's voxel is `floor((p - grid_min) / voxel_size)` along each axis, computed in the points' dtype (float16
    and bfloat16 become float32) with IEEE division, so that it is the same number on every backend. Points outside
    the grid, NaN and inf are dropped. Empty voxels are 0. Work is enqueued on the current stream of the points'
    device; with the dense layout nothing waits for it.

    Args:
        points: [point, 3] floating: x, y, z in metres, or in any unit that `grid_min` and `voxel_size` share.
        features: [point, feature] floating, for the modes "mean", "max", "min" and "sum".
        grid_min: The grid's lowest corner.
        voxel_size: Edge length of a voxel, one number or three, greater than 0.
        grid_size: Number of voxels along x, y and z.
        mode: "occupancy" (0 or 1) or "count", int32; "mean", "max", "min" or "sum" of the features, float32. A NaN
            feature makes its voxel NaN.
        offsets: [cloud + 1] int64, ascending from 0 to the number of points: packs several clouds into `points`, cloud
            k being points[offsets[k]:offsets[k + 1]]. The grids then stand in front: [cloud, X, Y, Z].
        outside: "drop" points outside the grid, or "clamp" them to its border voxels (NaN and inf are dropped anyway).
        layout: "dense", or "coo" for the occupied voxels only (it must wait for their number, and is built by
            PyTorch's sort on every backend).
        out: A contiguous grid of the result's shape and dtype, to be overwritten and returned.
        backend: "cuda" (GPU kernels), "native" (compiled, on a CPU), "pytorch" (portable), or None for the best on the
            points' device.

    Returns:
        [X, Y, Z] int32 or [X, Y, Z, feature] float32, Z (then the feature) fastest; or `SparseVoxels` for "coo".
        "mean" and "sum" add in a fixed order under `torch.use_deterministic_algorithms(True)`; the others always give
        the same bits.

    Raises:
        ShapeError, DTypeError, DeviceError, ArgumentError: The message names the argument and shows both sides.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    how = None
    if layout == "dense" and plans.may_plan():
        absent = (features is None, offsets is None, out is None)
        numbers = (arguments.as_key(grid_min), arguments.as_key(voxel_size), arguments.as_key(grid_size))
        how = (absent, numbers, mode, outside, backend, torch.are_deterministic_algorithms_enabled())
        tensors = arguments.present(points, features, offsets, out)
        plan = _PLANS.recall(how, tensors) or _PLANS.find(how, tensors, arguments.present(points, features))
        if plan is not None:
            return plan(points, features, offsets, out)
    grid = (
        arguments.as_triple("grid_min", grid_min),
        arguments.as_voxel_size(voxel_size),
        arguments.as_grid_size(grid_size),
    )
    arguments.check_cloud(points, features, mode, offsets)
    arguments.check_choice("outside", outside, ("drop", "clamp"))
    arguments.check_choice("layout", layout, ("dense", "coo"))
    chosen = choose_backend(backend, points.device.type)
    if not torch.compiler.is_compiling() and offsets is not None and checks.validates_values():
        arguments.check_offsets_values(offsets, points)
    if layout == "coo":
        arguments.check_no_out(out)
        return sparse.occupied_voxels(points, features, grid, mode, offsets, outside)
    shape = _shape(grid[2], features, offsets)
    if out is not None:
        dtype = torch.int32 if features is None else torch.float32
        arguments.check_out(out, shape, dtype, points)
    if how is not None and plans.are_plannable(arguments.present(points, features), tensors):
        plan = _plan((points, features, offsets), grid, (mode, outside), chosen)
        _PLANS.remember(how, tensors, plan)
        return plan(points, features, offsets, out)
    if registration.needs_operator(chosen, [] if features is None else [features], (points, offsets)):
        result: Tensor = _operator(points, features, *map(list, grid), mode, offsets, outside, chosen)
        return result if out is None else out.copy_(result)
    return _run(points, features, grid, (mode, offsets, outside), (chosen, out))


def _shape(grid_size: GridSize, features: Tensor | None, offsets: Tensor | None) -> tuple[int, ...]:
    clouds = () if offsets is None else (offsets.shape[0] - 1,)
    tail = () if features is None else (features.shape[1],)
    return (*clouds, *grid_size, *tail)


_PLANS: plans.PlanCache[plans.Plan[Tensor]] = plans.PlanCache()


def _plan(
    cloud: tuple[Tensor, Tensor | None, Tensor | None], grid: _Grid, how: tuple[str, str], backend: str
) -> plans.Plan[Tensor]:
    """What a later call with tensors like these has left to do."""
    mode, outside = how
    if backend == "cuda" and not kernels("voxelize_pointcloud").adds_in_fixed_order(mode):
        points, features, offsets = cloud
        plan: plans.Plan[Tensor] = kernels("voxelize_pointcloud").VoxelPlan(
            points, features, grid, mode, offsets, outside
        )
        return plan

    def run(points: Tensor, features: Tensor | None, offsets: Tensor | None, out: Tensor | None) -> Tensor:
        return _run(points, features, grid, (mode, offsets, outside), (backend, out))

    return run


def _run(
    points: Tensor,
    features: Tensor | None,
    grid: _Grid,
    how: tuple[str, Tensor | None, str],
    where: tuple[str, Tensor | None],
) -> Tensor:
    backend, out = where
    if backend == "native":
        return native.voxelize_pointcloud(points, features, *grid, *how, out=out)
    module = kernels("voxelize_pointcloud") if backend == "cuda" else torch_backend
    result: Tensor = module.voxelize_pointcloud(points, features, *grid, *how)
    return result if out is None else out.copy_(result)


def _operator_run(  # noqa: PLR0913, PLR0917  the operator's schema
    points: Tensor,
    features: Tensor | None,
    grid_min: list[float],
    voxel_size: list[float],
    grid_size: list[int],
    mode: str,
    offsets: Tensor | None,
    outside: str,
    backend: str,
) -> Tensor:
    grid = (
        arguments.as_triple("grid_min", grid_min),
        arguments.as_voxel_size(voxel_size),
        arguments.as_grid_size(grid_size),
    )
    return _run(points, features, grid, (mode, offsets, outside), (backend, None))


def _operator_fake(  # noqa: PLR0913, PLR0917
    points: Tensor,
    features: Tensor | None,
    grid_min: list[float],
    voxel_size: list[float],
    grid_size: list[int],
    mode: str,
    offsets: Tensor | None,
    outside: str,
    backend: str,
) -> Tensor:
    del grid_min, voxel_size, mode, outside, backend
    x, y, z = grid_size
    dtype = torch.int32 if features is None else torch.float32
    return points.new_empty(_shape((x, y, z), features, offsets), dtype=dtype)


def _keep_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: object) -> None:
    del output
    points, features, *grid, mode, offsets, outside, _ = inputs
    ctx.save_for_backward(points, features, offsets)  # type: ignore[arg-type]
    ctx.how = (*(tuple(part) for part in grid), mode, outside)  # type: ignore[attr-defined, arg-type]


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    points, features, offsets = ctx.saved_tensors  # type: ignore[attr-defined]
    *grid, mode, outside = ctx.how  # type: ignore[attr-defined]

    def values(leaf: Tensor) -> Tensor:
        return torch_backend.voxelize_pointcloud(points, leaf, grid[0], grid[1], grid[2], mode, offsets, outside)

    (pulled,) = registration.pull_back(values, [features], gradient)
    return None, pulled, None, None, None, None, None, None, None


_operator = registration.define(
    "voxelize",
    "(Tensor points, Tensor? features, float[] grid_min, float[] voxel_size, int[] grid_size, str mode,"
    " Tensor? offsets, str outside, str backend) -> Tensor",
    _operator_run,
    _operator_fake,
)
registration.differentiate("voxelize", _backward, _keep_inputs)

__all__ = ["voxelize_pointcloud"]
