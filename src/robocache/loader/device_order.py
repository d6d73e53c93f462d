"""The order of samples, computed on the GPU that gathers them: as `SampleOrder` has it, without a copy."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robocache.loader.order import Integers, SampleOrder
from robocache.loader.permutation import KeyedPermutation

BLOCK = 256  # places that a program computes


class Places(NamedTuple):
    """Where samples lie in packed episodes: [sample] int64 each.

    Args:
        starts: The first row of each one's window.
        ends: The row after the last of its episode.
        episodes: Its episode.
        frames: Its first frame in that.
    """

    starts: Tensor
    ends: Tensor
    episodes: Tensor
    frames: Tensor


class Rows:
    """Which samples and which rows episodes have.

    Args:
        counts: [episode] samples of each.
        lengths: [episode] rows of each; they lie one after the other.
    """

    def __init__(self, counts: Integers, lengths: Integers) -> None:
        # An episode without samples begins where the next one does, and a search would find either.
        self.numbers: Integers = np.flatnonzero(counts)
        self.samples = int(counts.sum())
        self.first_samples: Integers = (np.cumsum(counts) - counts)[self.numbers]
        self.ends: Integers = np.cumsum(lengths)[self.numbers]
        self.first_rows: Integers = self.ends - lengths[self.numbers]


class HostOrder:
    """Places computed on the host, for an order that the device does not compute.

    Args:
        order: Whose samples.
        rows: Where they lie.
        device: Where the places go.
    """

    def __init__(self, order: SampleOrder, rows: Rows, device: torch.device) -> None:
        self._order, self._rows, self._device = order, rows, device

    def places(self, first: int, count: int, epoch: int) -> Places:
        """As `DeviceOrder.places`."""
        rows, samples = self._rows, self._order.samples_at(np.arange(first, first + count), epoch=epoch)
        at = np.searchsorted(rows.first_samples, samples, side="right") - 1
        frames = samples - rows.first_samples[at]
        found = torch.from_numpy(np.stack([rows.first_rows[at] + frames, rows.ends[at], rows.numbers[at], frames]))
        if self._device.type == "cuda":
            found = found.pin_memory()
        return Places(*found.to(self._device, non_blocking=True).unbind())


class DeviceOrder:
    """The places of samples in any part of an epoch's order, by one launch.

    Args:
        permutation: `SampleOrder.permutation`; None keeps the samples in their own order.
        rows: Where samples lie.
        device: A CUDA device, or the CPU where Triton's interpreter runs.
    """

    def __init__(self, permutation: KeyedPermutation | None, rows: Rows, device: torch.device) -> None:
        self._permutation = None if permutation is None or permutation.size == 1 else permutation
        self._size, self._device, self._episodes = rows.samples, device, len(rows.numbers)
        tables = (rows.first_samples, rows.first_rows, rows.ends, rows.numbers)
        self._tables = [torch.from_numpy(table).to(device) for table in tables]
        self._search_step = 1 << max((self._episodes - 1).bit_length() - 1, 0)
        self._epoch, self._keys = -1, self._tables[0]
        self._kernel: Any = importlib.import_module("robocache.loader.triton_order").order_kernel

    def places(self, first: int, count: int, epoch: int) -> Places:
        """Where the samples at places `first` to `first + count` of an epoch's global order lie.

        Args:
            first: The first place, 0 or more.
            count: How many, 1 or more; `first + count` at most the number of samples.
            epoch: Which epoch.
        """
        network = None if self._permutation is None else self._permutation.network(epoch)
        if network is not None and epoch != self._epoch:
            self._keys = torch.from_numpy(network.keys.view(np.int64).copy()).to(self._device)
            self._epoch = epoch
        made = Places(*torch.empty((4, count), dtype=torch.int64, device=self._device).unbind())
        numbers = (first, count, self._size, *((0, 0) if network is None else network[1:]))
        with torch.cuda.device_of(made.starts):  # type: ignore[no-untyped-call]  # Triton takes the current device
            self._kernel[(-(-count // BLOCK),)](
                self._keys,
                *self._tables,
                *made,
                *numbers,
                self._episodes,
                self._search_step,
                SHUFFLES=network is not None,
                ROUNDS=0 if network is None else len(network.keys) - 1,
                BLOCK=BLOCK,
            )
        return made
