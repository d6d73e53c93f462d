"""`resample_trajectories` on a GPU: a fuse of one stream, with the same kernel."""

from __future__ import annotations

from torch import Tensor

from robocache.ops.fuse_multimodal.triton_kernel import fuse
from robocache.policies import Policy


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]."""
    out, valid = fuse([data], [times], targets, [policy], [lengths])
    return out, valid[:, :, 0]
