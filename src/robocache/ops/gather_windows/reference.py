"""The definition of `gather_windows`: one row at a time."""

from __future__ import annotations

from torch import Tensor


def gather_windows(packed: Tensor, starts: Tensor, window: int, ends: Tensor | None) -> Tensor:
    """[rows, ...], [B] -> [B, window, ...]."""
    rows = packed.shape[0]
    out = packed.new_zeros(starts.shape[0], window, *packed.shape[1:])
    for number, start in enumerate(starts.tolist()):
        end = rows if ends is None else min(int(ends[number]), rows)
        for place in range(window):
            out[number, place] = packed[max(min(start + place, end - 1), 0)]
    return out
