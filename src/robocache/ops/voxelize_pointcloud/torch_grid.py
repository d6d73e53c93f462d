"""The cells of a `VoxelGrid` in vectorised PyTorch, on any device: the last cloud's voxel numbers are kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robocache.ops.voxelize_pointcloud import torch_backend
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple


class TorchCells:
    """A grid, one cell longer for the points that are dropped, and the voxel numbers of what it holds.

    Args:
        box: The grid's lowest corner, the edges of a voxel, and the number of voxels.
        how: The mode and the rule for points outside.
        features: Columns, or 0 for modes that count.
        device: Where.
    """

    def __init__(
        self, box: tuple[Triple, Triple, GridSize], how: tuple[str, str], features: int, device: torch.device
    ) -> None:
        self._box, (self._mode, self._outside) = box, how
        total, tail = math.prod(box[2]), (features,) if features else ()
        dtype = torch.float32 if features else torch.int32
        self._flat = torch.zeros((total + 1, *tail), dtype=dtype, device=device)
        self._counts = torch.zeros(total + 1, dtype=torch.int32, device=device) if self._mode == "mean" else None
        self.values = self._flat[:total].view(*box[2], *tail)
        self._lists: list[Tensor] = []

    @property
    def touched(self) -> int:
        """Voxel numbers kept, of dropped points too."""
        return sum(map(len, self._lists))

    def reserve(self, points: int, *, beside: int) -> None:
        """Nothing: the numbers of a cloud are a tensor of their own."""

    def clear_all(self) -> None:
        """Empty every voxel."""
        self._flat.zero_()
        if self._counts is not None:
            self._counts.zero_()
        self._lists = []

    def clear_touched(self) -> None:
        """Empty the voxels whose numbers are kept."""
        for cells in self._lists:
            self._flat.index_fill_(0, cells, 0)
        self._lists = []

    def add(self, points: Tensor, features: Tensor | None, *, lists: bool) -> None:
        """Add a cloud, and keep its voxel numbers."""
        with torch.no_grad():
            cells = torch_backend.voxel_numbers(points, *self._box, None, self._outside)
            if features is None:
                self._count(cells)
            else:
                self._reduce(cells, features.float())
        if lists:
            self._lists.append(cells)

    def _count(self, cells: Tensor) -> None:
        if self._mode == "occupancy":
            self._flat.index_fill_(0, cells, 1)
        else:
            self._flat.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))

    def _reduce(self, cells: Tensor, features: Tensor) -> None:
        if self._mode in ("max", "min"):
            index = cells[:, None].expand_as(features)
            self._flat.scatter_reduce_(0, index, features, f"a{self._mode}", include_self=False)
            return
        self._flat.index_add_(0, cells, features)
        if self._counts is None:
            return
        self._counts.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
        # Points of one voxel all write the same mean.
        means = self._flat.index_select(0, cells) / self._counts.index_select(0, cells)[:, None]
        self._flat.index_copy_(0, cells, means)
        self._counts.index_fill_(0, cells, 0)
