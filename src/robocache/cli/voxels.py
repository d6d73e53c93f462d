"""The clouds of an aligned episode as voxels: which box, which scans, and what the report draws of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from robocache.errors import ArgumentError
from robocache.ops import voxelize_pointcloud

if TYPE_CHECKING:
    from robocache.align import AlignedScans, Voxelize

Counts = npt.NDArray[np.int64]
MAX_CELLS = 512  # along an axis
MAX_PLACE = 2**20  # beyond, float32 points have steps of an eighth of a voxel and more
EDGE_PERCENT = 0.5  # stray points on each side that the box need not hold


@dataclass(frozen=True)
class VoxelBox:
    """A grid of voxels.

    Args:
        grid_min: Its lowest corner, metres.
        voxel_size: Edge of a voxel, metres.
        grid_size: Voxels along x, y and z.
    """

    grid_min: tuple[float, float, float]
    voxel_size: float
    grid_size: tuple[int, int, int]

    @classmethod
    def around(cls, points: npt.NDArray[np.generic], voxel_size: float) -> VoxelBox:
        """The box that holds all but half a percent of the points on each side, on whole multiples of the voxel.

        Raises:
            ArgumentError: There is no finite point, the box has more than `MAX_CELLS` voxels along an axis, or it lies
                more than `MAX_PLACE` voxels from the origin.
        """
        finite = points[np.isfinite(points).all(axis=1)].astype(np.float64)
        if not len(finite):
            raise ArgumentError("the cloud has no finite point to put into voxels; leave its stream out with --streams")
        low, high = np.percentile(finite, [EDGE_PERCENT, 100 - EDGE_PERCENT], axis=0)
        # Whole numbers as floats until they are known to fit: a damaged cloud may hold any of them.
        first = np.floor(low / voxel_size)
        size = np.floor(high / voxel_size) - first + 1
        if size.max() > MAX_CELLS:
            message = (
                f"voxel size {voxel_size:g} m cuts the cloud's {(high - low).max():.1f} m into {size.max():.0f} voxels"
            )
            raise ArgumentError(f"{message}, more than {MAX_CELLS}; choose a larger --voxel-size")
        if abs(first).max() > MAX_PLACE:
            message = f"the cloud lies {abs(low).max():g} m from the origin, more than {MAX_PLACE} voxels"
            raise ArgumentError(f"{message} of {voxel_size:g} m; leave its stream out, or choose a larger --voxel-size")
        x, y, z = (first * voxel_size).tolist()
        nx, ny, nz = size.astype(np.int64).tolist()
        return cls((x, y, z), voxel_size, (nx, ny, nz))

    @classmethod
    def of(cls, name: str, voxelize: Voxelize) -> VoxelBox:
        """The box that a description asks for.

        Raises:
            ArgumentError: Its voxels are no cubes, or more than `MAX_CELLS` along an axis.
        """
        arguments = voxelize.arguments
        size, cells = arguments["voxel_size"], arguments["grid_size"]
        edges = set(size) if isinstance(size, tuple) else {size}
        if len(edges) > 1 or max(cells) > MAX_CELLS:
            message = f"streams[{name!r}].then asks for {cells} voxels of {size}"
            raise ArgumentError(f"{message}; files hold cubes, at most {MAX_CELLS} along an axis")
        return cls(arguments["grid_min"], float(edges.pop()), cells)


@dataclass(frozen=True)
class VoxelScans:
    """The scans that an aligned episode uses, as occupied voxels.

    Args:
        box: The grid.
        scans: [scans] int64, which scans of the stream.
        voxels: [occupied, 4] int32: place in `scans`, x, y, z; ascending.
        counts: [occupied] int32, points in the voxel.
        points: How many points went in; those outside the box are not in the counts.
    """

    box: VoxelBox
    scans: npt.NDArray[np.int64]
    voxels: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    points: int

    @property
    def top_view(self) -> Counts:
        """Points above each (x, y): [X, Y]."""
        return self._summed(1, 2)

    @property
    def side_view(self) -> Counts:
        """Points behind each (x, z): [X, Z]."""
        return self._summed(1, 3)

    def only(self, place: int) -> VoxelScans:
        """One of the scans."""
        mine = self.voxels[:, 0] == place
        points = int(self.counts[mine].sum())
        return VoxelScans(self.box, self.scans[place : place + 1], self.voxels[mine], self.counts[mine], points)

    def document(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "scans": len(self.scans),
            "points": self.points,
            "inside": int(self.counts.sum()),
            "occupied": len(self.counts),
            "grid_min": list(self.box.grid_min),
            "voxel_size": self.box.voxel_size,
            "grid_size": list(self.box.grid_size),
        }

    def save(self, path: Path) -> None:
        """As an .npz: the voxels of scans[k] are voxels[offsets[k]:offsets[k + 1]], and so are their counts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            scans=self.scans,
            offsets=np.searchsorted(self.voxels[:, 0], np.arange(len(self.scans) + 1)),
            voxels=self.voxels[:, 1:].astype(np.int16),
            counts=self.counts,
            grid_min=np.array(self.box.grid_min),
            voxel_size=np.array(self.box.voxel_size),
            grid_size=np.array(self.box.grid_size),
        )

    def _summed(self, first: int, second: int) -> Counts:
        shape = (self.box.grid_size[first - 1], self.box.grid_size[second - 1])
        cells = np.ravel_multi_index((self.voxels[:, first], self.voxels[:, second]), shape)
        return np.bincount(cells, weights=self.counts, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def voxelize_scans(
    aligned: AlignedScans, voxel_size: float, *, box: VoxelBox | None = None, backend: str | None, device: str | None
) -> VoxelScans:
    """Sort every scan that some frame uses into voxels, each scan once, in one packed call."""
    stream = aligned.stream
    assert stream.offsets is not None  # a stream of kind "points" always has them
    scans = np.unique(aligned.scan)
    pieces = [stream.values[stream.offsets[scan] : stream.offsets[scan + 1], :3] for scan in scans]
    points = np.concatenate(pieces) if pieces else np.empty((0, 3), np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    box = VoxelBox.around(points, voxel_size) if box is None else box
    occupied = voxelize_pointcloud(
        torch.from_numpy(points).to(device or "cpu"),
        None,
        box.grid_min,
        box.voxel_size,
        box.grid_size,
        "count",
        offsets=torch.from_numpy(offsets).to(device or "cpu"),
        layout="coo",
        backend=backend,
    )
    voxels = occupied.coordinates.to(torch.int32).cpu().numpy()
    return VoxelScans(box, scans, voxels, occupied.counts.cpu().numpy(), len(points))
