"""The shapes a fuse promises: shared by tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robocache.ops.resample_trajectories.cases import Case as StreamCase


@dataclass(frozen=True)
class Case:
    """Several streams, (source, dim) each, onto one clock."""

    name: str
    batch: int
    streams: tuple[tuple[int, int], ...]
    target: int
    dtype: torch.dtype = torch.float32
    times: torch.dtype = torch.float32

    def __str__(self) -> str:
        return self.name

    def inputs(self, device: str | torch.device, seed: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Lists of data [B,S,D] and times [B,S], and targets [B,T]."""
        data, times = [], []
        targets = torch.empty(0)
        for index, (source, dim) in enumerate(self.streams):
            stream = StreamCase(self.name, self.batch, source, self.target, dim, self.dtype, self.times)
            values, stamps, targets = stream.inputs(device, seed + index)
            data.append(values)
            times.append(stamps)
        return data, times, targets


VISION_STATE_FORCE = ((30, 512), (100, 64), (200, 12))

EDGE_CASES = (
    Case("one_stream", batch=2, streams=((9, 5),), target=7),
    Case("three_odd", batch=3, streams=((5, 33), (17, 7), (40, 3)), target=11),
    Case("five_streams", batch=2, streams=((5, 8), (1, 4), (12, 1), (64, 16), (3, 2)), target=6, times=torch.int64),
    Case("brain_half", batch=2, streams=((30, 64), (100, 16), (200, 12)), target=10, dtype=torch.bfloat16),
    Case("no_targets", batch=2, streams=((5, 3), (4, 2)), target=0),
)
SPEED_CASES = tuple(
    Case(f"30x512_100x64_200x12_to_50_b{batch}", batch, VISION_STATE_FORCE, 50, torch.bfloat16)
    for batch in (4, 256, 2048)
)
