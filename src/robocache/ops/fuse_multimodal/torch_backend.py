"""A fuse in vectorised PyTorch: each stream resampled onto the targets, side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops.resample_trajectories import torch_backend, torch_linear
from robocache.policies import Policy


def fuse(
    data: list[Tensor],
    times: list[Tensor],
    targets: Tensor,
    policies: list[Policy],
    lengths: list[Tensor | None],
    *,
    with_valid: bool = True,
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]; if not wanted, anything."""
    if torch_linear.takes(data, times, targets, policies, lengths):
        mixed = torch_linear.fuse(data, times, targets, with_valid=with_valid)
        if mixed is not None:
            return mixed
    parts = [
        torch_backend.resample_trajectories(one, stamps, targets, policy, length)
        for one, stamps, policy, length in zip(data, times, policies, lengths, strict=True)
    ]
    return torch.cat([values for values, _ in parts], dim=2), torch.stack([valid for _, valid in parts], dim=2)
