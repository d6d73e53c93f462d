"""A fuse in the compiled CPU library: one call for all streams, each into its columns of the output row."""

from __future__ import annotations

from torch import Tensor

from robocache.ops.resample_trajectories.native import StreamsPlan
from robocache.policies import Policy


def fuse(
    data: list[Tensor], times: list[Tensor], targets: Tensor, policies: list[Policy], lengths: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]."""
    return StreamsPlan(data, times, targets, policies)(data, times, targets, lengths)
