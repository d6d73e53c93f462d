"""The analytic signals behind the synthetic robot: known at every time, without a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
TERMS = 3


@dataclass(frozen=True)
class Waves:
    """Smooth signals, each a sum of three sines between 0.05 and 1 Hz.

    Args:
        amplitude: [terms, dim].
        angular_rate: [terms, dim], radians a second.
        phase: [terms, dim], radians.
    """

    amplitude: Float64
    angular_rate: Float64
    phase: Float64

    @classmethod
    def from_seed(cls, generator: np.random.Generator, dim: int) -> Waves:
        """Draw `dim` signals, each within [-1.5, 1.5]."""
        shape = (TERMS, dim)
        amplitude = generator.uniform(0.1, 0.5, shape)
        angular_rate = 2 * np.pi * generator.uniform(0.05, 1.0, shape)
        return cls(amplitude, angular_rate, generator.uniform(0, 2 * np.pi, shape))

    def at(self, seconds: Float64) -> Float64:
        """Values [T, dim] at times [T]."""
        total = np.zeros((len(seconds), self.amplitude.shape[1]))
        for amplitude, rate, phase in zip(self.amplitude, self.angular_rate, self.phase, strict=True):
            total += amplitude * np.sin(seconds[:, None] * rate + phase)
        return total


@dataclass(frozen=True)
class Motion:
    """A rotation by three turning angles (yaw, pitch, roll); yaw swings by more than a whole turn."""

    angles: Waves

    @classmethod
    def from_seed(cls, generator: np.random.Generator) -> Motion:
        """Draw the three angles."""
        return cls(Waves.from_seed(generator, 3))

    def orientation(self, seconds: Float64) -> Float64:
        """Unit quaternions [T, 4], scalar last and 0 or more, at times [T]."""
        yaw, pitch, roll = (self.angles.at(seconds) * [6.0, 0.8, 1.2]).T / 2
        cy, sy, cp, sp, cr, sr = (wave(angle) for angle in (yaw, pitch, roll) for wave in (np.cos, np.sin))
        quaternion = np.stack(
            [
                cy * cp * sr - sy * sp * cr,
                cy * sp * cr + sy * cp * sr,
                sy * cp * cr - cy * sp * sr,
                cy * cp * cr + sy * sp * sr,
            ],
            axis=1,
        )
        return np.where(quaternion[:, 3:] < 0, -quaternion, quaternion)


@dataclass(frozen=True)
class Room:
    """A box of 9 x 7 x 3 metres around a lidar that moves in it.

    Args:
        rays: [rays, 3] unit vectors.
    """

    rays: Float64
    low: tuple[float, float, float] = (-4.5, -3.5, -1.0)
    high: tuple[float, float, float] = (4.5, 3.5, 2.0)

    @classmethod
    def with_rays(cls, count: int, seed: int) -> Room:
        """Draw `count` rays all round, between 30 degrees down and 30 degrees up."""
        generator = np.random.default_rng([seed, count])
        azimuth = generator.uniform(-np.pi, np.pi, count)
        elevation = generator.uniform(-np.pi / 6, np.pi / 6, count)
        flat = np.cos(elevation)
        return cls(np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=1))

    def seen_from(self, seconds: Float64, phase: float) -> Float64:
        """Where the rays meet the walls, [T, rays, 3] metres in the lidar's own frame, at times [T]."""
        place = np.stack(
            [2.0 * np.sin(0.5 * seconds + phase), 1.5 * np.cos(0.3 * seconds + phase), 0.0 * seconds], axis=1
        )[:, None, :]
        with np.errstate(divide="ignore"):
            distances = np.where(self.rays > 0, self.high - place, self.low - place) / self.rays
        return np.asarray(distances.min(axis=2, keepdims=True) * self.rays)
