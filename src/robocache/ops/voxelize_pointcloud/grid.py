"""A voxel grid for cloud after cloud: the contract of `VoxelGrid`. What a cloud touched is cleared before the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from robocache.errors import ArgumentError, DeviceError, ShapeError
from robocache.ops import registration
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.voxelize_pointcloud import Numbers, arguments, voxelize_pointcloud
from robocache.ops.voxelize_pointcloud.native_grid import NativeCells
from robocache.ops.voxelize_pointcloud.torch_grid import TorchCells

TRACKED_SHARE = 16  # a cloud of more points than a sixteenth of the voxels is written as a whole


class _Cells(Protocol):
    """What a backend keeps: the grid, and a list of the voxels that are not empty."""

    values: Tensor

    @property
    def touched(self) -> int: ...
    def reserve(self, points: int, *, beside: int) -> None: ...
    def clear_all(self) -> None: ...
    def clear_touched(self) -> None: ...
    def add(self, points: Tensor, features: Tensor | None, *, lists: bool) -> None: ...


class VoxelGrid:
    """Voxelizes cloud after cloud into one grid, and clears only what the last cloud touched.

    `voxelize_pointcloud` writes every voxel of its grid, most of them with zeros; for a sparse cloud that costs more
    than its points. A `VoxelGrid` gives the same values, bit for bit (mean and sum on a GPU as exactly as
    `voxelize_pointcloud`: both add in any order), and keeps them in one tensor. A cloud of more points than a
    sixteenth of the voxels is handed to `voxelize_pointcloud`, which is then about as quick or quicker.

    A grid serves one thread and, on a GPU, one stream at a time: work is enqueued on the current stream of the grid's
    device, and nothing waits for it. After an error the next update is right. It has no gradient, and cannot be
    captured in a CUDA graph.

    Args:
        grid_min: The grid's lowest corner.
        voxel_size: Edge length of a voxel, one number or three, greater than 0.
        grid_size: Number of voxels along x, y and z.
        mode: "occupancy" (0 or 1) or "count", int32; "mean", "max", "min" or "sum" of the features, float32.
        features: Number of feature columns; 0 for "occupancy" and "count".
        outside: "drop" points outside the grid, or "clamp" them to its border voxels.
        device: Where the grid lies, and clouds must; None takes the GPU if there is one, else the CPU.
        backend: "cuda" (GPU kernels), "native" (compiled, on a CPU), "pytorch" (portable), or None for the best on the
            device.

    Raises:
        ArgumentError: The message names the argument.
        BackendUnavailableError: The backend asked for cannot run on the device.
    """

    def __init__(  # noqa: PLR0913  the extra ones are keyword-only
        self,
        grid_min: Sequence[float] = (-10.0, -10.0, -10.0),
        voxel_size: Numbers = 0.1,
        grid_size: Sequence[int] = (128, 128, 128),
        mode: str = "occupancy",
        *,
        features: int = 0,
        outside: str = "drop",
        device: str | torch.device | None = None,
        backend: str | None = None,
    ) -> None:
        box = (
            arguments.as_triple("grid_min", grid_min),
            arguments.as_voxel_size(voxel_size),
            arguments.as_grid_size(grid_size),
        )
        arguments.check_columns(features, mode)
        arguments.check_choice("outside", outside, ("drop", "clamp"))
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._box, self._mode, self._outside, self._features = box, mode, outside, features
        self._backend = choose_backend(backend, where.type)
        self._tracked_points = math.prod(box[2]) // TRACKED_SHARE
        with torch.inference_mode(mode=False):  # or the grid could not be updated outside of it
            self._cells = self._new_cells(where)
        self._is_tracked = True  # what is not empty is in the list of cells

    @property
    def values(self) -> Tensor:
        """[X, Y, Z] int32 or [X, Y, Z, feature] float32: the grid, always the same tensor. Read it, do not write it."""
        return self._cells.values

    @property
    def backend(self) -> str:
        """Which backend serves the grid: "cuda", "native" or "pytorch"."""
        return self._backend

    def update(self, points: Tensor, features: Tensor | None = None) -> Tensor:
        """Voxelize one cloud in place of the last.

        Args:
            points: [point, 3] floating, as for `voxelize_pointcloud`; any number of points, in any dtype each time.
            features: [point, feature] floating, for the modes "mean", "max", "min" and "sum".

        Returns:
            `values`: the same tensor every time, which the next update overwrites. Clone what must stay.

        Raises:
            ShapeError, DTypeError, DeviceError, ArgumentError: The message names the argument and shows both sides;
                the grid is as it was.
        """
        points, features = self._checked(points, features)
        if self._must_be_whole(points, features):
            self._write_whole(points, features)
        else:
            self._cells.reserve(len(points), beside=0)
            self.clear()
            self._add(points, features, lists=True)
        return self._cells.values

    def accumulate(self, points: Tensor) -> Tensor:
        """Add one more cloud to those that the grid holds: the occupancy, or the counts, of all since the last update.

        Args:
            points: [point, 3] floating, as for `update`.

        Returns:
            `values`, the same tensor every time.

        Raises:
            ArgumentError: The mode reduces features, whose clouds cannot be told apart from the grid alone.
        """
        if self._features:
            message = f"accumulate is for mode='occupancy' or 'count', not {self._mode!r}"
            raise ArgumentError(f"{message}; concatenate the clouds and call update")
        points, _ = self._checked(points, None)
        if registration.needs_operator(self._backend, [points], ()):
            raise ArgumentError(
                "accumulate adds to a tensor in place, which nothing that traces or replaces can follow"
            )
        lists = self._is_tracked and self._cells.touched + len(points) <= self._tracked_points
        if lists:
            self._cells.reserve(len(points), beside=self._cells.touched)
        self._add(points, None, lists=lists)
        return self._cells.values

    def clear(self) -> None:
        """Empty the grid."""
        was_tracked, self._is_tracked = self._is_tracked, False  # unless it goes well to the end
        if was_tracked:
            self._cells.clear_touched()
        else:
            self._cells.clear_all()
        self._note_change()
        self._is_tracked = True

    def __repr__(self) -> str:
        grid_min, voxel_size, grid_size = self._box
        return (
            f"VoxelGrid(grid_min={grid_min}, voxel_size={voxel_size}, grid_size={grid_size}, mode={self._mode!r}, "
            f"features={self._features}, outside={self._outside!r}, device='{self.values.device}', "
            f"backend={self._backend!r})"
        )

    def _new_cells(self, device: torch.device) -> _Cells:
        how = (self._mode, self._outside)
        if self._backend == "cuda":
            cells: _Cells = kernels("voxelize_pointcloud", "triton_grid").TritonCells(
                self._box, how, self._features, device
            )
            return cells
        kind = NativeCells if self._backend == "native" else TorchCells
        return kind(self._box, how, self._features, device)

    def _checked(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The tensors, without a gradient that nobody would see."""
        arguments.check_cloud(points, features, self._mode, None)
        grid = self._cells.values
        if points.device != grid.device:
            message = f"points is on {points.device}, but the grid is on {grid.device}"
            raise DeviceError(f"{message}; move one, or make the grid with device={str(points.device)!r}")
        if features is not None:
            if features.shape[1] != self._features:
                message = f"features has feature={features.shape[1]}, but the grid was made with"
                raise ShapeError(f"{message} features={self._features}")
            if features.requires_grad and torch.is_grad_enabled():
                message = "features requires a gradient, which a grid that is overwritten cannot give"
                raise ArgumentError(f"{message}; pass features.detach(), or use voxelize_pointcloud")
        if grid.is_cuda and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
            message = "a VoxelGrid cannot be captured: later clouds would not know what a replay touched"
            raise ArgumentError(f"{message}; capture voxelize_pointcloud with out=")
        return points.detach(), None if features is None else features.detach()

    def _must_be_whole(self, points: Tensor, features: Tensor | None) -> bool:
        if len(points) > self._tracked_points:
            return True
        if registration.needs_operator(self._backend, [points] if features is None else [points, features], ()):
            return True
        return self._backend == "cuda" and bool(kernels("voxelize_pointcloud").adds_in_fixed_order(self._mode))

    def _write_whole(self, points: Tensor, features: Tensor | None) -> None:
        self._is_tracked = False
        out, box = self._cells.values, self._box
        how = {"outside": self._outside, "backend": self._backend}
        voxelize_pointcloud(points, features, *box, self._mode, out=out, **how)  # type: ignore[call-overload]
        self._note_change()

    def _add(self, points: Tensor, features: Tensor | None, *, lists: bool) -> None:
        self._is_tracked = False  # unless it goes well to the end
        self._cells.add(points, features, lists=lists)
        self._note_change()
        self._is_tracked = lists

    def _note_change(self) -> None:
        """Tell autograd, so that a backward through an earlier content raises instead of reading this one."""
        if self._backend != "pytorch" and not torch.compiler.is_compiling():
            torch.autograd.graph.increment_version(self._cells.values)


__all__ = ["VoxelGrid"]
