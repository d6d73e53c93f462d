"""The shapes `voxelize_pointcloud` promises: shared by tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robocache.ops.voxelize_pointcloud.reference import GridSize, Triple


@dataclass(frozen=True)
class Case:
    """One cloud, `inside` of it within the grid, and what to make of it."""

    name: str
    points: int
    grid_size: GridSize
    mode: str = "occupancy"
    features: int = 0
    inside: float = 0.9
    dtype: torch.dtype = torch.float32
    voxel_size: float = 0.1

    def __str__(self) -> str:
        return self.name

    @property
    def grid_min(self) -> Triple:
        """The grid is centred on the sensor."""
        x, y, z = (-0.5 * size * self.voxel_size for size in self.grid_size)
        return (x, y, z)

    def inputs(self, device: str | torch.device, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """Points [N,3] and features [N,F] or None, the same for the same seed on every device."""
        random = torch.Generator().manual_seed(seed)
        reach = torch.tensor(self.grid_size) * self.voxel_size / 2
        cloud = (torch.rand(self.points, 3, generator=random, dtype=torch.float64) * 2 - 1) * reach
        is_out = torch.rand(self.points, generator=random) >= self.inside
        cloud[is_out] *= 4
        features = None
        if self.features:
            features = torch.randn(self.points, self.features, generator=random).to(device)
        return cloud.to(self.dtype).to(device), features


EDGE_CASES = (
    Case("no_points", 0, (4, 5, 6)),
    Case("few", 100, (7, 5, 9), inside=0.5),
    Case("count", 700, (8, 4, 2), mode="count"),
    Case("one_voxel", 300, (1, 1, 1), mode="count", voxel_size=3.0),
    Case("double", 200, (16, 16, 16), mode="count", dtype=torch.float64),
    Case("half", 200, (16, 16, 16), mode="count", dtype=torch.float16),
    Case("mean", 500, (5, 6, 7), mode="mean", features=3),
    Case("sum", 500, (5, 6, 7), mode="sum", features=8),
    Case("max", 500, (5, 6, 7), mode="max", features=5),
    Case("min", 500, (5, 6, 7), mode="min", features=1),
    Case("no_points_mean", 0, (4, 5, 6), mode="mean", features=2),
)
SPEED_CASES = (
    Case("occupancy_500k_to_128", 500_000, (128, 128, 128), inside=1.0),
    Case("count_500k_to_128", 500_000, (128, 128, 128), mode="count", inside=1.0),
    Case("occupancy_10M_to_128", 10_000_000, (128, 128, 128), inside=1.0),
    Case("mean_1M_x8_to_256", 1_000_000, (256, 256, 256), mode="mean", features=8, inside=1.0),
    Case("max_1M_x8_to_256", 1_000_000, (256, 256, 256), mode="max", features=8, inside=1.0),
)
