"""When a voxelization goes by tiles, how large they are, and its launches; `triton_tiles.py` is the device code.

Besides the grid it takes memory for about one number a voxel and two a point; the atomics take as much for a mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robocache.ops.direct_launch import fill_zero
from robocache.ops.launch import PreparedKernel
from robocache.ops.triton_voxel import SUM
from robocache.ops.voxelize_pointcloud import triton_tiles

# Below these, zeros and atomics are as fast: the grid stays in the L2 cache, hardly anything is added to it, or most
# tiles are overfull.
LEAST_BYTES = 32 << 20
LEAST_POINTS = 1 << 18
LEAST_ROOM = 2  # keys in all bins for each point
# A tile is small enough to be sorted at once, and large enough to be worth a program.
TILE_BYTES = 16 << 10
LEAST_TILE_BYTES = 2 << 10
LEAST_TILE_CELLS = 4
MEAN_POINTS = 32  # what tiles are made to hold, on average
BLOCK = 64  # points that a program sorts at once; tiles with more are crowded
BLOCK_LIST = 256  # points of the list
BLOCK_MIDDLE = 256  # points of crowded tiles that are not sorted among the most
BLOCK_FULL = 1024  # points that a program sorts at most; tiles with more are overfull
KEY_BITS = 31  # of a narrow key: voxel of the tile, then point
ELEMENTS_PER_WARP = 512
POINTS_PER_PROGRAM = 512
ZEROS_PER_STORE = 1024
WARPS = 4
TILE_WARPS = 4  # of the program that writes a tile; one or eight were slower (benchmarks/results/voxels_h200.json)
PROGRAMS = 2048  # of what is left for few tiles or none: they take turns
_CONTROL = 3  # numbers behind the counts
_NUMBER_BITS = 31  # of a point
_MOST = 1 << 30  # points or tiles, so that sums of their numbers stay in int32


@dataclass(frozen=True)
class Tiling:
    """How a grid is cut. A tile has 2**tile_bits voxels, its bin room for `capacity` points.

    Args:
        points: Points of the cloud.
        cells: Voxels of the grid.
        width: Features of a point, at least 1.
        tile_bits: Logarithm of a tile's voxels.
    """

    points: int
    cells: int
    width: int
    tile_bits: int

    @classmethod
    def of(cls, points: int, cells: int, width: int) -> Tiling:
        """The largest tiles that hold MEAN_POINTS on average and are not too large for a program.

        Args:
            points: Points of the cloud.
            cells: Voxels of the grid.
            width: Features of a point, at least 1.
        """
        size = min(_most_cells(width), MEAN_POINTS * cells // max(points, 1))
        size = max(size, LEAST_TILE_BYTES // (4 * width), LEAST_TILE_CELLS)
        return cls(points, cells, width, size.bit_length() - 1)

    @property
    def tiles(self) -> int:
        """Their number; the last one may be cut off by the end of the grid."""
        return -(-self.cells >> self.tile_bits)

    @property
    def capacity(self) -> int:
        """Keys in a bin. As many as the tile has voxels, so that the bin can count them if it is overfull."""
        return min(max(BLOCK, 1 << self.tile_bits), BLOCK_FULL)

    @property
    def busy(self) -> int:
        """How many tiles can be crowded or overfull."""
        return min(self.tiles, self.points // (BLOCK + 1))

    @property
    def overfull(self) -> int:
        """How many tiles can be overfull."""
        return min(self.tiles, self.points // (self.capacity + 1))

    @property
    def key_bits(self) -> int:
        """Bits of a point's number in a key."""
        narrow = KEY_BITS - self.tile_bits
        return narrow if narrow > 0 and self.points < 1 << narrow else _NUMBER_BITS

    @property
    def key_dtype(self) -> torch.dtype:
        """The narrowest integer that holds a voxel of the tile and a point."""
        return torch.int32 if self.key_bits + self.tile_bits <= KEY_BITS else torch.int64

    def pays(self) -> bool:
        """Whether tiles are faster than atomics, as far as sizes can tell."""
        is_large = 4 * self.cells * self.width > LEAST_BYTES and self.points >= LEAST_POINTS
        has_room = LEAST_ROOM * self.points <= self.capacity * self.tiles
        return is_large and has_room and max(self.points, self.tiles) < _MOST


class TilePlan:
    """The launches of a voxelization by tiles: made once for a set of shapes.

    Args:
        tiling: How the grid is cut.
        numbers: Points, their stride, clouds and the first step of the search among them.
        strides: Stride of the features, and their number, both divided by the options' VECTOR.
        grid: What `voxel_numbers` takes for it.
        options: MODE, CLAMPS, HAS_OFFSETS, WIDE and VECTOR.
    """

    def __init__(
        self,
        tiling: Tiling,
        numbers: tuple[int, int, int, int],
        strides: tuple[int, int],
        grid: tuple[int, ...],
        options: dict[str, Any],
    ) -> None:
        self._tiling, self._is_wide = tiling, bool(options["WIDE"])
        binning = {name: options[name] for name in ("CLAMPS", "HAS_OFFSETS", "WIDE")} | {"num_warps": WARPS}
        writing = {name: options[name] for name in ("MODE", "VECTOR", "WIDE")} | {"num_warps": WARPS}
        cut, room = (tiling.tiles, tiling.tile_bits), (tiling.key_bits, tiling.capacity)
        block = POINTS_PER_PROGRAM // 2 if options["HAS_OFFSETS"] else POINTS_PER_PROGRAM  # the search is a tile
        self._bin = PreparedKernel(
            triton_tiles.bin_kernel,
            -(-tiling.points // block),
            (0,) * 5,
            (*numbers, *cut, *room, grid),
            binning | {"BLOCK_POINT": block},
        )
        busy = (tiling.tiles, tiling.tiles + _CONTROL + tiling.busy - 1, tiling.tile_bits)
        self._write = PreparedKernel(
            triton_tiles.tile_kernel,
            tiling.tiles,
            (0,) * 5,
            (tiling.points, tiling.cells, *busy, *room, *strides),
            writing
            | _blocks("BLOCK", BLOCK, tiling.width, TILE_WARPS)
            | {"BLOCK_ZERO": ZEROS_PER_STORE, "num_warps": TILE_WARPS},
        )
        self._rest = self._finish = None
        listing = writing | _blocks("BLOCK", BLOCK_LIST, tiling.width, WARPS)
        if tiling.busy:
            self._rest = PreparedKernel(
                triton_tiles.rest_kernel,
                PROGRAMS,
                (0,) * 5,
                (tiling.points, *busy, *room, *strides),
                listing
                | _blocks("BLOCK_MIDDLE", BLOCK_MIDDLE, tiling.width, WARPS)
                | _blocks("BLOCK_FULL", _most_points(tiling.width), tiling.width, WARPS),
            )
        if tiling.overfull and options["MODE"] != SUM:
            self._finish = PreparedKernel(
                triton_tiles.overfull_kernel,
                min(tiling.overfull, PROGRAMS),
                (0,) * 3,
                (tiling.cells, *cut, tiling.capacity, strides[1]),
                listing,
            )

    def __call__(self, points: Tensor, starts: Tensor, features: Tensor, out: Tensor) -> Tensor:
        """The grid, in `out`, every byte of which is written.

        Args:
            points: [point, 3], rows of neighbouring numbers.
            starts: The clouds' offsets, or any tensor where there are none.
            features: [point, feature], rows of neighbouring numbers.
            out: Where the grid shall lie.
        """
        tiling, device = self._tiling, points.device
        counts = torch.empty(tiling.tiles + _CONTROL + tiling.busy, dtype=torch.int32, device=device)
        bins = torch.empty(tiling.tiles * tiling.capacity, dtype=tiling.key_dtype, device=device)
        # Voxel and number of each point of an overfull tile; all points may lie in one.
        size = 2 * tiling.points if tiling.overfull else 1
        rest = torch.empty(size, dtype=torch.int64 if self._is_wide else torch.int32, device=device)
        fill_zero(counts)
        self._bin(points, starts, counts, bins, rest)
        self._write(features, counts, bins, rest, out)
        if self._rest is not None:
            self._rest(features, counts, bins, rest, out)
        if self._finish is not None:
            self._finish(counts, bins, out)
        return out


def _most_cells(width: int) -> int:
    """Voxels of the largest tile."""
    return min(TILE_BYTES // (4 * width), BLOCK_FULL)


def _most_points(width: int) -> int:
    """Keys in the largest bin, as a power of two: what rows are wide decides it, never a number of points or voxels."""
    return max(BLOCK, 1 << max(_most_cells(width), LEAST_TILE_CELLS).bit_length() - 1)


def _blocks(name: str, points: int, width: int, warps: int) -> dict[str, int]:
    """How many points, and features of them, a program holds at a time."""
    features = max(ELEMENTS_PER_WARP * warps // points, 1)
    return {name: points, f"{name}_FEATURE": min(1 << (width - 1).bit_length(), features)}
