"""What the simulated robot's camera sees: its arm, and below it the time, as a clock that a program can read.

A picture is computed from the joints at its moment, so that none is stored and any can be drawn alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError
from robocache.records import Int64

Uint8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
CLOCK_BITS = 16
CLOCK_ROWS = 8
MIN_SIDES = (CLOCK_ROWS + 16, 2 * CLOCK_BITS)
MAX_SIDE = 4096
MS = 1_000_000
# Red, green, blue.
_SKY, _FLOOR, _ARM, _HAND = (96, 128, 160), (32, 40, 48), (235, 140, 40), (240, 240, 240)
_OFF, _ON = 16, 235


@dataclass(frozen=True)
class Camera:
    """A camera that looks at the arm from the side.

    Args:
        height: Of a picture, pixels, the clock's eight rows included.
        width: Of a picture, pixels.
        joints_at: The joints' angles [T, 7] at times [T], int64 nanoseconds since the start.
    """

    height: int
    width: int
    joints_at: Callable[[Int64], Float64]

    def picture(self, since_start_ns: int) -> Uint8:
        """What it sees at a moment: [height, width, 3].

        The arm stands in the middle of the floor and each joint turns the rest of it by half its angle. The lowest
        rows are milliseconds since the start, modulo 2**16, as sixteen blocks, the highest bit on the left.
        """
        rows = self.height - CLOCK_ROWS
        picture = np.empty((self.height, self.width, 3), np.uint8)
        shade = np.linspace(0, 1, rows)[:, None, None]
        picture[:rows] = np.rint((1 - shade) * _SKY + shade * _FLOOR)
        y, x = np.ogrid[0:rows, 0 : self.width]
        places = self.arm(since_start_ns)
        radius = max(1.0, rows / 32)
        for start, end in itertools.pairwise(places):
            picture[:rows][_squared_distance(x, y, start, end) <= radius**2] = _ARM
        picture[:rows][_squared_distance(x, y, places[-1], places[-1]) <= 4 * radius**2] = _HAND
        picture[rows:] = self._clock(since_start_ns // MS)[None, :, None]
        return picture

    def arm(self, since_start_ns: int) -> Float64:
        """Where the base, each joint and the hand are in the picture: [8, 2], columns and rows in pixels."""
        joints = self.joints_at(np.asarray([since_start_ns], np.int64))[0]
        length = 0.9 * (self.height - CLOCK_ROWS) / len(joints)
        angles = np.cumsum(joints) / 2
        steps = length * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
        base = np.array([[self.width / 2, self.height - CLOCK_ROWS - 1.0]])
        return np.concatenate([base, base + np.cumsum(steps, axis=0)])

    def _clock(self, milliseconds: int) -> Uint8:
        bits = milliseconds >> np.arange(CLOCK_BITS)[::-1] & 1
        return np.where(bits[np.arange(self.width) * CLOCK_BITS // self.width] == 1, _ON, _OFF).astype(np.uint8)


def checked_sides(camera: tuple[int, int] | None) -> tuple[int, int] | None:
    """The size of pictures.

    Raises:
        ArgumentError: It is none that arm and clock can be drawn in.
    """
    if camera is None:
        return None
    sides = np.asarray(camera)
    is_size = sides.shape == (2,) and sides.dtype.kind in "iu"
    if not is_size or not (np.all(sides >= MIN_SIDES) and np.all(sides <= MAX_SIDE)):
        least = " x ".join(map(str, MIN_SIDES))
        raise ArgumentError(f"camera must be (height, width), at least {least} and at most {MAX_SIDE}, got {camera!r}")
    return int(sides[0]), int(sides[1])


def shown_milliseconds(pictures: Uint8) -> Int64:
    """The times that clocks in pictures show, milliseconds since the start modulo 2**16.

    Args:
        pictures: [..., height, width, 3], at the size that they were drawn in; compressed ones can be read too.

    Returns:
        [...] int64.
    """
    width = pictures.shape[-2]
    rows = slice(pictures.shape[-3] - CLOCK_ROWS * 3 // 4, pictures.shape[-3] - CLOCK_ROWS // 4)
    columns = (np.arange(CLOCK_BITS) * 2 + 1) * width // (2 * CLOCK_BITS)
    blocks = pictures[..., rows, :, :][..., columns, :]
    bits = np.moveaxis(blocks, -2, 0).reshape(CLOCK_BITS, *pictures.shape[:-3], -1).mean(axis=-1) > (_OFF + _ON) / 2
    weights = 1 << np.arange(CLOCK_BITS, dtype=np.int64)[::-1]
    return np.asarray(np.tensordot(weights, bits.astype(np.int64), axes=1))


def _squared_distance(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], start: Float64, end: Float64) -> Float64:
    """How far each pixel is from the line between two points, squared."""
    along = end - start
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-9)
    near = np.clip(share, 0.0, 1.0)
    right, down = x - start[0] - near * along[0], y - start[1] - near * along[1]
    return np.asarray(right * right + down * down)
