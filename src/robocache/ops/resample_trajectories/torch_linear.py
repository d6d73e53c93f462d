"""The common case of a fuse in PyTorch on a CPU, in few calls: linear, edges held, all samples, nothing differentiated.

A call of PyTorch costs a microsecond or two, and a small fuse is little else: what has the targets' shape is computed
for all streams at once. A large fuse is bound by memory: samples are mixed straight into their columns, and the few
rows that are one sample are put there afterwards. Both look into the tensors, which a GPU would make wait, and which
neither tracing nor `torch.func` can follow; and where stamps are equal or not finite, there is more to decide. All that
is left to `torch_backend`, and what comes out is the same to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robocache.ops.backends import is_transformed
from robocache.policies import Linear, Policy

_CACHED_ROWS = 512  # of all streams; beyond, making anew costs little beside the rest, and keeping costs memory


def takes(
    data: Sequence[Tensor],
    times: Sequence[Tensor],
    targets: Tensor,
    policies: Sequence[Policy],
    lengths: Sequence[Tensor | None],
) -> bool:
    """Whether a call is of the common case, as far as that shows without looking into the tensors."""
    if is_transformed() or targets.numel() == 0:
        return False
    for policy, length in zip(policies, lengths, strict=True):
        if type(policy) is not Linear or policy.outside != "clamp" or policy.max_gap is not None or length is not None:
            return False
    has_gradients = torch.is_grad_enabled()
    for one in (*data, *times, targets):
        if (
            type(one) is not Tensor
            or not one.is_cpu
            or not one.is_contiguous()
            or (has_gradients and one.requires_grad)
        ):
            return False
    return True


def fuse(data: Sequence[Tensor], times: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor] | None:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams].

    None where stamps beside a target are equal, or one of them or a target is not finite.
    """
    rows = _rows_around(times, targets)
    stamps = targets.new_empty(rows.shape)
    for source, index, found in zip(times, rows.unbind(), stamps.unbind(), strict=True):
        torch.take(source, index, out=found)
    (before, after, following), (low, high, higher) = stamps.unbind(1), rows.unbind(1)
    if not torch.equal(after == following, high == higher):
        return None
    wanted = targets.view(-1)
    since, gap = wanted - before, after - before
    # Neither NaN nor infinity survives unseen in a sum of products.
    if targets.is_floating_point() and not math.isfinite(torch.dot(since.view(-1), gap.view(-1)).item()):
        return None
    valid = torch.clamp(wanted, before, after).eq(wanted)
    is_single = (before >= wanted).logical_or_(wanted >= after)
    arithmetic = torch.float64 if data[0].dtype == torch.float64 else torch.float32
    if targets.dtype != arithmetic:
        since, gap = since.to(arithmetic), gap.to(arithmetic)
    # Where one sample is the value, whatever was divided by whatever is overwritten.
    weights = since.div_(gap).unsqueeze_(2)
    streams = zip(data, low.unbind(), high.unbind(), weights.unbind(), is_single.unbind(), strict=True)
    if len(data) == 1:
        out = _mixed(*next(streams))
    else:
        widths = [one.shape[2] for one in data]
        out = data[0].new_empty((len(wanted), sum(widths)))
        for part, stream in zip(torch.split(out, widths, dim=1), streams, strict=True):
            _mixed(*stream, out=part)
    return out.view(*targets.shape, out.shape[1]), valid.t().contiguous().view(*targets.shape, len(data))


def _rows_around(times: Sequence[Tensor], targets: Tensor) -> Tensor:
    """For each stream the sample before a target, that after it, and the next: [streams, 3, B * T], of all B * S."""
    batch, target = targets.shape
    later = torch.empty((len(times), 1, batch, target), dtype=torch.int64, device="cpu")
    for stamps, found in zip(times, later.view(-1, batch, target).unbind(), strict=True):
        torch.searchsorted(stamps, targets, right=True, out=found)
    limits = _limits if batch * len(times) <= _CACHED_ROWS else _limits.__wrapped__
    steps, first, last = limits(batch, tuple([stamps.shape[1] for stamps in times]))
    return torch.clamp(later + steps, first, last).view(len(times), 3, batch * target)


@functools.lru_cache(maxsize=16)
def _limits(batch: int, sources: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What makes a row of all B * S of the number of stamps up to a target, and its bounds: [streams, 3 or 1, B, 1]."""
    count = torch.tensor(sources, device="cpu").view(-1, 1, 1, 1)  # whatever the default device is
    first = torch.arange(batch, device="cpu").view(-1, 1) * count
    return first + torch.arange(-1, 2, device="cpu").view(3, 1, 1), first, first + (count - 1)


def _mixed(
    data: Tensor, before: Tensor, after: Tensor, weight: Tensor, is_single: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Samples [B,S,D], rows [B*T] of them, to [B*T,D]; where there is a single sample, that one to the bit."""
    samples = data.flatten(0, 1)
    low, high = samples.index_select(0, before), samples.index_select(0, after)
    single = is_single.nonzero().squeeze_(1)
    kept = low.index_select(0, single)
    if low.dtype != weight.dtype:
        low, high = low.to(weight.dtype), high.to(weight.dtype)
    if out is None or out.dtype != weight.dtype:
        mixed = torch.lerp(low, high, weight, out=low)  # into memory that is there
        out = mixed.to(data.dtype) if out is None else out.copy_(mixed)
    else:
        torch.lerp(low, high, weight, out=out)
    return out.index_copy_(0, single, kept)
