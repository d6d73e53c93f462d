"""Many numbers as text with one digit behind the point, as f"{number:.1f}" writes them, several times as fast."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

MAX_LISTED = 2000.0  # pixels; no picture is as large
UNSURE = 1e-6  # of a tenth: near a tie, what rounds the product need not round the number


def tenths(numbers: npt.NDArray[np.float64]) -> list[str]:
    """The text of each.

    Args:
        numbers: [points], finite.
    """
    if not len(numbers):
        return []
    if not 0 <= numbers.min() <= numbers.max() < MAX_LISTED:
        return [f"{number:.1f}" for number in numbers.tolist()]
    scaled = numbers * 10
    nearest = np.rint(scaled)
    listed = _listed()
    texts = [listed[place] for place in nearest.astype(np.int64).tolist()]
    for place in np.flatnonzero(np.abs(np.abs(scaled - nearest) - 0.5) < UNSURE).tolist():
        texts[place] = f"{numbers[place]:.1f}"
    return texts


@lru_cache(maxsize=1)
def _listed() -> tuple[str, ...]:
    return tuple(f"{place // 10}.{place % 10}" for place in range(round(MAX_LISTED * 10) + 1))
