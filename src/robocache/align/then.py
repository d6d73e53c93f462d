"""What becomes of an image or a cloud once its frame is known: resized, or sorted into voxels."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robocache.errors import ArgumentError

Triple = tuple[float, float, float]
Counts = tuple[int, int, int]

MODES = ("occupancy", "count", "mean", "max", "min", "sum")
MAX_SIDE = 65_536
MAX_VOXELS = 2**31
_WHOLE = 1e-6  # 1.1 m in voxels of 0.1 m is 11 of them, though the quotient of floats may be 11.000000000000005


@dataclass(frozen=True)
class Resize:
    """Images of another size.

    Args:
        height: Rows of the result.
        width: Columns of the result.

    Raises:
        ArgumentError: A side that is no whole number from 1 to 65536.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if not _is_whole(side) or not 1 <= side <= MAX_SIDE:
                raise ArgumentError(f"{name} must be a whole number from 1 to {MAX_SIDE}, got {side!r}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), as `Frames.read` takes it."""
        return int(self.height), int(self.width)


@dataclass(frozen=True)
class Voxelize:
    """Clouds in a grid of voxels; where the result is used, on its device.

    The grid is given by `range`, or by `grid_min` and `grid_size`.

    Args:
        size: Edge of a voxel, one number or three, in the unit of the points.
        range: (lowest corner, highest corner). The grid has as many voxels as cover it.
        grid_min: The grid's lowest corner.
        grid_size: Number of voxels along x, y and z.
        mode: As for `voxelize_pointcloud`: "occupancy" or "count", or "mean", "max", "min" or "sum" of the columns
            behind x, y and z.
        outside: "drop" points outside the grid, or "clamp" them to its border voxels.

    Raises:
        ArgumentError: Both or neither way to say the grid, a grid that is empty or has more than 2**31 voxels, a mode
            that does not exist.
    """

    size: float | Triple
    range: tuple[Triple, Triple] | None = None
    grid_min: Triple | None = None
    grid_size: Counts | None = None
    mode: str = "occupancy"
    outside: str = "drop"

    def __post_init__(self) -> None:
        edges = self._edges()
        if min(edges) <= 0:
            raise ArgumentError(f"size must be greater than 0, got {self.size!r}")
        if not isinstance(self.size, numbers.Real):
            object.__setattr__(self, "size", edges)
        if self.mode not in MODES:
            raise ArgumentError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.outside not in ("drop", "clamp"):
            raise ArgumentError(f"outside must be 'drop' or 'clamp', got {self.outside!r}")
        if (self.range is None) == (self.grid_min is None) or (self.grid_min is None) != (self.grid_size is None):
            message = f"got range={self.range!r}, grid_min={self.grid_min!r}, grid_size={self.grid_size!r}"
            raise ArgumentError(f"a grid needs either range, or grid_min and grid_size; {message}")
        if self.range is not None:
            object.__setattr__(self, "range", _corners(self.range))
            low, high = self.range
            cells = [(above - below) / edge for below, above, edge in zip(low, high, edges, strict=True)]
        else:
            object.__setattr__(self, "grid_min", _triple("grid_min", self.grid_min))
            object.__setattr__(self, "grid_size", _counts(self.grid_size))
            cells = list(self.grid_size or ())
        if math.prod(cells) > MAX_VOXELS:
            raise ArgumentError("a grid of more than 2**31 voxels fits no memory; choose a larger size")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `voxelize_pointcloud` that make this grid."""
        grid_min, grid_size = self.grid_min, self.grid_size
        if self.range is not None:
            grid_min, high = self.range
            lengths = (above - below for below, above in zip(grid_min, high, strict=True))
            x, y, z = (_voxels_over(length, edge) for length, edge in zip(lengths, self._edges(), strict=True))
            grid_size = (x, y, z)
        return {
            "grid_min": grid_min,
            "voxel_size": self.size,
            "grid_size": grid_size,
            "mode": self.mode,
            "outside": self.outside,
        }

    def _edges(self) -> Triple:
        size: Any = self.size
        return _triple("size", (size, size, size) if isinstance(size, numbers.Real) else size)


def _voxels_over(length: float, edge: float) -> int:
    cells = length / edge
    nearest = round(cells)
    return nearest if nearest >= 1 and abs(cells - nearest) <= _WHOLE * nearest else math.ceil(cells)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _triple(name: str, value: object) -> Triple:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        is_number = [isinstance(each, numbers.Real) and not isinstance(each, bool) for each in value]
        if all(is_number) and all(math.isfinite(each) for each in value):
            x, y, z = (float(each) for each in value)
            return x, y, z
    raise ArgumentError(f"{name} must be three finite numbers, got {value!r}")


def _corners(value: object) -> tuple[Triple, Triple]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ArgumentError(f"range must be two corners of three numbers, got {value!r}")
    low, high = _triple("range's lowest corner", value[0]), _triple("range's highest corner", value[1])
    if any(above <= below for below, above in zip(low, high, strict=True)):
        raise ArgumentError(f"range must end above where it begins, along each axis; got {value!r}")
    return low, high


def _counts(value: object) -> Counts:
    counts = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(counts) == 3 and all(_is_whole(each) and each >= 1 for each in counts):
        x, y, z = (int(each) for each in counts)
        return x, y, z
    raise ArgumentError(f"grid_size must be three whole numbers, 1 or more, got {value!r}")
