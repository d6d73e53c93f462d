"""The shapes `resample_trajectories` promises: shared by tests and benchmarks, so that a fast shape is a right one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPOCH_NS = 1_760_000_000_000_000_000  # an October day in 2025


@dataclass(frozen=True)
class Case:
    """One shape, with realistic clocks: a rate, jitter, and targets that reach beyond both ends."""

    name: str
    batch: int
    source: int
    target: int
    dim: int
    dtype: torch.dtype = torch.float32
    times: torch.dtype = torch.float32

    def __str__(self) -> str:
        return self.name

    def inputs(self, device: str | torch.device, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Data [B,S,D], times [B,S], targets [B,T], the same for the same seed on every device."""
        random = torch.Generator().manual_seed(seed)
        data = torch.randn(self.batch, self.source, self.dim, generator=random).to(self.dtype)
        period_ns = 1_000_000_000 // max(self.source, 1)
        grid = torch.arange(self.source) * period_ns
        jitter = torch.randint(0, max(period_ns // 3, 1), (self.batch, self.source), generator=random)
        times = grid + jitter
        targets = torch.rand(self.batch, self.target, generator=random, dtype=torch.float64) * 1.04e9 - 2e7
        times, targets = times.sort(dim=1).values, targets.to(torch.int64)
        if self.times == torch.int64:
            times, targets = times + EPOCH_NS, targets + EPOCH_NS
        else:
            times, targets = (times / 1e9).to(self.times), (targets / 1e9).to(self.times)
        return data.to(device), times.to(device), targets.to(device)


EDGE_CASES = (
    Case("one_sample", batch=1, source=1, target=3, dim=1),
    Case("no_targets", batch=2, source=5, target=0, dim=7),
    Case("no_batch", batch=0, source=5, target=3, dim=7),
    Case("no_width", batch=2, source=5, target=3, dim=0),
    Case("odd_sizes", batch=3, source=63, target=57, dim=7),
    Case("epoch_nanoseconds", batch=2, source=33, target=19, dim=8, times=torch.int64),
    Case("half", batch=2, source=31, target=17, dim=12, dtype=torch.float16),
    Case("brain_half", batch=2, source=65, target=18, dim=36, dtype=torch.bfloat16, times=torch.float64),
    Case("double", batch=2, source=9, target=11, dim=3, dtype=torch.float64, times=torch.float64),
    Case("wide_rows", batch=1, source=7, target=5, dim=1100),
    Case("long_source", batch=1, source=1500, target=9, dim=4),
)
SPEED_CASES = (
    Case("32x500x256_to_250", batch=32, source=500, target=250, dim=256, dtype=torch.bfloat16),
    Case("256x500x256_to_250", batch=256, source=500, target=250, dim=256, dtype=torch.bfloat16),
    Case("64x4096x32_to_1024", batch=64, source=4096, target=1024, dim=32, dtype=torch.bfloat16),
    Case("1024x1000x64_to_500", batch=1024, source=1000, target=500, dim=64, dtype=torch.bfloat16),
)
