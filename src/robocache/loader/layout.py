"""How a batch lies in one buffer: every tensor at a multiple of 64 bytes, so that one copy moves all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robocache.errors import ArgumentError, DTypeError
from robocache.loader.batch import Batch, PackedPoints
from robocache.loader.joined import Integers, Joined, Key, Slot

_LINE = 64
_INDEX = ("dataset", "episode", "frame")


@dataclass(frozen=True)
class Field:
    """One tensor of a batch.

    Args:
        key: The slot that it is gathered from, or ("dataset" | "episode" | "frame", "").
        dtype: Of its values.
        shape: Behind the batch axis.
        starts_late: It begins with the sample's last frame, and goes on to its horizon.
    """

    key: Key
    dtype: torch.dtype
    shape: tuple[int, ...]
    starts_late: bool = False

    @cached_property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize


class Layout:
    """What batches of a dataset consist of.

    Args:
        joined: The episodes.
        window: Frames of a sample.
    """

    def __init__(self, joined: Joined, window: int) -> None:
        self.window = window
        self.features = joined.features
        self.slots = joined.slots
        self.fields = [Field((name, ""), torch.int64, ()) for name in _INDEX]
        self.fields += [self._field(slot) for slot in self.slots.values() if self._has_field(slot)]

    def rows(self, name: str) -> int:
        """Rows that a sample has of a feature: its horizon, or the window."""
        feature = self.features.get(name)
        return self.window if feature is None or feature.horizon == 1 else feature.horizon

    def nbytes(self, samples: int) -> int:
        """Bytes of the buffer for so many samples."""
        return sum(_up(samples * field.sample_bytes) for field in self.fields)

    def tensors(self, buffer: Tensor, samples: int) -> dict[Key, Tensor]:
        """The buffer's parts, by slot.

        Args:
            buffer: uint8, of `nbytes(samples)`.
            samples: Of the batch.
        """
        found, start = {}, 0
        for field in self.fields:
            size = samples * field.sample_bytes
            found[field.key] = buffer[start : start + size].view(field.dtype).view(samples, *field.shape)
            start += _up(size)
        return found

    def batch(
        self, tensors: Mapping[Key, Tensor], voxels: Mapping[str, Tensor], points: Mapping[str, PackedPoints]
    ) -> Batch:
        """A batch of named parts."""
        by_role: dict[str, dict[str, Tensor]] = {"data": {}, "valid": {}, "age": {}}
        for (role, name), tensor in tensors.items():
            if role in by_role:
                by_role[role][name] = tensor
        data = {
            name: by_role["data"][name] if name in by_role["data"] else voxels[name]
            for name in self.features
            if name in by_role["data"] or name in voxels
        }
        times_ns, dataset, episode, frame = (tensors[role, ""] for role in ("times", *_INDEX))
        return Batch(data, by_role["valid"], by_role["age"], times_ns, dataset, episode, frame, points, self.fuses)

    @cached_property
    def fuses(self) -> tuple[str, ...]:
        """The features that `Batch.fused` has: floating, a row a frame."""
        return tuple(
            name
            for name, feature in self.features.items()
            if feature.kind == "numbers"
            and feature.horizon == 1
            and len(feature.shape) == 1
            and np.issubdtype(feature.dtype, np.floating)
        )

    def _has_field(self, slot: Slot) -> bool:
        is_points = slot.role == "data" and self.features[slot.name].kind == "points"
        return not is_points and slot.role not in {"row", "offsets"}

    def _field(self, slot: Slot) -> Field:
        is_late = slot.role != "times" and self.features[slot.name].horizon > 1
        return Field(slot.key, torch_dtype(slot.name, slot.dtype), (self.rows(slot.name), *slot.shape), is_late)


class SampleIndex:
    """Samples numbered episode by episode: an episode of n frames has max(0, n - window + 1).

    Args:
        lengths: [episode] frames of each.
        window: Frames of a sample.
    """

    def __init__(self, lengths: Integers, window: int) -> None:
        if window > int(lengths.max()):  # compared first: it may be beyond int64
            raise ArgumentError(
                f"window={window} leaves no sample: the longest of {len(lengths)} episodes has {lengths.max()} frames"
            )
        self.counts: Integers = np.maximum(lengths - window + 1, 0)
        self._ends: Integers = np.cumsum(self.counts)

    def locate(self, samples: Integers) -> tuple[Integers, Integers]:
        """Episode and first frame of each sample."""
        episodes = np.searchsorted(self._ends, samples, side="right")
        return episodes, samples - (self._ends - self.counts)[episodes]


def torch_dtype(name: str, dtype: np.dtype[Any]) -> torch.dtype:
    """PyTorch's name of a dtype.

    Raises:
        DTypeError: It has none.
    """
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError as error:
        raise DTypeError(f"feature {name!r} has dtype {dtype}, which PyTorch does not know") from error


def _up(size: int) -> int:
    return -(-size // _LINE) * _LINE
