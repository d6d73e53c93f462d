"""A cloud into voxels: the inputs, its bytes, and what the reference says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robocache.ops.voxelize_pointcloud import reference, voxelize_pointcloud
from robocache.ops.voxelize_pointcloud.cases import Case

SAMPLE_VOXELS = 100


@dataclass(frozen=True)
class VoxelProblem:
    """One cloud and its grid.

    Args:
        case: Grid and mode.
        points: [point, 3].
        features: [point, feature], or None.
    """

    case: Case
    points: Tensor
    features: Tensor | None

    @classmethod
    def of(cls, case: Case, device: str) -> VoxelProblem:
        """The inputs of a case.

        Args:
            case: A case of the operation.
            device: Where the inputs shall lie.
        """
        return cls(case, *case.inputs(device))

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.points.device

    def call(self, backend: str) -> Callable[[], Tensor]:
        """The public operation on these inputs.

        Args:
            backend: As the operation takes it.
        """
        case = self.case
        grid = (case.grid_min, case.voxel_size, case.grid_size, case.mode)
        return partial(voxelize_pointcloud, self.points, self.features, *grid, backend=backend)

    def output_bytes(self) -> int:
        """Bytes of the grid: four a number."""
        x, y, z = self.case.grid_size
        return x * y * z * max(self.case.features, 1) * 4

    def needed_bytes(self) -> int:
        """The fewest bytes that must move: the cloud and the grid, each once."""
        features = 0 if self.features is None else self.features.nbytes
        return self.points.nbytes + features + self.output_bytes()

    def reference_part(self) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """How to take a part of the grid, and what the float64 reference says it is."""
        case, edge = self.case, (self.case.voxel_size,) * 3
        if self.features is None:
            grid = (case.grid_min, edge, case.grid_size, case.mode)
            return lambda result: result, reference.voxelize_pointcloud(self.points, None, *grid, None, "drop")
        cells = reference.voxel_numbers(self.points, case.grid_min, edge, case.grid_size, None, "drop")
        occupied = torch.unique(cells[cells >= 0])
        chosen = occupied[:: max(len(occupied) // SAMPLE_VOXELS, 1)]
        reduce = reference.REDUCTIONS[case.mode]
        rows = [reduce(self.features[cells == cell].double()) for cell in chosen]
        wanted = torch.stack(rows).float()
        return lambda result: result.reshape(-1, case.features)[chosen], wanted
