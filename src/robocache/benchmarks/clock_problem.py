"""Streams onto a clock: inputs of a resample or a fuse, its bytes, and what the reference says about a part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robocache.ops.fuse_multimodal import cases as fuse_cases
from robocache.ops.fuse_multimodal import fuse_multimodal
from robocache.ops.fuse_multimodal import reference as fuse_reference
from robocache.ops.resample_trajectories import cases as resample_cases
from robocache.ops.resample_trajectories import resample_trajectories
from robocache.policies import Linear

SAMPLE_ROWS, SAMPLE_TARGETS = 3, 40  # the reference takes about 0.2 ms a target and stream
FUSED = 3  # streams that `fuse_multimodal` takes


@dataclass(frozen=True)
class ClockProblem:
    """One stream, or three, on one clock.

    Args:
        data: [batch, source, dim] each.
        times: [batch, source] each.
        targets: [batch, target].
    """

    data: tuple[Tensor, ...]
    times: tuple[Tensor, ...]
    targets: Tensor

    @classmethod
    def of(cls, case: resample_cases.Case | fuse_cases.Case, device: str) -> ClockProblem:
        """The inputs of a case.

        Args:
            case: A case of one of the two operations.
            device: Where the inputs shall lie.
        """
        if isinstance(case, resample_cases.Case):
            data, times, targets = case.inputs(device)
            return cls((data,), (times,), targets)
        streams, stamps, targets = case.inputs(device)
        return cls(tuple(streams), tuple(stamps), targets)

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.targets.device

    def call(self, backend: str) -> Callable[[], Tensor]:
        """The public operation on these inputs.

        Args:
            backend: As the operation takes it.
        """
        if len(self.data) == FUSED:
            pairs = [one for pair in zip(self.data, self.times, strict=True) for one in pair]
            return partial(fuse_multimodal, *pairs, self.targets, backend=backend)
        return partial(resample_trajectories, self.data[0], self.times[0], self.targets, backend=backend)

    def output_bytes(self) -> int:
        """Bytes of the result."""
        width = sum(one.shape[2] for one in self.data)
        return self.targets.numel() * width * self.data[0].element_size()

    def needed_bytes(self) -> int:
        """The fewest bytes that must move: samples that a target needs, all times, the result, each once."""
        total = self.output_bytes() + self.targets.nbytes
        for data, times in zip(self.data, self.times, strict=True):
            last = times.shape[1] - 1
            later = torch.searchsorted(times, self.targets.contiguous(), right=True)
            is_needed = torch.zeros(times.shape, dtype=torch.bool, device=times.device)
            is_needed.scatter_(1, (later - 1).clamp(0, last), value=True)
            is_needed.scatter_(1, later.clamp(0, last), value=True)
            total += times.nbytes + int(is_needed.sum()) * data.shape[2] * data.element_size()
        return total

    def reference_part(self) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """How to take a part of the result, and what the float64 reference says it is."""
        batch, target = self.targets.shape
        rows = _spread(batch, SAMPLE_ROWS, self.device)
        columns = _spread(target, SAMPLE_TARGETS, self.device)
        wanted, _ = fuse_reference.fuse(
            [data[rows].cpu() for data in self.data],
            [times[rows].cpu() for times in self.times],
            self.targets[rows][:, columns].cpu(),
            [Linear()] * len(self.data),
            [None] * len(self.data),
        )
        return lambda result: result[rows][:, columns], wanted


def _spread(size: int, count: int, device: torch.device) -> Tensor:
    """Indices from the first to the last, evenly, each once."""
    return torch.linspace(0, size - 1, min(size, count), device=device, dtype=torch.float64).round().long()
