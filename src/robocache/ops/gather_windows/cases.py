"""The shapes `gather_windows` promises: shared by tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One shape: episodes of equal length, windows anywhere in them, some beyond their ends."""

    name: str
    rows: int
    shape: tuple[int, ...]
    batch: int
    window: int
    dtype: torch.dtype = torch.float32
    episode_rows: int = 500

    def __str__(self) -> str:
        return self.name

    def inputs(self, device: str | torch.device, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Packed [rows, *shape], starts [B], ends [B], the same for the same seed on every device."""
        random = torch.Generator().manual_seed(seed)
        packed = (torch.rand(self.rows, *self.shape, generator=random) * 100).to(self.dtype)
        starts = torch.randint(0, max(self.rows, 1), (self.batch,), generator=random)
        ends = (starts // self.episode_rows + 1) * self.episode_rows
        return packed.to(device), starts.to(device), ends.to(device)


EDGE_CASES = (
    Case("one_row", rows=1, shape=(3,), batch=2, window=4),
    Case("no_window", rows=5, shape=(3,), batch=2, window=0),
    Case("no_batch", rows=5, shape=(3,), batch=0, window=4),
    Case("no_width", rows=5, shape=(0,), batch=2, window=4),
    Case("scalars", rows=30, shape=(), batch=7, window=5, dtype=torch.int64, episode_rows=10),
    Case("flags", rows=30, shape=(5,), batch=7, window=5, dtype=torch.bool, episode_rows=10),
    Case("odd_halves", rows=40, shape=(7,), batch=9, window=3, dtype=torch.bfloat16, episode_rows=9),
    Case("doubles", rows=40, shape=(3,), batch=9, window=6, dtype=torch.float64, episode_rows=7),
    Case("images", rows=20, shape=(3, 9, 8), batch=4, window=2, dtype=torch.uint8, episode_rows=8),
    Case("long", rows=300, shape=(26,), batch=3, window=64, episode_rows=100),
)
SPEED_CASES = (
    Case("4096x16x26_float", rows=8_000_000, shape=(26,), batch=4096, window=16),
    Case("4096x16x26_half", rows=8_000_000, shape=(26,), batch=4096, window=16, dtype=torch.bfloat16),
)
