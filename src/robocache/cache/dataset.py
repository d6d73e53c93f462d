"""Aligned episodes as the loader reads them: named arrays on one clock, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from robocache.records import Int64

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Feature:
    """One stream of an aligned dataset.

    Args:
        name: The key of a batch.
        kind: "numbers": a row a frame. "image": distinct images and which of them each frame uses. "points":
            distinct scans and which of them each frame uses.
        dtype: Of the stored values.
        shape: Of one frame: (dim,), (samples, dim) for a `Window`, (3, height, width) for an image. For points
            (columns,): a row's; how many rows a scan has differs.
        horizon: How many frames, from a sample's last one on, a batch holds of it; 1 for streams without.
        columns: One name a column; empty where the recording gives none.
        grid: For points that become voxels: the arguments of `voxelize_pointcloud`. None: points as they are.
    """

    name: str
    kind: Literal["numbers", "image", "points"]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    horizon: int = 1
    columns: tuple[str, ...] = ()
    grid: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EpisodeArrays:
    """The arrays of one episode, read-only; memory-mapped where they lie on disk.

    Args:
        times_ns: [frames] int64 nanoseconds.
        data: By feature. Numbers: [frames, *shape]. Images: [images, 3, height, width] uint8. Points: [points,
            columns].
        valid: By feature, [frames] bool, or [frames, samples] for a `Window`.
        age_ns: By feature, [frames] int64.
        row: For images and points: [frames] int64, which image or scan each frame uses.
        offsets: For points: [scans + 1] int64; scan k is data[offsets[k]:offsets[k + 1]].
    """

    times_ns: Int64
    data: Mapping[str, Array]
    valid: Mapping[str, npt.NDArray[np.bool_]]
    age_ns: Mapping[str, Int64]
    row: Mapping[str, Int64] = field(default_factory=dict)
    offsets: Mapping[str, Int64] = field(default_factory=dict)


class Dataset(Protocol):
    """What the loader reads."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """By name; the same for all episodes."""
        ...

    @property
    def lengths(self) -> Int64:
        """[episode] int64: frames of each."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with the content and the order of the episodes: a loader's state belongs to it."""
        ...

    def open_episode(self, index: int) -> AbstractContextManager[EpisodeArrays]:
        """One episode's arrays, which stay valid until the context ends.

        Args:
            index: 0 to `len(lengths) - 1`.
        """
        ...
