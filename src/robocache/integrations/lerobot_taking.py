"""The rows of a batch out of all packed columns, in one call of the compiled library."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robocache.integrations.lerobot_columns import Columns
from robocache.integrations.lerobot_windows import Window
from robocache.ops import native_library
from robocache.records import Int64

_Field = tuple[str, tuple[int, ...], torch.dtype, str | None]


class BatchRows:
    """Takes columns, and windows of them whose deltas are frames: `names`. Those with a policy are not among them.

    Args:
        columns: The rows there are.
        windows: Of `delta_timestamps`.
        names: Features in the order of an item.
    """

    def __init__(self, columns: Columns, windows: Mapping[str, Window], names: Sequence[str]) -> None:
        self._columns, self._windows = columns, windows
        self.names = tuple(
            name for name in names if name in columns.numbers and (name not in windows or windows[name].policy is None)
        )
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        # Addresses are those of one process.
        return {"_columns": self._columns, "_windows": self._windows, "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def taken(self, index: Int64) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The values of each name, and the `_is_pad` of those with a window. None: a row is beyond the dataset.

        Args:
            index: [item] rows, contiguous; negative ones count from the end, and are made positive.
        """
        if native_library.PROBLEM is not None:
            return self._by_torch(index)
        # Sent to a spawned process, a tensor moves to shared memory, here too.
        if [tensor.data_ptr() for tensor in self._kept] != self._pointers:
            self._prepare()
        count = len(index)
        values, pads = {}, {}
        addresses = [self._address, index.__array_interface__["data"][0], count, torch.get_num_threads()]
        for name, shape, dtype, pad in self._fields:
            values[name] = out = torch.empty((count, *shape), dtype=dtype)
            addresses.append(out.data_ptr())
            if pad is None:
                addresses.append(0)
            else:
                pads[pad] = is_pad = torch.empty((count, shape[0]), dtype=torch.bool)
                addresses.append(is_pad.data_ptr())
        if native_library.library().robocache_take(self._call.pack(*addresses)):
            return None
        return values, pads

    def _by_torch(self, index: Int64) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        size = self._columns.bounds.shape[1]
        if len(index) and not -size <= index.min() <= index.max() < size:
            return None
        index[index < 0] += size
        rows = torch.from_numpy(index)
        bounds = self._columns.bounds.index_select(1, rows)
        values, pads = {}, {}
        for name, _, _, pad in self._fields:
            column = self._columns.numbers[name]
            if pad is None:
                values[name] = column.index_select(0, rows)
            else:
                values[name], pads[pad] = self._windows[name].values(self._columns, column, rows, bounds)
        return values, pads

    def _prepare(self) -> None:
        self._fields: list[_Field] = []
        self._kept: list[Tensor] = [self._columns.bounds.contiguous()]
        described: list[int] = []
        sample_bytes = 0
        for name in self.names:
            column, window = self._columns.numbers[name].contiguous(), self._windows.get(name)
            shape, pad, rows = tuple(column.shape[1:]), None, [0, 0, 0]
            width = math.prod(shape) * column.element_size()
            self._kept.append(column)
            if window is not None:
                shape, pad = (len(window.offsets), *shape), f"{name}_is_pad"
                parts = window.offsets.contiguous(), window.span.contiguous()
                self._kept.extend(parts)
                rows = [parts[0].data_ptr(), parts[1].data_ptr(), len(window.offsets)]
            self._fields.append((name, shape, column.dtype, pad))
            described += [column.data_ptr(), width, *rows]
            sample_bytes += math.prod(shape) * column.element_size()
        bounds = self._kept[0]
        ends = bounds.data_ptr() + bounds.shape[1] * bounds.element_size()
        head = [bounds.data_ptr(), ends, bounds.shape[1], sample_bytes, len(self.names)]
        self._plan = np.array([*head, *described], np.int64)
        self._pointers = [tensor.data_ptr() for tensor in self._kept]
        self._address = self._plan.ctypes.data
        self._call = struct.Struct(f"@{4 + 2 * len(self.names)}q")
