"""The order of samples, computed on the GPU that gathers them: as `SampleOrder` has it, without a copy."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robocache.loader.order import Integers
from robocache.loader.permutation import KeyedPermutation

BLOCK = 256  # places that a program computes


class Places(NamedTuple):
    """Where samples lie in packed episodes.

    Args:
        samples: [sample] int64: their numbers.
        starts: [sample] int64: the first row of each one's window.
        ends: [sample] int64: the row after the last of its episode.
    """

    samples: Tensor
    starts: Tensor
    ends: Tensor


class DeviceOrder:
    """Samples and rows of any part of an epoch's order, by one launch.

    Args:
        permutation: `SampleOrder.permutation`; None keeps the samples in their own order.
        sample_offsets: [episode + 1] the first sample of each episode, and the number of all.
        row_offsets: [episode + 1] the first row of each episode, and the number of all.
        device: A CUDA device, or the CPU where Triton's interpreter runs.
    """

    def __init__(
        self,
        permutation: KeyedPermutation | None,
        sample_offsets: Integers,
        row_offsets: Integers,
        device: torch.device,
    ) -> None:
        # An episode without samples begins where the next one does, and a search would find either.
        has_samples = np.flatnonzero(np.diff(sample_offsets))
        self._permutation = None if permutation is None or permutation.size == 1 else permutation
        self._size, self._device = int(sample_offsets[-1]), device
        self._episodes = len(has_samples)
        tables = (sample_offsets[has_samples], row_offsets[has_samples], row_offsets[has_samples + 1])
        self._tables = [torch.from_numpy(np.ascontiguousarray(table, np.int64)).to(device) for table in tables]
        self._search_step = 1 << max((self._episodes - 1).bit_length() - 1, 0)
        self._epoch, self._keys = -1, self._tables[0]
        self._kernel: Any = importlib.import_module("robocache.loader.triton_order").order_kernel

    def places(self, first: int, count: int, epoch: int) -> Places:
        """Samples at places `first` to `first + count` of an epoch's global order, and where they lie.

        Args:
            first: The first place, 0 or more.
            count: How many, 1 or more; `first + count` at most the number of samples.
            epoch: Which epoch.
        """
        network = None if self._permutation is None else self._permutation.network(epoch)
        if network is not None and epoch != self._epoch:
            self._keys = torch.from_numpy(network.keys.view(np.int64).copy()).to(self._device)
            self._epoch = epoch
        made = Places(*(torch.empty(count, dtype=torch.int64, device=self._device) for _ in range(3)))
        numbers = (first, count, self._size, *((0, 0) if network is None else network[1:]))
        with torch.cuda.device_of(made.samples):  # type: ignore[no-untyped-call]  # Triton takes the current device
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
