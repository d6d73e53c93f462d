"""The statistics that a LeRobot dataset keeps of every feature: per episode, and of all episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureStatistics:
    """Of one feature, over frames. NaN values are left out; a column that is all NaN stays NaN.

    Args:
        low: [dim] smallest, in the feature's own dtype if that is whole numbers, float64 otherwise.
        high: [dim] largest, the same.
        mean: [dim].
        variance: [dim], of the population.
        present: [dim], how many values were no NaN.
        frames: How many frames.
    """

    low: npt.NDArray[np.generic]
    high: npt.NDArray[np.generic]
    mean: Float64
    variance: Float64
    present: Float64
    frames: int

    @classmethod
    def of(cls, values: npt.NDArray[np.generic]) -> FeatureStatistics:
        """Measure values [frames, dim], of at least one frame."""
        if not np.issubdtype(values.dtype, np.floating):
            # The extremes stay whole: a float64 of nanoseconds since 1970 is only good to 256 ns.
            numbers = values.astype(np.int64)
            present = np.full(values.shape[1], float(len(values)))
            low, high = numbers.min(axis=0), numbers.max(axis=0)
            return cls(low, high, numbers.mean(axis=0), numbers.var(axis=0), present, len(values))
        columns = np.ascontiguousarray(values.T, np.float64)  # [dim, frames]: numpy sums along memory, not across it
        is_present = ~np.isnan(columns)
        present = is_present.sum(axis=1).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # of numbers near the largest float, infinity is the answer
            mean = np.where(is_present, columns, 0.0).sum(axis=1) / present
            variance = np.where(is_present, (columns - mean[:, None]) ** 2, 0.0).sum(axis=1) / present
        low, high = np.fmin.reduce(columns, axis=1), np.fmax.reduce(columns, axis=1)
        return cls(low, high, mean, variance, present, len(values))

    @classmethod
    def together(cls, parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
        """Of several episodes as if they were one."""
        present = np.stack([part.present for part in parts])
        total = present.sum(axis=0)
        with np.errstate(invalid="ignore", over="ignore"):
            weights = present / total
            mean = _weighted(weights, [part.mean for part in parts])
            spread = [part.variance + (part.mean - mean) ** 2 for part in parts]
            variance = _weighted(weights, spread)
        low = np.fmin.reduce(np.stack([part.low for part in parts]))
        high = np.fmax.reduce(np.stack([part.high for part in parts]))
        return cls(low, high, mean, variance, total, sum(part.frames for part in parts))

    def as_lists(self) -> dict[str, list[float] | list[int]]:
        """As LeRobot stores it: min, max, mean, std [dim] and count [1]."""
        return {
            "min": self.low.tolist(),
            "max": self.high.tolist(),
            "mean": self.mean.tolist(),
            "std": np.sqrt(self.variance).tolist(),
            "count": [self.frames],
        }


def _weighted(weights: Float64, values: Sequence[Float64]) -> Float64:
    # A part without values has NaN for its mean and 0 for its weight; it must not spoil the others.
    stacked = np.where(weights > 0, np.stack(values), 0.0)
    total = (np.nan_to_num(weights) * stacked).sum(axis=0)
    return np.where(np.isnan(weights).all(axis=0), np.nan, total)
