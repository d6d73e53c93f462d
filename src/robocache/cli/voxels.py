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
from robocache.readers.stored_points import scan_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from robocache.align import AlignedScans, Voxelize

Counts = npt.NDArray[np.int64]
POINTS_AT_ONCE = 2**20
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
        offsets: [scans + 1] int64, where the voxels of each begin.
        voxels: [occupied, 3] int16: x, y, z; ascending within a scan.
        counts: [occupied] int32, points in the voxel.
        points: How many points went in; those outside the box are not in the counts.
    """

    box: VoxelBox
    scans: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    voxels: npt.NDArray[np.int16]
    counts: npt.NDArray[np.int32]
    points: int

    @property
    def top_view(self) -> Counts:
        """Points above each (x, y): [X, Y]."""
        return self._summed(0, 1)

    @property
    def side_view(self) -> Counts:
        """Points behind each (x, z): [X, Z]."""
        return self._summed(0, 2)

    def only(self, place: int) -> VoxelScans:
        """One of the scans."""
        mine = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        counts, ends = self.counts[mine], np.array([0, mine.stop - mine.start])
        return VoxelScans(
            self.box, self.scans[place : place + 1], ends, self.voxels[mine], counts, int(counts.sum(dtype=np.int64))
        )

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
            offsets=self.offsets,
            voxels=self.voxels,
            counts=self.counts,
            grid_min=np.array(self.box.grid_min),
            voxel_size=np.array(self.box.voxel_size),
            grid_size=np.array(self.box.grid_size),
        )

    def _summed(self, first: int, second: int) -> Counts:
        shape = (self.box.grid_size[first], self.box.grid_size[second])
        cells = np.ravel_multi_index((self.voxels[:, first], self.voxels[:, second]), shape)
        return np.bincount(cells, weights=self.counts, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def voxelize_scans(
    aligned: AlignedScans, voxel_size: float, *, box: VoxelBox | None = None, backend: str | None, device: str | None
) -> VoxelScans:
    """Sort every scan that some frame uses into voxels, each scan once, about a million points in one packed call."""
    offsets = aligned.stream.offsets
    assert offsets is not None  # a stream of kind "points" always has them
    scans = np.unique(aligned.scan)
    counts = offsets[scans + 1] - offsets[scans]
    total = int(counts.sum())
    if box is None:
        step = max(1, -(-total // POINTS_AT_ONCE))  # every so many points show where the cloud lies
        sampled = [points[::step] for _, _, points in _runs(aligned, scans)]
        box = VoxelBox.around(np.concatenate(sampled) if sampled else np.empty((0, 3), np.float32), voxel_size)
    voxels: list[npt.NDArray[np.int16]] = []
    inside: list[npt.NDArray[np.int32]] = []
    occupied_of = [np.zeros(1, np.int64)]
    for first, after, points in _runs(aligned, scans):
        begins = offsets[first : after + 1] - offsets[first]
        occupied = voxelize_pointcloud(
            torch.from_numpy(points).to(device or "cpu"),
            None,
            box.grid_min,
            box.voxel_size,
            box.grid_size,
            "count",
            offsets=torch.from_numpy(begins).to(device or "cpu"),
            layout="coo",
            backend=backend,
        )
        places = occupied.coordinates.cpu().numpy()
        occupied_of.append(np.bincount(places[:, 0], minlength=after - first))
        voxels.append(places[:, 1:].astype(np.int16))
        inside.append(occupied.counts.cpu().numpy())
    return VoxelScans(
        box,
        scans,
        np.cumsum(np.concatenate(occupied_of)),
        np.concatenate([np.empty((0, 3), np.int16), *voxels]),
        np.concatenate([np.empty(0, np.int32), *inside]),
        total,
    )


def _runs(aligned: AlignedScans, scans: Counts) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Scans that follow each other: the first, the one after the last, and x, y, z of their points."""
    values, offsets = aligned.stream.values, aligned.stream.offsets
    assert offsets is not None
    for first, after in scan_runs(scans, offsets, POINTS_AT_ONCE):
        yield first, after, np.ascontiguousarray(values[offsets[first] : offsets[after], :3])
