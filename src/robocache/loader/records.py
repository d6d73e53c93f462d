"""Episodes on the device as one record a frame, so that one launch takes a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.loader.batch import Batch
from robocache.loader.device_order import DeviceOrder, HostOrder, Rows
from robocache.loader.joined import Integers
from robocache.loader.layout import SampleIndex
from robocache.loader.order import SampleOrder
from robocache.loader.packing import read_all
from robocache.loader.record_batch import RecordBatch, view
from robocache.loader.record_layout import PLACES, Group, RecordLayout
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.gather_windows import gather_windows

STAGING_BYTES = 8 * 2**20


class Part(NamedTuple):
    """Where the samples of one batch lie.

    Args:
        starts: [sample] int64: the first record of each one's window.
        ends: [sample] int64: the record after the last of its episode.
        block: [place] dataset, episode and first frame of the samples of many batches.
        samples: Which of the block are the batch's.
    """

    starts: Tensor
    ends: Tensor
    block: tuple[Tensor, Tensor, Tensor]
    samples: slice


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
        is_kernel = choose_backend(None, device.type) == "cuda"
        self._new_plan = kernels("gather_windows").WindowPlan if is_kernel else None
        self._plans: dict[tuple[int, tuple[int, int]], Callable[[tuple[Tensor, ...]], Tensor]] = {}
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
        if order.permutation is not None and self._new_plan is not None:
            source = DeviceOrder(order.permutation, self._rows, self._device)
        spans, steps = order.spans(), max(1, PLACES // step_samples)
        while block := list(itertools.islice(spans, steps)):
            first, last = block[0][0], block[-1][1]
            places = source.places(first, last - first, order.epoch)
            index = (self._dataset[places.episodes], self._number[places.episodes], places.frames)
            # Of several ranks' batches this one's, and what lies between them.
            edges = [edge - first for span in block for edge in span]
            sizes = [edges[0], *(after - before for before, after in itertools.pairwise(edges))]
            parts = zip(*(torch.split(one, sizes)[1::2] for one in places[:2]), strict=True)
            bounds = zip(edges[::2], edges[1::2], strict=True)
            for (starts, ends), (start, stop) in zip(parts, bounds, strict=True):
                yield Part(starts, ends, index, slice(start, stop))

    def batch(self, part: Part) -> Batch:
        """The batch that lies there, on the current stream: one launch a group of features."""
        starts, ends, block, samples = part
        count = samples.stop - samples.start
        taken = []
        for table, group in zip(self._tables, self._what.groups, strict=True):
            if not group.starts_late:
                taken.append(self._gather(table, starts, ends, (count, group.rows)))
                continue
            late = starts + (self._what.layout.window - 1)
            taken.append(self._gather(table, late, ends, (count, group.rows)))
            self._end(taken[-1], group, late, ends)
        return RecordBatch(self._what, taken, block, samples)

    def _gather(self, table: Tensor, starts: Tensor, ends: Tensor, shape: tuple[int, int]) -> Tensor:
        if self._new_plan is None:
            return gather_windows(table, starts, shape[1], ends=ends)
        # What `gather_windows` does behind its checks: there is nothing to check here, and a check costs microseconds.
        key = (id(table), shape)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._new_plan(table, *shape, with_ends=True)
        return plan((table, starts, ends))

    def close(self) -> None:
        """Free the records, when the device is done with them."""
        if self._tables and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._tables.clear()
        self._plans.clear()

    def _end(self, taken: Tensor, group: Group, starts: Tensor, ends: Tensor) -> None:
        """Nothing is valid beyond the end of an episode."""
        within = starts[:, None] + torch.arange(group.rows, device=starts.device) < ends[:, None]
        for (role, _), (at, field) in group.places.items():
            if role == "valid":
                valid = view(taken, at, field)
                valid &= within.view(*within.shape, *[1] * (valid.ndim - 2))

    def _on_device(self, numbers: Integers) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self._device)


def _write(to: Tensor, array: npt.NDArray[Any]) -> None:
    """Rows of an episode into its records, piece by piece through a copy of a bounded size."""
    flat = np.asarray(array).reshape(len(array), -1)
    step = max(1, STAGING_BYTES // max(1, flat.shape[1] * flat.itemsize))
    for start in range(0, len(flat), step):
        piece = torch.from_numpy(np.ascontiguousarray(flat[start : start + step]).view(np.uint8).copy())
        to[start : start + len(piece)] = piece.to(to.device)
