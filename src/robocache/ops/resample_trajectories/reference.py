"""The definition of `resample_trajectories`: one row at a time, in float64.

Judged by numpy.interp, scipy's Slerp and pandas.merge_asof in the tests; every backend is judged by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.ops.limits import gap_limit
from robocache.policies import Angle, Linear, Nearest, Policy, Previous, Slerp


def resample_trajectories(
    data: Tensor, times: Tensor, targets: Tensor, policy: Policy, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B,S,D], [B,S], [B,T] -> data [B,T,D] in the dtype of `data`, valid [B,T]."""
    batch, source, dim = data.shape
    out = data.new_zeros(batch, targets.shape[1], dim)
    valid = torch.zeros(targets.shape, dtype=torch.bool, device=data.device)
    for row in range(batch):
        length = source if lengths is None else min(max(int(lengths[row]), 0), source)
        row_out, row_valid = _resample_row(data[row, :length], times[row, :length], targets[row], policy)
        out[row] = row_out.to(data.dtype)
        valid[row] = row_valid
    return out, valid


def _resample_row(data: Tensor, times: Tensor, targets: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    counts = _last_of_equal_stamps(times)
    if times.is_floating_point():
        counts &= times < torch.inf  # +inf is padding
    data, times = data[counts], times[counts]
    values = data.double() if data.is_floating_point() else data
    fill = torch.nan if data.is_floating_point() else 0
    out = values.new_full((len(targets), data.shape[1]), fill)
    valid = torch.zeros(len(targets), dtype=torch.bool, device=data.device)
    if len(times) == 0:
        return out, valid
    limit = gap_limit(policy, times.dtype)
    for index, target in enumerate(targets):
        if torch.isnan(target):
            continue
        is_outside = bool(target < times[0]) or bool(target > times[-1])
        value, gap = _value_at(values, times, target, policy)
        is_valid = not is_outside and (limit is None or bool(gap <= limit))
        valid[index] = is_valid
        if is_valid or policy.outside != "nan":
            out[index] = value
    return out, valid


def _last_of_equal_stamps(times: Tensor) -> Tensor:
    is_last = torch.ones(len(times), dtype=torch.bool, device=times.device)
    is_last[:-1] = times[1:] != times[:-1]
    return is_last


def _value_at(values: Tensor, times: Tensor, target: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """The value at one target, and the gap that `max_gap` limits; `times` has no equal stamps."""
    after = int((times <= target).sum())  # the first sample later than the target
    before, last = after - 1, len(times) - 1
    zero = torch.zeros_like(target)
    if before >= 0 and times[before] == target:
        return values[before], zero
    if before < 0 or after > last:
        edge = 0 if before < 0 else last
        if policy.outside != "extrapolate" or last == 0:
            return values[edge], zero
        before = 0 if before < 0 else last - 1
        after = before + 1
    if isinstance(policy, Previous):
        return values[before], target - times[before]
    if isinstance(policy, Nearest):
        since, until = target - times[before], times[after] - target
        return (values[before], since) if since <= until else (values[after], until)
    gap = times[after] - times[before]
    # Subtract in the times' own dtype first: at epoch seconds one float32 step is 128 s.
    weight = (target - times[before]).double() / gap.double()
    return _between(values[before], values[after], weight, policy), gap


def _between(low: Tensor, high: Tensor, weight: Tensor, policy: Policy) -> Tensor:
    if isinstance(policy, Slerp):
        return _slerp(low.reshape(-1, 4), high.reshape(-1, 4), weight).reshape(low.shape)
    if isinstance(policy, Angle):
        turned = low + weight * _wrapped(high - low, policy.period)
        return _wrapped(turned, policy.period)
    if not isinstance(policy, Linear):
        raise TypeError(f"no rule for {policy!r}")
    return low + weight * (high - low)


def _wrapped(angle: Tensor, period: float) -> Tensor:
    return angle - period * torch.floor(angle / period + 0.5)


def _slerp(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """Shoemake's formula on the shorter arc; the angle from its sine and cosine, so that small ones are exact too."""
    low = low / low.norm(dim=1, keepdim=True)
    high = high / high.norm(dim=1, keepdim=True)
    high = torch.where((low * high).sum(1, keepdim=True) < 0, -high, high)
    angle = 2 * torch.atan2((high - low).norm(dim=1, keepdim=True), (high + low).norm(dim=1, keepdim=True))
    is_same = angle < 1e-9
    sine = torch.where(is_same, 1.0, torch.sin(angle))
    share_low = torch.where(is_same, 1 - weight, torch.sin((1 - weight) * angle) / sine)
    share_high = torch.where(is_same, weight, torch.sin(weight * angle) / sine)
    return share_low * low + share_high * high
