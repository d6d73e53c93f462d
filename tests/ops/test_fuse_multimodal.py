"""A fuse is its streams, each resampled, side by side: on every backend, with every mixture."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import robocache as rc
from robocache.ops.fuse_multimodal.cases import EDGE_CASES
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

POLICY_MIXTURES = (
    (Linear(), Slerp(), Previous()),
    (Angle(max_gap=0.05), Nearest(outside="nan"), Linear(outside="extrapolate")),
    (Slerp(outside="nan", max_gap=0.02), Linear(max_gap=0.0), Angle(outside="nan", period=1.5)),
)


def streams(*, dtype=torch.float32, times_dtype=torch.float64, sizes=((5, 3), (17, 8), (40, 4)), batch=3):
    """Data, times and targets of several sensors at their own rates over the same second."""
    generator = torch.Generator().manual_seed(7)
    data, times = [], []
    for source, dim in sizes:
        data.append(torch.randn(batch, source, dim, generator=generator).to(dtype))
        clock = torch.rand(batch, source, generator=generator, dtype=torch.float64).sort(1).values
        times.append(in_dtype(clock, times_dtype))
    targets = torch.rand(batch, 13, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    return data, times, in_dtype(targets, times_dtype)


def in_dtype(seconds, dtype):
    """Seconds, or nanoseconds at today's epoch."""
    if dtype == torch.int64:
        return (seconds * 1e9).to(torch.int64) + 1_700_000_000_000_000_000
    return seconds.to(dtype)


def side_by_side(backend, data, times, targets, policies, lengths):
    parts = [
        backend.resample(one, stamps, targets, policy, length)
        for one, stamps, policy, length in zip(data, times, policies, lengths, strict=True)
    ]
    return torch.cat([part for part, _ in parts], -1), torch.stack([valid for _, valid in parts], -1)


@pytest.mark.parametrize("policies", POLICY_MIXTURES, ids=lambda p: "-".join(type(one).__name__ for one in p))
@pytest.mark.parametrize("times_dtype", [torch.float32, torch.float64], ids=str)
def test_each_stream_has_its_own_policy(backend, policies, times_dtype, assert_same_bits):
    shapes = ((5, 4), (17, 8), (40, 4))
    data, times, targets = streams(times_dtype=times_dtype, sizes=shapes)
    fused, valid = backend.fuse(data, times, targets, list(policies))
    expected, expected_valid = side_by_side(backend, data, times, targets, policies, [None] * 3)
    assert_same_bits(fused, expected)
    assert torch.equal(valid, expected_valid)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("times_dtype", [torch.float32, torch.float64, torch.int64], ids=str)
def test_every_dtype_is_the_references(fast_backend, reference, dtype, times_dtype, assert_one_rounding):
    data, times, targets = streams(dtype=dtype, times_dtype=times_dtype)
    fused, valid = fast_backend.fuse(data, times, targets)
    exact, expected_valid = reference.fuse([one.double() for one in data], times, targets)
    assert fused.dtype == dtype
    assert_one_rounding(fused, exact, max(one.abs().max().item() for one in data))
    assert torch.equal(valid, expected_valid)


def test_each_stream_has_its_own_lengths(backend, assert_same_bits):
    data, times, targets = streams()
    lengths = [torch.tensor([5, 0, 2]), None, torch.tensor([1, 40, 39])]
    fused, valid = backend.fuse(data, times, targets, None, lengths)
    expected, expected_valid = side_by_side(backend, data, times, targets, [Linear()] * 3, lengths)
    assert_same_bits(fused, expected)
    assert torch.equal(valid, expected_valid)
    assert fused[1, :, :3].isnan().all()
    assert not fused[1, :, 3:].isnan().any()


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_any_number_of_streams(backend, count, assert_same_bits):
    sizes = list(itertools.islice(itertools.cycle([(3, 1), (30, 5), (11, 2)]), count))
    data, times, targets = streams(sizes=sizes, times_dtype=torch.int64)
    fused, valid = backend.fuse(data, times, targets)
    expected, expected_valid = side_by_side(backend, data, times, targets, [Linear()] * count, [None] * count)
    assert fused.shape == (3, 13, sum(dim for _, dim in sizes))
    assert valid.shape == (3, 13, count)
    assert_same_bits(fused, expected)
    assert torch.equal(valid, expected_valid)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_integers_with_hold_policies(backend, dtype):
    data, times, targets = streams()
    data = [(one * 50).abs().to(dtype) for one in data]
    policies = [Previous(), Nearest(max_gap=0.01), Previous(max_gap=0.1)]
    fused, valid = backend.fuse(data, times, targets, policies)
    expected, expected_valid = side_by_side(backend, data, times, targets, policies, [None] * 3)
    assert torch.equal(fused, expected)
    assert torch.equal(valid, expected_valid)


def test_nan_targets_and_padding(backend):
    data, times, targets = streams()
    times[1][:, 9:] = math.inf
    targets[0, 3] = math.nan
    fused, valid = backend.fuse(data, times, targets)
    expected, expected_valid = side_by_side(backend, data, times, targets, [Linear()] * 3, [None] * 3)
    torch.testing.assert_close(fused, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(valid, expected_valid)
    assert fused[0, 3].isnan().all()
    assert not valid[0, 3].any()
    assert fused.isnan().sum() == fused.shape[2]


def test_strided_streams(backend, assert_same_bits):
    data, times, targets = streams(sizes=((10, 6), (34, 16), (80, 8)))
    sliced = [one[:, ::2, 1:-1] for one in data]
    stamps = [one[:, ::2] for one in times]
    wide = [sliced[0], sliced[1][:1].expand(3, -1, -1), sliced[2]]
    fused, valid = backend.fuse(wide, stamps, targets[:, ::3])
    expected, expected_valid = backend.fuse(
        [one.contiguous() for one in wide], [one.contiguous() for one in stamps], targets[:, ::3].contiguous()
    )
    assert_same_bits(fused, expected)
    assert torch.equal(valid, expected_valid)


@pytest.mark.parametrize(
    ("batch", "targets", "dims"), [(0, 13, (3, 8, 4)), (3, 0, (3, 8, 4)), (3, 13, (0, 0, 0)), (3, 13, (3, 0, 4))]
)
def test_empty_results_have_the_right_shape(backend, batch, targets, dims):
    """Row *B=0, T=0, D=0*."""
    data, times, wanted = streams(sizes=[(5, dim) for dim in dims], batch=3)
    fused, valid = backend.fuse([one[:batch] for one in data], [one[:batch] for one in times], wanted[:batch, :targets])
    assert fused.shape == (batch, targets, sum(dims))
    assert valid.shape == (batch, targets, 3)
    if batch and targets:
        expected = (wanted[..., None] >= torch.stack([t[:, 0] for t in times], -1)[:, None]) & (
            wanted[..., None] <= torch.stack([t[:, -1] for t in times], -1)[:, None]
        )
        assert torch.equal(valid, expected)


@pytest.mark.parametrize("case", EDGE_CASES, ids=str)
def test_promised_shapes(fast_backend, reference, case, assert_one_rounding):
    data, times, targets = case.inputs("cpu")
    fused, valid = fast_backend.fuse(data, times, targets)
    exact, expected_valid = reference.fuse([one.double() for one in data], times, targets)
    assert_one_rounding(fused, exact, 6.0)
    assert torch.equal(valid, expected_valid)


class TestPublicCalls:
    """`fuse_multimodal` and `fuse_streams` are one operation with two signatures."""

    def test_three_streams_by_position(self, kernel_device, assert_same_bits):
        data, times, targets = streams()
        data, times = [one.to(kernel_device) for one in data], [one.to(kernel_device) for one in times]
        targets, policies = targets.to(kernel_device), [Linear(), Previous(max_gap=0.01), Nearest()]
        lengths = [None, torch.tensor([17, 3, 0], device=kernel_device), None]
        pairs = itertools.chain(*zip(data, times, strict=True))
        fused, valid = rc.fuse_multimodal(*pairs, targets, policies=policies, lengths=lengths, return_valid=True)
        named = {
            name: rc.Stream(one, stamps, policy, length)
            for name, one, stamps, policy, length in zip("abc", data, times, policies, lengths, strict=True)
        }
        other = rc.fuse_streams(named, targets)
        assert_same_bits(fused, other.data)
        assert torch.equal(valid, other.valid)
        alone = rc.fuse_multimodal(*itertools.chain(*zip(data, times, strict=True)), targets, policies=policies)
        assert alone.shape == fused.shape

    def test_slices_name_the_columns(self):
        data, times, targets = streams()
        fused = rc.fuse_streams(
            {"wrist": rc.Stream(data[0], times[0]), "arm": rc.Stream(data[1], times[1], Previous())}, targets
        )
        assert fused.slices == {"wrist": slice(0, 3), "arm": slice(3, 11)}
        assert torch.equal(fused["arm"], rc.resample_trajectories(data[1], times[1], targets, policy=Previous()))
        assert fused["arm"].untyped_storage().data_ptr() == fused.data.untyped_storage().data_ptr()

    def test_without_valid_it_is_the_tensor_alone(self):
        data, times, targets = streams()
        pairs = list(itertools.chain(*zip(data, times, strict=True)))
        alone = rc.fuse_multimodal(*pairs, targets)
        both = rc.fuse_multimodal(*pairs, targets, return_valid=True)
        assert isinstance(alone, torch.Tensor)
        assert torch.equal(alone, both[0])

    def test_durations_are_strings_where_times_are_nanoseconds(self):
        data, times, targets = streams(times_dtype=torch.int64)
        as_text = rc.fuse_streams({"a": rc.Stream(data[2], times[2], Linear(max_gap="20ms"))}, targets)
        as_number = rc.fuse_streams({"a": rc.Stream(data[2], times[2], Linear(max_gap=20_000_000))}, targets)
        assert torch.equal(as_text.valid, as_number.valid)
        assert 0 < as_text.valid.sum() < as_text.valid.numel()
