"""One batch after the other on the host, and across to a GPU; each claims its bytes before it allocates them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robocache.errors import BudgetError
from robocache.loader.batch import Batch, PackedPoints
from robocache.loader.budget import Claim
from robocache.loader.buffers import BufferPool, Room
from robocache.loader.collate import CloudRuns, Collate
from robocache.loader.episodes import Episodes
from robocache.loader.joined import Integers
from robocache.loader.layout import Layout, SampleIndex
from robocache.loader.order import SampleOrder
from robocache.loader.packed import PackedOnDevice
from robocache.loader.records import Records
from robocache.ops import voxelize_pointcloud

_STAGES = 2
_WITH_FEATURES = ("mean", "max", "min", "sum")


@dataclass
class Made:
    """A batch on its way to the consumer.

    Args:
        batch: The batch.
        claim: Its bytes; None where nothing was claimed.
        event: Recorded behind the work that makes it, where that is on a stream of its own.
        storages: The tensors of memory that was allocated on that stream.
    """

    batch: Batch
    claim: Claim | None = None
    event: torch.cuda.Event | None = None
    storages: list[Tensor] = field(default_factory=list)

    def arrive(self) -> None:
        """Order the consumer's stream behind the copy, and tell the allocator that it uses the memory."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.batch.device)
            stream.wait_event(self.event)
            for tensor in self.storages:
                tensor.record_stream(stream)


class Maker(Protocol):
    """Makes batches."""

    def make(self, samples: Integers, room: Room) -> Made:
        """The batch of these sample numbers; waits for `room`."""
        ...

    def close(self) -> None:
        """Let go of what it keeps between batches."""
        ...


@dataclass(frozen=True)
class Host:
    """What every batch that begins on the host needs.

    Args:
        index: Samples to episodes and frames.
        layout: How a batch lies.
        collate: Fills buffers.
        source: Where the episodes lie.
        free_bytes: What of the budget is not taken for good: the most that a batch may ask for.
    """

    index: SampleIndex
    layout: Layout
    collate: Collate
    source: Episodes
    free_bytes: int

    def clouds(self, episodes: Integers, frames: Integers) -> dict[str, CloudRuns]:
        """By feature of points: which of them the batch takes."""
        names = [name for name, feature in self.layout.features.items() if feature.kind == "points"]
        return {name: self.collate.clouds(self.source, name, episodes, frames) for name in names}

    def point_bytes(self, clouds: Mapping[str, CloudRuns]) -> int:
        """Bytes of points, and of the voxels that they become."""
        total = 0
        for name, runs in clouds.items():
            row_bytes = self.layout.slots["data", name].row_bytes
            total += int(runs.offsets[-1]) * row_bytes + runs.offsets.nbytes
            feature = self.layout.features[name]
            if feature.grid is not None:
                width = feature.shape[0] - 3 if feature.grid.get("mode") in _WITH_FEATURES else 1
                cells = int(np.prod(feature.grid.get("grid_size", (128, 128, 128)), dtype=np.int64))
                total += (len(runs.offsets) - 1) * cells * width * 4
        return total

    def check(self, needed: int, samples: int) -> None:
        """Refuse what could never fit.

        Raises:
            BudgetError: It says how much the batch needs.
        """
        if needed > self.free_bytes:
            raise BudgetError(
                f"a batch of {samples} samples needs {needed} bytes, but memory leaves {self.free_bytes} for batches; "
                "raise memory, or lower batch_size or window"
            )


class HostMaker:
    """Batches on the CPU.

    Args:
        host: What a batch is made of.
        pool: Where its buffers come from. None: page-locked ones, which PyTorch keeps for their next use, since only
            it knows when a copy from them to a GPU is over.
    """

    def __init__(self, host: Host, pool: BufferPool | None) -> None:
        self._host = host
        self._pool = pool

    def make(self, samples: Integers, room: Room) -> Made:
        """As `Maker.make`."""
        host = self._host
        episodes, frames = host.index.locate(samples)
        clouds = host.clouds(episodes, frames)
        size, more = host.layout.nbytes(len(samples)), host.point_bytes(clouds)
        host.check(size + more, len(samples))
        if self._pool is not None and not more:
            buffer, claim = self._pool.take(room, size)
        else:
            claim = room.claim(size + more)
            claim.wait()
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._pool is None)
        tensors = host.layout.tensors(buffer, len(samples))
        host.collate.fill(host.source, tensors, episodes, frames)
        voxels, points = points_of(host, clouds, episodes, lambda tensor: tensor)
        return Made(host.layout.batch(tensors, voxels, points), claim)

    def close(self) -> None:
        """Free the buffers that wait."""
        if self._pool is not None:
            self._pool.close()


class CudaMaker:
    """Batches on a GPU: gathered in page-locked memory, copied in one piece on a stream of their own.

    Args:
        host: What a batch is made of.
        device: The GPU.
        stage_bytes: Of a full batch's buffer; the caller claimed `_STAGES` of them.
    """

    stages = _STAGES

    def __init__(self, host: Host, device: torch.device, stage_bytes: int) -> None:
        self._host = host
        self._device = device
        with torch.cuda.device(device):  # which may have no number
            self._stream = _copying_stream(torch.cuda.current_device())
        self._stages = [torch.empty(stage_bytes, dtype=torch.uint8, pin_memory=True) for _ in range(_STAGES)]
        self._copied: list[torch.cuda.Event | None] = [None] * _STAGES
        self._turn = 0

    def make(self, samples: Integers, room: Room) -> Made:
        """As `Maker.make`; the copy may go on behind it."""
        host = self._host
        episodes, frames = host.index.locate(samples)
        clouds = host.clouds(episodes, frames)
        size, more = host.layout.nbytes(len(samples)), host.point_bytes(clouds)
        needed = size + 2 * more  # points lie on the host too, for a moment
        host.check(needed, len(samples))
        claim = room.claim(needed)
        claim.wait()
        turn, self._turn = self._turn, (self._turn + 1) % _STAGES
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()  # only then may the stage be written again
        stage = self._stages[turn][:size]
        host.collate.fill(host.source, host.layout.tensors(stage, len(samples)), episodes, frames)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
            buffer.copy_(stage, non_blocking=True)
            self._copied[turn] = copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
            voxels, points = points_of(host, clouds, episodes, lambda tensor: tensor.to(self._device))
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        batch = host.layout.batch(host.layout.tensors(buffer, len(samples)), voxels, points)
        clouds_there = [tensor for cloud in points.values() for tensor in (cloud.points, cloud.offsets)]
        return Made(batch, claim, event, [buffer, *voxels.values(), *clouds_there])

    def close(self) -> None:
        """Free the stages, when nothing is copied from them any more."""
        self._stream.synchronize()
        self._stages.clear()


@functools.cache
def _copying_stream(device: int) -> Any:  # noqa: ANN401  PyTorch's streams have no types
    """One for all loaders of a device.

    PyTorch keeps freed memory for the stream that it was used on, and hands out 32 streams in turn: with a stream of
    its own, each of 32 loaders would leave the memory of its batches behind.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class PackedMaker:
    """Batches from episodes that are on the device already; nothing is read ahead.

    Args:
        packed: The episodes.
        device: Where they are.
    """

    def __init__(self, packed: PackedOnDevice, device: torch.device) -> None:
        self._packed = packed
        self._device = device

    def make(self, samples: Integers, room: Room) -> Made:
        """As `Maker.make`, on the current stream; the bytes of one batch were claimed with those of the episodes."""
        del room
        numbers = torch.from_numpy(samples)
        if self._device.type == "cuda":
            numbers = numbers.pin_memory().to(self._device, non_blocking=True)
        return Made(self._packed.batch(numbers))

    def close(self) -> None:
        """Free the episodes."""
        self._packed.close()


class RecordMaker:
    """Batches from records that are on the device already; nothing is read ahead.

    Args:
        records: The episodes.
        step_samples: Samples of a step, of all ranks together.
    """

    def __init__(self, records: Records, step_samples: int) -> None:
        self._records, self._step_samples = records, step_samples

    def made(self, order: SampleOrder) -> Iterator[Made]:
        """This rank's batches of the epoch, each on the stream that is current when it is asked for.

        Args:
            order: Where the epoch stands.
        """
        for part in self._records.parts(order, self._step_samples):
            yield Made(self._records.batch(part))

    def close(self) -> None:
        """Free the episodes."""
        self._records.close()


def points_of(
    host: Host, clouds: Mapping[str, CloudRuns], episodes: Integers, move: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, PackedPoints]]:
    """Voxels of the features with a grid, all clouds of a batch in one call, and the points of those without."""
    voxels: dict[str, Tensor] = {}
    points: dict[str, PackedPoints] = {}
    for name, runs in clouds.items():
        cloud = host.collate.points(host.source, name, episodes, runs)
        cloud = PackedPoints(move(cloud.points), move(cloud.offsets), cloud.shape)
        grid = host.layout.features[name].grid
        if grid is None:
            points[name] = cloud
            continue
        more = cloud.points[:, 3:] if grid.get("mode") in _WITH_FEATURES else None
        found = voxelize_pointcloud(cloud.points[:, :3], more, offsets=cloud.offsets, **grid)
        voxels[name] = found.view(*cloud.shape, *found.shape[1:])
    return voxels, points
