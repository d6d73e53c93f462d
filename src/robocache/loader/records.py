"""Episodes on the device as one record a frame: all of a frame's values side by side, so that one launch takes a batch.

A record holds the frame's time, and data, valid and age of each feature, the widest values first, so that each lies as
its dtype wants. What a batch gives are views of the records that were gathered, made when they are asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.loader.batch import Batch
from robocache.loader.device_order import DeviceOrder, HostOrder, Rows
from robocache.loader.joined import Integers, Joined, Key
from robocache.loader.layout import Field, Layout, SampleIndex
from robocache.loader.order import SampleOrder
from robocache.loader.packing import read_all
from robocache.ops.backends import choose_backend
from robocache.ops.gather_windows import gather_windows

STAGING_BYTES = 8 * 2**20
_RECORD_ALIGNMENT = 16  # the widest access
_PLACES = 2**16  # computed at a time, rather than batch by batch
_PLACE_BYTES = 6 * 8  # those of the order, and dataset and episode
_INDEX_FIELDS = 3


@dataclass(frozen=True)
class Group:
    """Values that a batch has for the same frames, and so one record a frame.

    Args:
        rows: Frames of a sample.
        starts_late: They begin with the sample's last frame.
        places: By slot: where in the record its bytes begin, and what they are.
        record_bytes: Of a record.
    """

    rows: int
    starts_late: bool
    places: Mapping[Key, tuple[int, Field]]
    record_bytes: int


class Part(NamedTuple):
    """Where the samples of one batch lie: [sample] int64 each.

    Args:
        starts: The first record of each one's window.
        ends: The record after the last of its episode.
        dataset: Which of the loader's datasets.
        episode: Which episode of that.
        frame: Its first frame in that.
    """

    starts: Tensor
    ends: Tensor
    dataset: Tensor
    episode: Tensor
    frame: Tensor


class RecordLayout:
    """What lies where in the records of a dataset.

    Args:
        joined: The episodes.
        layout: What a batch consists of.
    """

    def __init__(self, joined: Joined, layout: Layout) -> None:
        self.joined, self.layout = joined, layout
        self.frames = int(joined.lengths.sum())
        fields: dict[tuple[int, bool], list[Field]] = {}
        for field in layout.fields[_INDEX_FIELDS:]:
            fields.setdefault((field.shape[0], field.starts_late), []).append(field)
        self.groups = [self._group(rows, late, members) for (rows, late), members in fields.items()]
        self.nbytes = self.frames * sum(group.record_bytes for group in self.groups)

    @staticmethod
    def serves(joined: Joined, layout: Layout) -> bool:
        """Whether all features are numbers, and every dataset has them."""
        is_numbers = all(feature.kind == "numbers" for feature in layout.features.values())
        return is_numbers and all(dataset.features.keys() == layout.features.keys() for dataset in joined.datasets)

    def batch_bytes(self, samples: int) -> int:
        """Bytes of a batch."""
        return samples * sum(group.rows * group.record_bytes for group in self.groups)

    def places_bytes(self, step_samples: int) -> int:
        """Bytes of the places computed ahead: those in use and those that follow."""
        return 2 * _PLACE_BYTES * max(_PLACES, step_samples)

    def _group(self, rows: int, late: bool, fields: list[Field]) -> Group:  # noqa: FBT001
        fused = {("data", name): place for place, name in enumerate(self.layout.fuses)}

        def order(field: Field) -> tuple[int, int]:
            # Those that `Batch.fused` joins are neighbours, in its order, and so joined already.
            return -field.dtype.itemsize, fused.get(field.key, len(fused))

        places, at = {}, 0
        for field in sorted(fields, key=order):
            places[field.key] = (at, field)
            at += field.sample_bytes // rows
        return Group(rows, late, places, -(-max(at, 1) // _RECORD_ALIGNMENT) * _RECORD_ALIGNMENT)


class Records:
    """The records of all episodes, in device memory.

    Args:
        what: Their layout.
        device: Where to.
    """

    def __init__(self, what: RecordLayout, device: torch.device) -> None:
        self._what, self._device = what, device
        joined = what.joined
        self._tables = [
            torch.zeros((what.frames, group.record_bytes), dtype=torch.uint8, device=device) for group in what.groups
        ]
        first_rows = np.cumsum(joined.lengths) - joined.lengths
        homes = {
            key: (table, group) for table, group in zip(self._tables, what.groups, strict=True) for key in group.places
        }
        for episode, key, array in read_all(joined):
            table, group = homes[key]
            at, field = group.places[key]
            size = field.sample_bytes // group.rows
            if size:
                _write(table[int(first_rows[episode]) :, at : at + size], array)
        self._rows = Rows(SampleIndex(joined.lengths, what.layout.window).counts, joined.lengths)
        dataset = joined.dataset_of(np.arange(len(joined.lengths)))
        self._dataset = self._on_device(dataset)
        self._number = self._on_device(np.arange(len(joined.lengths)) - joined.first_episode[dataset])

    def parts(self, order: SampleOrder, step_samples: int) -> Iterator[Part]:
        """Where this rank's batches lie, in their order; computed for many batches at once.

        Args:
            order: Where the epoch stands.
            step_samples: Samples of a step, of all ranks together.
        """
        source: DeviceOrder | HostOrder = HostOrder(order, self._rows, self._device)
        if order.permutation is not None and choose_backend(None, self._device.type) == "cuda":
            source = DeviceOrder(order.permutation, self._rows, self._device)
        spans, steps = order.spans(), max(1, _PLACES // step_samples)
        while block := list(itertools.islice(spans, steps)):
            first = block[0][0]
            sizes: list[int] = []
            for start, stop in block:
                sizes += [start - first - sum(sizes), stop - start]
            places = source.places(first, sum(sizes), order.epoch)
            dataset, episode = self._dataset[places.episodes], self._number[places.episodes]
            whole = (places.starts, places.ends, dataset, episode, places.frames)
            yield from map(Part._make, zip(*(torch.split(one, sizes)[1::2] for one in whole), strict=True))

    def batch(self, part: Part) -> Batch:
        """The batch that lies there, on the current stream: one launch a group of features."""
        parts: dict[Key, tuple[Tensor, int, Field]] = {}
        for table, group in zip(self._tables, self._what.groups, strict=True):
            starts = part.starts + (self._what.layout.window - 1) if group.starts_late else part.starts
            taken = gather_windows(table, starts, group.rows, ends=part.ends)
            if group.starts_late:
                self._end(taken, group, starts, part.ends)
            for key, (at, field) in group.places.items():
                parts[key] = (taken, at, field)
        names = self._what.layout.features
        data, valid, age = ({name: parts[role, name] for name in names} for role in ("data", "valid", "age"))
        return Batch(
            Views(data),
            Views(valid),
            Views(age),
            _view(*parts["times", ""]),
            part.dataset,
            part.episode,
            part.frame,
            {},
            self._what.layout.fuses,
        )

    def close(self) -> None:
        """Free the records, when the device is done with them."""
        if self._tables and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._tables.clear()

    def _end(self, taken: Tensor, group: Group, starts: Tensor, ends: Tensor) -> None:
        """Nothing is valid beyond the end of an episode."""
        within = starts[:, None] + torch.arange(group.rows, device=starts.device) < ends[:, None]
        for (role, _), (at, field) in group.places.items():
            if role == "valid":
                valid = _view(taken, at, field)
                valid &= within.view(*within.shape, *[1] * (valid.ndim - 2))

    def _on_device(self, numbers: Integers) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self._device)


class Views(Mapping[str, Tensor]):
    """Tensors that are parts of gathered records, made when they are first asked for.

    Args:
        parts: By name: the records [sample, row, byte], where in each the value begins, and what it is.
    """

    def __init__(self, parts: Mapping[str, tuple[Tensor, int, Field]]) -> None:
        self._parts = parts
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = _view(*self._parts[name])
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _view(records: Tensor, at: int, field: Field) -> Tensor:
    """[sample, row, *shape] of one field."""
    values = records.view(field.dtype)
    row, size = values.stride(1), field.dtype.itemsize
    inner = field.shape[1:]
    strides = [math.prod(inner[axis + 1 :]) for axis in range(len(inner))]
    sizes = (records.shape[0], *field.shape)
    return values.as_strided(sizes, (values.stride(0), row, *strides), values.storage_offset() + at // size)


def _write(to: Tensor, array: npt.NDArray[Any]) -> None:
    """Rows of an episode into its records, piece by piece through a copy of a bounded size."""
    flat = np.asarray(array).reshape(len(array), -1)
    step = max(1, STAGING_BYTES // max(1, flat.shape[1] * flat.itemsize))
    for start in range(0, len(flat), step):
        piece = torch.from_numpy(np.ascontiguousarray(flat[start : start + step]).view(np.uint8).copy())
        to[start : start + len(piece)] = piece.to(to.device)
