"""`resample_trajectories` in vectorised PyTorch, on any device: batched search, gather, blend.

No loop over the batch, no synchronisation, differentiable with respect to the data.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robocache.ops.backends import is_transformed
from robocache.ops.limits import gap_limit
from robocache.ops.resample_trajectories import torch_linear
from robocache.policies import Angle, Nearest, Policy, Previous, Slerp

_SAME_ANGLE = 1e-7  # radians; below, the chord and the arc agree to float64


class Neighbours(NamedTuple):
    """Which samples make each target, all [batch, target]."""

    low: Tensor
    high: Tensor
    weight: Tensor | None  # of `high`, float32 or float64; None where `low` is always the value
    is_single: Tensor  # `low` is the value itself; `high` must not leak, were it NaN
    is_filled: Tensor  # no sample at all, or a NaN target, or outside="nan" and not valid
    valid: Tensor


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None, *, with_valid: bool = True
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]; if that is not wanted, anything."""
    if torch_linear.takes([data], [times], targets, [policy], [lengths]):
        mixed = torch_linear.fuse([data], [times], targets, with_valid=with_valid)
        if mixed is not None:
            return mixed[0], mixed[1].view_as(targets)
    arithmetic = torch.float64 if data.dtype == torch.float64 else torch.float32
    found = find_neighbours(times, targets, policy, lengths, arithmetic)
    return blend(data, found, policy, arithmetic), found.valid


def find_neighbours(
    times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None, arithmetic: torch.dtype
) -> Neighbours:
    """Search once per (batch, target). Times get no gradient: where a sample lies is not a matter of degree."""
    times, count = _countable(times.detach(), lengths)
    targets = targets.detach().contiguous()
    later = torch.searchsorted(times, targets, right=True).minimum(count)  # the first stamp after the target
    last = (count - 1).clamp(min=0)
    before = (later - 1).clamp(min=0)
    time_before = times.gather(1, before)
    time_after = times.gather(1, later.minimum(last))
    # Of equal stamps the last counts, also of those just after the target.
    after = (torch.searchsorted(times, time_after, right=True).minimum(count) - 1).clamp(min=0)

    is_nan = torch.isnan(targets)
    has_before = (later > 0) & ~is_nan
    has_after = (later < count) & ~is_nan
    is_exact = has_before & (time_before == targets)
    is_inside = is_exact | (has_before & has_after)

    low = torch.where(has_before, before, after)
    high, is_single = after, is_exact | ~is_inside
    time_low, gap = time_before, time_after - time_before
    if isinstance(policy, Previous):
        is_single = torch.ones_like(is_single)
        gap = targets - time_before
    elif isinstance(policy, Nearest):
        since, until = targets - time_before, time_after - targets
        is_later = ~is_single & (until < since)
        low = torch.where(is_later, after, low)
        gap = torch.where(is_later, until, since)
        is_single = torch.ones_like(is_single)
    elif policy.outside == "extrapolate":
        low, high, is_single = _edge_segments(times, count, (low, high, is_single), (has_before, is_inside | is_nan))
        time_low = times.gather(1, low)
        gap = times.gather(1, high) - time_low

    valid = is_inside
    limit = gap_limit(policy, times.dtype)
    if limit is not None:
        valid = is_inside & (is_exact | (gap <= limit))
    is_filled = is_nan | (count == 0)
    if policy.outside == "nan":
        is_filled = is_filled | ~valid
    if isinstance(policy, Previous | Nearest):
        return Neighbours(low, low, None, is_single, is_filled, valid)
    high = torch.where(is_single, low, high)  # else a NaN there would reach the gradient
    # Where one sample is the value, whatever was divided by whatever is not looked at.
    weight = ((targets - time_low).to(arithmetic) / gap.to(arithmetic)).masked_fill_(is_single, 0)
    return Neighbours(low, high, weight, is_single, is_filled, valid)


def blend(data: Tensor, found: Neighbours, policy: Policy, arithmetic: torch.dtype) -> Tensor:
    """Gather the neighbours and mix them; one rounding, at the end."""
    value = low = _rows(data, found.low)
    if found.weight is not None:
        low = low.to(arithmetic)
        high = _rows(data, found.high).to(arithmetic)
        weight = found.weight[..., None]
        if isinstance(policy, Slerp):
            shape = (*low.shape[:2], low.shape[2] // 4, 4)
            mixed = _slerp(low.view(shape), high.view(shape), weight[..., None]).flatten(2)
        elif isinstance(policy, Angle):
            mixed = _wrapped(low + weight * _wrapped(high - low, policy.period), policy.period)
        else:
            mixed = torch.lerp(low, high, weight)
        # Into memory that is there already, unless the mix is still needed for a gradient.
        spare = None if mixed.requires_grad or is_transformed() else mixed
        value = torch.where(found.is_single[..., None], low, mixed, out=spare)
    fill = torch.nan if data.is_floating_point() else 0
    return value.masked_fill_(found.is_filled[..., None], fill).to(data.dtype)  # its own: a gathered or a mixed copy


def _countable(times: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The times with what does not count moved past every target, and how many do count, [B,1]."""
    source = times.shape[1]
    if lengths is None:
        count = torch.full((len(times), 1), source, device=times.device)
    else:
        count = lengths.clamp(0, source).to(torch.int64)[:, None]
        beyond = torch.inf if times.is_floating_point() else torch.iinfo(torch.int64).max
        times = times.masked_fill(torch.arange(source, device=times.device) >= count, beyond)
    if times.is_floating_point():
        count = (times < torch.inf).sum(1, keepdim=True).minimum(count)
    return times.contiguous(), count


def _edge_segments(
    times: Tensor, count: Tensor, chosen: tuple[Tensor, Tensor, Tensor], where: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """For targets outside the range, the first or last two samples with different stamps."""
    (low, high, is_single), (has_before, is_inside) = chosen, where
    last = (count - 1).clamp(min=0)
    is_early, is_late = ~is_inside & ~has_before, ~is_inside & has_before
    time_edge = times.gather(1, low)
    second = (low + 1).minimum(last)
    second_end = (torch.searchsorted(times, times.gather(1, second), right=True).minimum(count) - 1).clamp(min=0)
    previous = torch.searchsorted(times, time_edge) - 1
    goes_early = is_early & (low < last)
    goes_late = is_late & (previous >= 0)
    high = torch.where(goes_early, second_end, torch.where(goes_late, low, high))
    low = torch.where(goes_late, previous.clamp(min=0), low)
    return low, high, is_single & ~goes_early & ~goes_late


def _rows(data: Tensor, index: Tensor) -> Tensor:
    batch, source, dim = data.shape
    if data.is_contiguous():
        offset = torch.arange(batch, device=data.device)[:, None] * source
        return data.reshape(batch * source, dim).index_select(0, (index + offset).flatten()).view(*index.shape, dim)
    return data[torch.arange(batch, device=data.device)[:, None], index]


def _wrapped(angle: Tensor, period: float) -> Tensor:
    return angle - period * torch.floor(angle / period + 0.5)


def _slerp(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    low = low / low.norm(dim=-1, keepdim=True)
    high = high / high.norm(dim=-1, keepdim=True)
    high = torch.where((low * high).sum(-1, keepdim=True) < 0, -high, high)
    # From half chords: the arc cosine has no digits left for small angles.
    angle = 2 * torch.atan2((high - low).norm(dim=-1, keepdim=True), (high + low).norm(dim=-1, keepdim=True))
    is_same = angle < _SAME_ANGLE
    sine = torch.where(is_same, 1.0, torch.sin(angle))
    share_low = torch.where(is_same, 1 - weight, torch.sin((1 - weight) * angle) / sine)
    share_high = torch.where(is_same, weight, torch.sin(weight * angle) / sine)
    mixed = share_low * low + share_high * high
    length: Tensor = mixed.norm(dim=-1, keepdim=True)
    return mixed / length
