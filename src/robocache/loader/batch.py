"""A batch: tensors by feature, which of their rows count, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedPoints:
    """The clouds of a batch, one after the other.

    Args:
        points: [points of all clouds, columns].
        offsets: [batch * time + 1] int64: cloud (b, t) is points[offsets[k]:offsets[k + 1]] with k = b * time + t.
        shape: (batch, time).
    """

    points: Tensor
    offsets: Tensor
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Batch(Mapping[str, Tensor]):
    """B samples of T consecutive frames: a mapping from feature to tensor.

    Its tensors are the consumer's: the loader never writes to them again. Those of one batch may share one allocation,
    so that a small one that is kept keeps all of it; `clone` what must outlive the rest.

    Args:
        data: By feature: [B, T, *shape], or [B, H, *shape] for a feature with a horizon of H. Images: [B, T, 3, height,
            width] uint8. Points with a grid: [B, T, X, Y, Z] voxels (and [..., feature]).
        valid: By feature: [B, T] or [B, T, samples] bool, or [B, H]; also of those in `points`. False beyond the
            episode's end, and for a stream that the sample's dataset does not have.
        age: By feature, shaped alike: int64 nanoseconds.
        times_ns: [B, T] int64 nanoseconds.
        dataset: [B] int64: which of the loader's datasets.
        episode: [B] int64: which episode of that dataset.
        frame: [B] int64: the sample's first frame in that episode.
        points: By feature, for points without a grid.
        fuses: The features that `fused` has, in its order.
    """

    data: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    age: Mapping[str, Tensor]
    times_ns: Tensor
    dataset: Tensor
    episode: Tensor
    frame: Tensor
    points: Mapping[str, PackedPoints] = field(default_factory=dict)
    fuses: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Tensor:
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def fused(self) -> Tensor:
        """[B, T, sum of dims]: the floating features of one row a frame, side by side; made when first asked for."""
        if not self.fuses:
            return self.times_ns.new_empty((*self.times_ns.shape, 0), dtype=torch.float32)
        parts = [self.data[name] for name in self.fuses]
        return _neighbours(parts) if _are_neighbours(parts) else torch.cat(parts, dim=-1)

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return len(self.frame)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.times_ns.device

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors, `fused` not counted."""
        sizes: list[int] = []

        def count(tensor: Tensor) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        self._each(count)
        return sum(sizes)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on a device; tensors that are there already stay the same.

        Args:
            device: Any that PyTorch knows.
            non_blocking: As for `Tensor.to`: from pinned memory the copy may go on behind this call.
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which a GPU copies at full speed; needs one."""
        return self._each(lambda tensor: tensor.pin_memory())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.data.items())
        return f"Batch({shapes} on {self.device})"

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        data, valid, age = (
            {name: change(tensor) for name, tensor in tensors.items()} for tensors in (self.data, self.valid, self.age)
        )
        times_ns, dataset = change(self.times_ns), change(self.dataset)
        episode, frame = change(self.episode), change(self.frame)
        points = {
            name: PackedPoints(change(cloud.points), change(cloud.offsets), cloud.shape)
            for name, cloud in self.points.items()
        }
        return Batch(data, valid, age, times_ns, dataset, episode, frame, points, self.fuses)


def _are_neighbours(parts: list[Tensor]) -> bool:
    """Whether rows of one tensor go on in the next, as in records."""
    first, width = parts[0], 0
    for part in parts:
        follows = part.data_ptr() == first.data_ptr() + width * first.element_size()
        if not follows or (part.dtype, part.stride()) != (first.dtype, first.stride()):
            return False
        width += part.shape[-1]
    return width <= first.stride(1)


def _neighbours(parts: list[Tensor]) -> Tensor:
    first, width = parts[0], sum(part.shape[-1] for part in parts)
    return first.as_strided((*first.shape[:2], width), first.stride())
