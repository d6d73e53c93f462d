"""Shapes of a resample: those promised, the empty ones, and the sizes around which a search or a block ends."""

from __future__ import annotations

import pytest
import torch

from robocache.ops.resample_trajectories.cases import EDGE_CASES
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

POLICIES = (Linear(), Nearest(), Previous(), Slerp(), Angle())
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)


@pytest.mark.parametrize("case", EDGE_CASES, ids=str)
def test_promised_shapes(fast_backend, reference, case, assert_one_rounding):
    data, times, targets = case.inputs("cpu")
    actual, valid = fast_backend.resample(data, times, targets)
    exact, expected_valid = reference.resample(data.double(), times, targets)
    assert actual.dtype == case.dtype
    assert_one_rounding(actual, exact, 6.0)
    assert torch.equal(valid, expected_valid)


@by_policy
@pytest.mark.parametrize(
    ("batch", "target", "dim"), [(0, 5, 4), (2, 0, 4), (2, 5, 0), (0, 0, 0)], ids=["B", "T", "D", "all"]
)
def test_empty_results_have_the_right_shape(backend, policy, batch, target, dim):
    """Row *B=0, T=0, D=0*: no launch, but still the mask where there are targets."""
    times = torch.arange(3.0).expand(batch, 3)
    targets = torch.linspace(-1, 3, target).expand(batch, target)
    data, valid = backend.resample(torch.zeros(batch, 3, dim), times, targets, policy)
    assert data.shape == (batch, target, dim)
    assert torch.equal(valid, (targets >= 0) & (targets <= 2))


@pytest.mark.parametrize("source", [1, 2, 31, 32, 33, 64, 1023, 1024, 1025, 1057])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
def test_every_sample_is_found(fast_backend, source, dtype):
    """On each stamp, and between each two: a search that stops a step early misses some."""
    times = (torch.arange(source) * 2).to(dtype)[None]
    targets = torch.arange(-1, 2 * source, max(1, source // 64), dtype=torch.int64)[None]
    numbered = torch.arange(source, dtype=torch.int32)[None, :, None]
    found, valid = fast_backend.resample(numbered, times, targets.to(dtype), Previous())
    assert torch.equal(found[0, :, 0], (targets[0] // 2).clamp(min=0).int())
    assert torch.equal(valid, (targets >= 0) & (targets <= 2 * (source - 1)))


@pytest.mark.parametrize("runs", [(1, 200), (40, 40), (200, 1), (1, 1, 1056, 1, 1), (33, 1, 31)], ids=str)
def test_long_runs_of_equal_stamps(fast_backend, runs):
    """Row *duplicate stamps*, over more of them than a search compares at once."""
    times = torch.cat([torch.full((run,), 10 * k) for k, run in enumerate(runs)])[None]
    last = torch.tensor(runs).cumsum(0) - 1
    data = torch.full((1, times.shape[1], 1), torch.nan)
    data[0, last, 0] = torch.arange(len(runs)) * 10.0
    targets = torch.arange(-5, 10 * len(runs), max(1, len(runs) // 6))[None]
    found, _ = fast_backend.resample(data, times, targets)
    assert torch.equal(found[0, :, 0], targets[0].clamp(0, 10 * (len(runs) - 1)).float())


@pytest.mark.parametrize("target", [1, 17, 64, 65, 130])
@pytest.mark.parametrize("dim", [1, 4, 33, 513])
def test_ends_of_blocks(fast_backend, reference, target, dim):
    """A last block that is skipped, or written past the end."""
    generator = torch.Generator().manual_seed(target * 1000 + dim)
    data = torch.randn(2, 5, dim, generator=generator)
    times = torch.arange(5.0).expand(2, 5)
    targets = torch.rand(2, target, generator=generator) * 5 - 0.5
    actual, expected = (judged.resample(data, times, targets) for judged in (fast_backend, reference))
    torch.testing.assert_close(actual, expected)
