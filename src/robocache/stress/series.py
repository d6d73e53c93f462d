"""The readings of one counter over a run: what a verdict is based on, what a log stores, what a chart shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Readings of a counter, in the order in which they were made.

    Args:
        counter: Its name; ends in `_bytes` where bytes were counted.
        iterations: [reading] how many were done.
        seconds: [reading] since the start of the run.
        counts: [reading]; NaN where it could not be read.

    Raises:
        ArgumentError: The three are not of one length.
    """

    counter: str
    iterations: tuple[float, ...]
    seconds: tuple[float, ...]
    counts: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = len(self.iterations), len(self.seconds), len(self.counts)
        if len(set(lengths)) > 1:
            raise ArgumentError(f"iterations, seconds and counts of {self.counter} have {lengths} readings")

    def __len__(self) -> int:
        return len(self.counts)

    def as_dict(self) -> dict[str, object]:
        """For JSON: numbers as short as they can be, what could not be read as null."""
        return {
            "counter": self.counter,
            "iterations": [int(each) for each in self.iterations],
            "seconds": [round(each, 3) for each in self.seconds],
            "counts": [None if np.isnan(each) else int(each) if each == int(each) else each for each in self.counts],
        }

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Series:
        """What `as_dict` gave.

        Args:
            document: It.
        """
        return Series(
            str(document["counter"]),
            tuple(map(float, document["iterations"])),
            tuple(map(float, document["seconds"])),
            tuple(float("nan") if each is None else float(each) for each in document["counts"]),
        )


def series_of(counter: str, iterations: Floats, seconds: Floats, counts: Floats) -> Series:
    """A series from arrays.

    Args:
        counter: Its name.
        iterations: [reading].
        seconds: [reading].
        counts: [reading].
    """
    return Series(counter, *(tuple(map(float, each)) for each in (iterations, seconds, counts)))
