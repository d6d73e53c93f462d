"""Backends against the reference on inputs nobody thought of: clocks with duplicates, gaps, NaN and padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EPOCH_NS = 1_700_000_000_000_000_000
checked_on = hypothesis.settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


@dataclass
class Clock:
    """How a drawn integer becomes a stamp."""

    dtype: torch.dtype
    scale: float
    offset: float

    def __call__(self, ticks):
        if self.dtype == torch.int64:
            return torch.tensor(ticks, dtype=torch.int64) * int(self.scale) + int(self.offset)
        ticks = torch.tensor(ticks, dtype=torch.float64)
        return (ticks * self.scale + torch.where(ticks.isfinite(), self.offset, 0.0)).to(self.dtype)


CLOCKS = (
    Clock(torch.float32, 0.125, 0.0),
    Clock(torch.float32, 0.1, 3.7),  # stamps that are rounded, gaps that are not alike
    Clock(torch.float32, 64.0, 1.7e9),  # below float32's step at the epoch: many become duplicates
    Clock(torch.float64, 0.001, 1.7e9),
    Clock(torch.float64, 2.0**-20, 0.0),
    Clock(torch.int64, 1, EPOCH_NS),
    Clock(torch.int64, 33_333_333, EPOCH_NS),
)


@st.composite
def policies(draw):
    kind = draw(st.sampled_from((Linear, Nearest, Previous, Slerp, Angle)))
    outside = draw(st.sampled_from(("clamp", "nan", *(() if kind in (Nearest, Previous) else ("extrapolate",)))))
    return kind, outside, draw(st.sampled_from((None, 0, 1, 2, 3, 7)))


@st.composite
def problems(draw):
    """`(data, times, targets, policy, lengths)` of a small ragged batch."""
    clock = draw(st.sampled_from(CLOCKS))
    batch, source, target = draw(st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9)))
    ticks = [sorted(draw(st.lists(st.integers(-9, 9), min_size=source, max_size=source))) for _ in range(batch)]
    wanted = st.integers(-24, 24).map(lambda k: k / 2)
    if clock.dtype == torch.int64:
        wanted = st.integers(-12, 12)
    else:
        wanted |= st.just(math.nan)
    targets = draw(st.lists(st.lists(wanted, min_size=target, max_size=target), min_size=batch, max_size=batch))
    times = clock(ticks)
    lengths = draw(st.none() | st.lists(st.integers(0, source), min_size=batch, max_size=batch).map(torch.tensor))
    if clock.dtype != torch.int64 and draw(st.booleans()):
        pads = torch.tensor(draw(st.lists(st.integers(0, source), min_size=batch, max_size=batch)))
        times[torch.arange(source) >= source - pads[:, None]] = math.inf
    kind, outside, gap = draw(policies())
    max_gap = None if gap is None else gap * clock.scale
    dim = draw(st.sampled_from((4, 8) if kind is Slerp else (1, 3, 5)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    data = torch.randn(batch, source, dim, generator=random, dtype=torch.float64)
    if kind is Angle:
        data = data.clamp(-0.7, 0.7)  # two of them are never half a turn apart, where either way is the short one
    elif kind is Slerp:
        spread = draw(st.sampled_from((0.2, 0.03, 0.003, 1e-6)))  # a turn of some degrees, or hardly any
        data = data * spread + torch.tensor([0.9, 0.5, 0.3, 0.1]).repeat(dim // 4)  # none orthogonal
    elif draw(st.booleans()):
        data[torch.rand(data.shape, generator=random) < 0.15] = math.nan
    return (
        data.to(draw(st.sampled_from(FLOATS))),
        clock(targets),
        times,
        kind(max_gap=max_gap, outside=outside),
        lengths,
    )


def difference(actual, exact, policy):
    """`actual` moved by whole turns to where `exact` is: at half a turn, both ends are the same angle."""
    if not isinstance(policy, Angle):
        return actual
    turns = ((actual.double() - exact) / policy.period).round().nan_to_num(0.0)
    return torch.where(turns == 0, actual.double(), actual.double() - turns * policy.period).to(actual.dtype)


@checked_on
@hypothesis.given(problem=problems())
def test_values_and_masks_are_the_references(fast_backend, reference, assert_one_rounding, problem):
    data, targets, times, policy, lengths = problem
    actual, valid = fast_backend.resample(data, times, targets, policy, lengths)
    exact, expected_valid = reference.resample(data.double(), times, targets, policy, lengths)
    assert torch.equal(valid, expected_valid)
    assert actual.dtype == data.dtype
    # Extrapolated far from a short edge segment, the value is many times what went in.
    reach = exact.nan_to_num(0.0).abs().max().item() if exact.numel() else 0.0
    scale = max(data.nan_to_num(0.0).abs().max().item(), reach, 1.0)
    operations = 8
    if policy.outside == "extrapolate" and isinstance(policy, (Angle, Slerp)):
        operations, scale = 64, max(scale, 100.0)  # the weight itself is in the tens, and errors with it
    elif isinstance(policy, Slerp):
        operations, scale = 24, 1.0
    elif isinstance(policy, Angle):
        scale = 2 * math.pi
    assert_one_rounding(difference(actual, exact, policy), exact, scale, operations)


@checked_on
@hypothesis.given(problem=problems(), dtype=st.sampled_from((torch.int32, torch.int64, torch.uint8, torch.bool)))
def test_integers_are_the_references_to_the_bit(fast_backend, reference, problem, dtype):
    data, targets, times, policy, lengths = problem
    policy = (Nearest if policy.max_gap else Previous)(max_gap=policy.max_gap)
    data = (data.nan_to_num(0.0) * 7).round().abs().to(dtype)
    actual = fast_backend.resample(data, times, targets, policy, lengths)
    expected = reference.resample(data, times, targets, policy, lengths)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@checked_on
@hypothesis.given(problem=problems())
def test_indices_are_the_references_to_the_bit(fast_backend, reference, problem):
    """With hold policies the value tells which sample was used: number the samples."""
    _, targets, times, policy, lengths = problem
    batch, source = times.shape
    numbered = torch.arange(batch * source, dtype=torch.float32).reshape(batch, source, 1)
    for hold in (Nearest(max_gap=policy.max_gap), Previous(outside="nan", max_gap=policy.max_gap)):
        actual = fast_backend.resample(numbered, times, targets, hold, lengths)
        expected = reference.resample(numbered, times, targets, hold, lengths)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
