"""All episodes on the device: a batch is index arithmetic there, and one gather a feature."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robocache.loader.batch import Batch
from robocache.loader.joined import Integers, Joined, Key
from robocache.loader.layout import Layout, SampleIndex
from robocache.loader.packing import Packing, read_all

STAGING_BYTES = 8 * 2**20


class PackedOnDevice:
    """The dataset in device memory. Points are not for this tier.

    Args:
        joined: The episodes.
        layout: What a batch consists of.
        packing: How they lie.
        device: Where to.
    """

    def __init__(self, joined: Joined, layout: Layout, packing: Packing, device: torch.device) -> None:
        self._layout = layout
        fields = {field.key: field.dtype for field in layout.fields}
        self._arrays: dict[Key, Tensor] = {
            key: torch.empty((packing.rows[key], *slot.shape), dtype=fields.get(key, torch.int64), device=device)
            for key, slot in layout.slots.items()
        }
        for episode, key, array in read_all(joined):
            first = int(packing.first_row[key][episode])
            # Piece by piece through a copy of a bounded size; mapped arrays are read-only, which PyTorch warns of.
            step = max(1, STAGING_BYTES // max(1, layout.slots[key].row_bytes))
            for start in range(0, len(array), step):
                piece = torch.from_numpy(np.array(array[start : start + step]))
                self._arrays[key][first + start : first + start + len(piece)] = piece.to(device)

        def on_device(numbers: Integers) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(device)

        counts = SampleIndex(joined.lengths, layout.window).counts
        self._ends = on_device(np.cumsum(counts))
        self._begins = on_device(np.cumsum(counts) - counts)
        self._last = on_device(joined.lengths - 1)
        dataset = joined.dataset_of(np.arange(len(joined.lengths)))
        self._dataset = on_device(dataset)
        self._number = on_device(np.arange(len(joined.lengths)) - joined.first_episode[dataset])
        self._first_row = {key: on_device(rows) for key, rows in packing.first_row.items()}
        self._is_partial = {key: bool((rows < 0).any()) for key, rows in packing.first_row.items()}

    def batch(self, samples: Tensor) -> Batch:
        """The batch of these samples, on the current stream.

        Args:
            samples: [sample] int64 numbers, on the device.
        """
        episode = torch.searchsorted(self._ends, samples, right=True)
        frame = samples - self._begins[episode]
        last = self._last[episode]
        found: dict[Key, Tensor] = {
            ("dataset", ""): self._dataset[episode],
            ("episode", ""): self._number[episode],
            ("frame", ""): frame,
        }
        for field in self._layout.fields[3:]:
            first = frame + (self._layout.window - 1) if field.starts_late else frame
            rows = first[:, None] + torch.arange(field.shape[0], device=samples.device)
            within = torch.minimum(rows, last[:, None])
            role, name = field.key
            if role == "data" and self._layout.features[name].kind == "image":
                within = self._take(("row", name), episode, within)
                tensor = self._take(field.key, episode, within)
                tensor.masked_fill_((within < 0).view(*within.shape, *[1] * (tensor.ndim - 2)), 0)
            else:
                tensor = self._take(field.key, episode, within)
            if role == "valid" and field.starts_late:
                tensor &= (rows <= last[:, None]).view(*rows.shape, *[1] * (tensor.ndim - 2))
            found[field.key] = tensor
        return self._layout.batch(found, {}, {})

    def close(self) -> None:
        """Free the arrays, when the device is done with them."""
        if self._arrays and next(iter(self._arrays.values())).device.type == "cuda":
            torch.cuda.synchronize(next(iter(self._arrays.values())).device)
        self._arrays.clear()

    def _take(self, key: Key, episode: Tensor, within: Tensor) -> Tensor:
        """[sample, row, ...] rows of the episodes; zeros where an episode has no such stream."""
        array, first_row = self._arrays[key], self._first_row[key][episode][:, None]
        tensor = array[(first_row + within).clamp(min=0)]
        if self._is_partial[key]:
            tensor.masked_fill_((first_row < 0).view(-1, *[1] * (tensor.ndim - 1)), 0)
        return tensor
