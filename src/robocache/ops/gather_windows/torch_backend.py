"""`gather_windows` by PyTorch's own indexing."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_windows(packed: Tensor, starts: Tensor, window: int, ends: Tensor | None) -> Tensor:
    """[rows, ...], [B] -> [B, window, ...]."""
    last = packed.shape[0] - 1 if ends is None else (ends - 1).clamp(max=packed.shape[0] - 1)[:, None]
    rows = starts[:, None] + torch.arange(window, device=starts.device)
    rows = torch.minimum(rows, last) if isinstance(last, Tensor) else rows.clamp(max=last)
    gathered = packed.index_select(0, rows.clamp(min=0).reshape(-1))
    return gathered.reshape(starts.shape[0], window, *packed.shape[1:])
