"""The cells of a `VoxelGrid` in the compiled CPU library: it lists each voxel that it is the first to touch."""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor

from robocache.ops.native_library import library, readable
from robocache.ops.voxelize_pointcloud.native import CALL_LAYOUT, call_fields
from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple

_CALL = struct.Struct("@4q" + CALL_LAYOUT)


class NativeCells:
    """A grid in memory, and the list of its voxels that are not empty.

    Args:
        box: The grid's lowest corner, the edges of a voxel, and the number of voxels.
        how: The mode and the rule for points outside.
        features: Columns, or 0 for modes that count.
        device: The CPU.
    """

    def __init__(
        self, box: tuple[Triple, Triple, GridSize], how: tuple[str, str], features: int, device: torch.device
    ) -> None:
        self._box, self._how = box, how
        tail = (features,) if features else ()
        self.values = torch.zeros((*box[2], *tail), dtype=torch.float32 if features else torch.int32, device=device)
        self._counts = torch.zeros(math.prod(box[2]), dtype=torch.int32) if features else None
        self._touched = torch.empty(0, dtype=torch.int64)
        self._no_points = torch.empty(0, 3)
        self._no_features = torch.empty(0, features) if features else None
        self.touched = 0

    def reserve(self, points: int, *, beside: int) -> None:
        """Have room in the list for a cloud's voxels beside the first so many; what is in the list stays."""
        wanted = beside + points
        if wanted > len(self._touched):
            grown = torch.empty(max(wanted, 2 * len(self._touched)), dtype=torch.int64)
            grown[: self.touched] = self._touched[: self.touched]
            self._touched = grown

    def clear_all(self) -> None:
        """Empty every voxel."""
        self.values.zero_()
        if self._counts is not None:
            self._counts.zero_()
        self.touched = 0

    def clear_touched(self) -> None:
        """Empty the voxels in the list, and the list."""
        self.touched = self._update(self._no_points, self._no_features, (self._touched.data_ptr(), self.touched, 0))

    def add(self, points: Tensor, features: Tensor | None, *, lists: bool) -> None:
        """Add a cloud, and the voxels it touches to the list."""
        if lists:
            self.reserve(len(points), beside=self.touched)
        points, features = readable(points), None if features is None else readable(features)
        self.touched = self._update(points, features, (self._touched.data_ptr() if lists else 0, 0, self.touched))

    def _update(self, points: Tensor, features: Tensor | None, touched: tuple[int, int, int]) -> int:
        address, cleared, kept = touched
        counts = 0 if self._counts is None else self._counts.data_ptr()
        cloud = call_fields((points, features, None, self.values), self._box, *self._how, is_fresh=False)
        return int(library().robocache_update(_CALL.pack(address, counts, cleared, kept, *cloud)))
