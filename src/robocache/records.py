"""The records that travel between rooms: frozen, with axes and units in their names.

A `Stream` is what an operation takes (batched tensors); a `RecordedStream` is what a reader gives (one recording,
numpy, int64 nanoseconds, every clock the file had). An `Episode` is one recording's streams by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from robocache.errors import ShapeError
from robocache.policies import Linear, Policy

if TYPE_CHECKING:
    from torch import Tensor

Int64 = npt.NDArray[np.int64]
_LINEAR = Linear()
Kind = Literal["vector", "quaternion_xyzw", "quaternion_wxyz", "angle", "points", "image"]


@dataclass(frozen=True)
class Stream:
    """One sensor's batch, as `fuse_streams` takes it.

    Args:
        data: [batch, source, dim].
        times: [batch, source], ascending; float32, float64 or int64 in any unit.
        policy: What to do between two samples. None: `Linear()`.
        lengths: [batch] integers: how many of the source samples count. None: all.
    """

    data: Tensor
    times: Tensor
    policy: Policy = None  # type: ignore[assignment]  # torch.compile takes no object as a default
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        if self.policy is None:
            object.__setattr__(self, "policy", _LINEAR)


@dataclass(frozen=True)
class Fused:
    """Streams side by side on one clock.

    Args:
        data: [batch, target, sum of dims].
        valid: [batch, target, streams], bool.
        slices: Where each stream's columns lie in the last axis of `data`.
    """

    data: Tensor
    valid: Tensor
    slices: dict[str, slice]

    def __getitem__(self, name: str) -> Tensor:
        """The columns of one stream, [batch, target, dim], without a copy."""
        return self.data[..., self.slices[name]]


class Frames(Protocol):
    """The images of one stream, decoded when they are asked for."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels (3: red, green, blue) of one image, as recorded."""
        ...

    def __len__(self) -> int: ...

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """Decode some of the images.

        Args:
            numbers: [image] which ones, 0 to `len(self) - 1`, in any order, also several times the same.
            size: (height, width) to resize to, as `Resize` does. None: as recorded.

        Returns:
            [image, height, width, 3] uint8, in the order of `numbers`.

        Raises:
            DamagedRecordingError: An image cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class RecordedStream:
    """One sensor of one recording.

    Args:
        name: The topic, dataset or feature name, as the file spells it.
        values: [source, dim], or [points, 3 or more] for clouds, where `offsets` cuts it into scans, or [source, 1]
            int64 for images: the number of each in `frames`. Points of bags and MCAP files stay there, however many
            they are: a slice, and `np.asarray`, reads them while the recording is open.
        times_ns: [source] int64 nanoseconds, ascending: the clock called `clock`.
        clocks: Every clock the file has, by name ("header", "publish", "log"), each [source] int64 ns, in the same
            row order; never sorted on their own.
        clock: Which one `times_ns` is. "synthetic" when the file has no time axis and t = k / rate.
        columns: One name a column of `values`.
        kind: What the columns mean: it decides the default policy.
        offsets: [source + 1], for clouds only: scan k is values[offsets[k]:offsets[k + 1]].
        frames: For images only: what decodes them. It reads while its recording is open.
    """

    name: str
    values: npt.NDArray[np.generic]
    times_ns: Int64
    clocks: Mapping[str, Int64]
    clock: str
    columns: tuple[str, ...] = ()
    kind: Kind = "vector"
    offsets: Int64 | None = None
    frames: Frames | None = None

    def __post_init__(self) -> None:
        rows = len(self.values) if self.offsets is None else len(self.offsets) - 1
        if self.values.ndim != 2:
            raise ShapeError(f"values of {self.name} must be [source, dim], got shape {self.values.shape}")
        if rows != len(self.times_ns):
            raise ShapeError(f"{self.name} has {rows} samples, but times_ns has {len(self.times_ns)}")
        if self.columns and len(self.columns) != self.values.shape[1]:
            message = f"{self.name} has {self.values.shape[1]} columns, but {len(self.columns)} column names"
            raise ShapeError(message)

    @property
    def has_synthetic_times(self) -> bool:
        """True when the file had no time axis and the times were made from a rate."""
        return self.clock == "synthetic"

    @property
    def nbytes(self) -> int:
        """Host bytes held."""
        offsets = 0 if self.offsets is None else self.offsets.nbytes
        return self.values.nbytes + offsets + sum(clock.nbytes for clock in self.clocks.values())


@dataclass(frozen=True)
class Episode:
    """One recording's streams by name.

    Args:
        name: Unique within its recording ("episode_000003", or the file's stem).
        streams: By name, in the file's order.
        source: The file it came from.
        attributes: What else the file says: task text, robot, units.
    """

    name: str
    streams: Mapping[str, RecordedStream]
    source: str
    attributes: Mapping[str, object] = field(default_factory=dict)

    @property
    def start_ns(self) -> int:
        """The first stamp of any stream."""
        return min(int(stream.times_ns[0]) for stream in self.streams.values() if len(stream.times_ns))

    @property
    def end_ns(self) -> int:
        """The last stamp of any stream."""
        return max(int(stream.times_ns[-1]) for stream in self.streams.values() if len(stream.times_ns))


class SparseVoxels(NamedTuple):
    """The occupied voxels of a cloud, in ascending order of their flat number.

    Args:
        coordinates: [voxel, 3] int64 (x, y, z), or [voxel, 4] with the cloud's index first for packed clouds.
        values: [voxel] int32 for occupancy and count, [voxel, feature] float32 otherwise.
        counts: [voxel] int32: points in each voxel.
    """

    coordinates: Tensor
    values: Tensor
    counts: Tensor
