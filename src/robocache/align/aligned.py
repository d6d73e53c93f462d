"""One episode on one clock: what an alignment gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.align.then import Resize, Voxelize
from robocache.policies import Policy, Window
from robocache.records import Frames, Int64, RecordedStream

if TYPE_CHECKING:
    from torch import Tensor

NO_SAMPLE_NS = -1  # the age where there is no sample to have one


@dataclass(frozen=True)
class AlignedScans:
    """A point-cloud stream on the clock of the result: which scan each frame uses.

    Args:
        stream: The recorded scans; scan k is `stream.values[stream.offsets[k]:stream.offsets[k + 1]]`, read from a bag
            or MCAP file while that is open.
        scan: [T] int64, the scan that each frame uses.
        voxelize: What `From(then=...)` asks for: whoever uses the scans sorts them into voxels, on its device.
    """

    stream: RecordedStream
    scan: Int64
    voxelize: Voxelize | None = None

    def points(self, frame: int) -> npt.NDArray[np.generic]:
        """The points that one frame uses: [points, 3 or more]."""
        assert self.stream.offsets is not None  # a stream of kind "points" always has them
        scan = int(self.scan[frame])
        return self.stream.values[int(self.stream.offsets[scan]) : int(self.stream.offsets[scan + 1])]


@dataclass(frozen=True)
class AlignedImages:
    """An image stream on the clock of the result: which image each frame uses.

    Args:
        stream: The recorded images; `stream.frames` decodes them, while their recording is open.
        row: [T] int64, the row of the stream that each frame uses: image `stream.values[row[k], 0]`.
        resize: What `From(then=...)` asks for.
    """

    stream: RecordedStream
    row: Int64
    resize: Resize | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what `read` gives."""
        frames = self._frames()
        return frames.shape if self.resize is None else (*self.resize.size, frames.shape[2])

    def read(self, frames: Int64 | slice | None = None) -> npt.NDArray[np.uint8]:
        """Decode the images of some frames, each image once.

        Args:
            frames: [frame] int64 or a slice of the frames; None: all, which may be more than the memory holds.

        Returns:
            [frame, height, width, 3] uint8, resized where the description asks for it.

        Raises:
            DamagedRecordingError: An image cannot be decoded.
        """
        rows = self.row if frames is None else self.row[frames]
        numbers, place = np.unique(self.stream.values[rows, 0].astype(np.int64, copy=False), return_inverse=True)
        size = None if self.resize is None else self.resize.size
        images = self._frames().read(numbers, size=size)
        # The common case, a slow clock: every frame an image of its own, in order.
        return images if np.array_equal(place, np.arange(len(numbers))) else images[place]

    def _frames(self) -> Frames:
        assert self.stream.frames is not None  # a stream of kind "image" always has them
        return self.stream.frames


@dataclass(frozen=True)
class AlignedEpisode:
    """One episode, every stream on the same clock.

    Args:
        name: The episode's name.
        source: The file it came from.
        times_ns: [T] int64 nanoseconds.
        data: By stream, [T, D] in the stream's own dtype; [T, samples, D] with a `Window`.
        valid: By stream (clouds and images too), [T] bool, on the device of the data; [T, samples] with a `Window`.
        age_ns: By stream (clouds and images too), [T] int64: frame minus the latest sample at or before it, or, with
            `Nearest`, minus the sample used, which may lie in the future (negative). [T, samples] with a `Window`.
            -1 where there is no sample at all; `valid` is False there.
        fused: [T, sum of D]: the floating streams side by side, in the widest of their dtypes; no windows.
        slices: Where each floating stream's columns lie in `fused`.
        scans: The point clouds, by stream.
        columns: One name a column, by stream; empty where the recording gives none.
        policies: What was done between two samples, by stream; durations in nanoseconds.
        attributes: What else the recording said about the episode.
        images: The image streams, by stream.
        horizons: How many frames of it a batch holds from a sample's last one on, by stream.
        absent: Optional streams that the episode lacks; they are among the others if it was known what they are like.
    """

    name: str
    source: str
    times_ns: Int64
    data: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    age_ns: Mapping[str, Int64]
    fused: Tensor
    slices: Mapping[str, slice]
    scans: Mapping[str, AlignedScans]
    columns: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, Policy | Window]
    attributes: Mapping[str, object]
    images: Mapping[str, AlignedImages] = field(default_factory=dict)
    horizons: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
