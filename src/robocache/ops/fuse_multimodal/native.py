"""A fuse in the compiled CPU library: one call for all streams, each into its columns of the output row."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops.resample_trajectories.native import resample_into
from robocache.policies import Policy


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    out = torch.empty((*targets.shape, sum(one.shape[2] for one in data)), dtype=data[0].dtype)
    valid = torch.empty((*targets.shape, len(data)), dtype=torch.bool)
    resample_into(out, valid, list(zip(data, times, policies, lengths, strict=True)), targets)
    return out, valid
