"""The common case of a fuse in PyTorch on a CPU, in few calls: linear, edges held, all samples, nothing differentiated.

A call of PyTorch costs a microsecond or two, and a small fuse is little else: what has the targets' shape is computed
for all streams at once. A large fuse is bound by memory, and most by memory that is new: samples are gathered piece by
piece into some that stays in the cache and mixed straight into their columns, and the few rows that are one sample are
put there afterwards. Both look into the tensors, which a GPU would make wait, and which neither tracing nor
`torch.func` can follow; and where stamps are equal or not finite, there is more to decide. All that is left to
`torch_backend`, and what comes out is the same to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robocache.ops.backends import is_transformed
from robocache.policies import Linear, Policy

_PIECE_BYTES = 1 << 19  # of gathered samples; by trial: more leaves the cache, less costs calls
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


def fuse(
    data: Sequence[Tensor], times: Sequence[Tensor], targets: Tensor, *, with_valid: bool = True
) -> tuple[Tensor, Tensor] | None:
    """Lists of [B,S,D] and [B,S], targets [B,T] -> data [B,T,sum D], valid [B,T,streams]; else anything for valid.

    None where stamps beside a target are equal, or one of them or a target is not finite.
    """
    count, wanted = len(data), targets.view(-1)
    rows = _rows_around(times, targets)
    if count == 1:
        stamps = times[0].take(rows)
    else:
        stamps = targets.new_empty(rows.shape)
        for source, index, found in zip(times, rows.unbind(1), stamps.unbind(1), strict=True):
            torch.take(source, index, out=found)
    before, after, following = stamps.unbind()
    following.sub_(after)
    since, gap = wanted - before, after.sub_(before)
    if not _is_usual(since, gap, following):
        return None
    # Outside the stamps there is no gap: the samples on both sides of a target are the same one.
    within = torch.minimum(since.relu(), gap)
    is_single = within.logical_not()
    valid = within == since if with_valid else within
    arithmetic = torch.float64 if data[0].dtype == torch.float64 else torch.float32
    if targets.dtype != arithmetic:
        since, gap = since.to(arithmetic), gap.to(arithmetic)
    # Where one sample is the value, whatever was divided by whatever is overwritten.
    weights = since.div_(gap).unsqueeze_(-1)
    low, high, _ = rows.unbind()
    if count == 1:
        out = _mixed(data[0], low, high, weights, is_single)
    else:
        streams = zip(data, low.unbind(), high.unbind(), weights.unbind(), is_single.unbind(), strict=True)
        widths = [one.shape[2] for one in data]
        out = data[0].new_empty((len(wanted), sum(widths)))
        for part, stream in zip(torch.split(out, widths, dim=1), streams, strict=True):
            _mixed(*stream, out=part)
    if with_valid:
        valid = (valid.t().contiguous() if count > 1 else valid).view(*targets.shape, count)
    return out.view(*targets.shape, out.shape[1]), valid


def _rows_around(times: Sequence[Tensor], targets: Tensor) -> Tensor:
    """For each stream the sample before a target, that after it, and the next: [3, streams, B * T], of all B * S.

    For one stream [3, B * T]. The next is counted from the end, as a negative number, so that it can be one too far:
    behind the last sample of a batch row is the first of another. Its stamp differs, or is an alarm for nothing.
    """
    batch = len(targets)
    limits = _limits if batch * len(times) <= _CACHED_ROWS else _limits.__wrapped__
    steps, first, last = limits(batch, tuple([stamps.shape[1] for stamps in times]))
    later = [torch.searchsorted(stamps, targets, right=True) for stamps in times]
    if len(later) == 1:
        return (steps + later[0]).clamp_(first, last).view(3, targets.numel())
    return (steps + torch.stack(later)).clamp_(first, last).view(3, len(times), targets.numel())


@functools.lru_cache(maxsize=16)
def _limits(batch: int, sources: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What makes a row of all B * S of the number of stamps up to a target, and its bounds: [3, streams, B, 1]."""
    count = torch.tensor(sources, device="cpu").view(-1, 1, 1)  # whatever the default device is
    first = torch.arange(batch, device="cpu").view(-1, 1) * count
    firsts = torch.stack([first, first, first - batch * count])
    order = torch.arange(3, device="cpu").view(3, 1, 1, 1)
    return firsts + (order - 1), firsts, firsts + (count - (order < 2).long())


def _is_usual(since: Tensor, gap: Tensor, following: Tensor) -> bool:
    """Whether all of them are finite, and none of what follows 0."""
    if since.is_floating_point():
        # Neither survives unseen in a sum of products.
        return math.isfinite(torch.dot(since.div(following).view(-1), gap.view(-1)).item())
    return bool(following.all())


def _mixed(
    data: Tensor, before: Tensor, after: Tensor, weight: Tensor, is_single: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Samples [B,S,D], rows [B*T] of them, to [B*T,D]; where there is a single sample, that one to the bit."""
    batch, source, width = data.shape
    samples = data.view(batch * source, width)
    single = is_single.nonzero().squeeze_(1)
    rows = max(1, _PIECE_BYTES // max(1, width * samples.element_size()))
    if len(before) <= rows:
        low, high = samples.index_select(0, before), samples.index_select(0, after)
        kept = low.index_select(0, single)
        out = _blended(low, high, weight, out)
    else:
        kept = samples.index_select(0, before.index_select(0, single))
        if out is None:
            out = samples.new_empty((len(before), width))
        gathered = samples.new_empty((2, rows, width))
        pieces = [torch.split(whole, rows) for whole in (before, after, weight, out)]
        for first, last, share, part in zip(*pieces, strict=True):
            low, high = gathered[:, : len(part)].unbind()
            torch.index_select(samples, 0, first, out=low)
            torch.index_select(samples, 0, last, out=high)
            _blended(low, high, share, part)
    return out.index_copy_(0, single, kept)


def _blended(low: Tensor, high: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """Into `out`, or else into memory that is there; `low` and `high` are lost."""
    if low.dtype == weight.dtype:
        return torch.lerp(low, high, weight, out=low if out is None else out)
    dtype, low = low.dtype, low.to(weight.dtype)
    torch.lerp(low, high.to(weight.dtype), weight, out=low)
    return low.to(dtype) if out is None else out.copy_(low)
