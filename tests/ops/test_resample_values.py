"""Policies, dtypes, ragged batches and strides of a resample, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
INF = math.inf


def random_stream(batch, source, dim, *, seed=0, dtype=torch.float64):
    """Data [B,S,D] and ascending irregular times [B,S] at today's epoch in seconds."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(batch, source, dim, generator=generator, dtype=torch.float64).to(dtype)
    steps = torch.rand(batch, source, generator=generator, dtype=torch.float64) + 0.05
    return data, 1_700_000_000 + steps.cumsum(1)


def random_targets(times, count, *, seed=1):
    """[B,T], some of them outside."""
    generator = torch.Generator().manual_seed(seed)
    first, last = times[:, :1] - 0.5, times[:, -1:] + 0.5
    return first + (last - first) * torch.rand(len(times), count, generator=generator, dtype=torch.float64)


class TestPolicies:
    """Row *policies*."""

    def test_nearest_takes_the_earlier_of_two_equally_close(self, backend):
        times, targets = torch.tensor([[0, 2, 4]]), torch.tensor([[1, 3, 2]])
        data, _ = backend.resample(torch.tensor([[[1.0], [2.0], [3.0]]]), times, targets, Nearest())
        assert data.flatten().tolist() == [1, 2, 2]

    def test_nearest_at_int64_epoch_sees_one_nanosecond(self, backend):
        """The middle of two stamps 10 ns apart, and one nanosecond beyond it."""
        epoch = 1_700_000_000_000_000_000
        times, targets = torch.tensor([[epoch, epoch + 10]]), torch.tensor([[epoch + 5, epoch + 6]])
        data, _ = backend.resample(torch.tensor([[[1.0], [2.0]]]), times, targets, Nearest())
        assert data.flatten().tolist() == [1, 2]

    def test_previous_is_causal(self, backend):
        """A change of any later sample changes nothing before it."""
        data, times = random_stream(1, 12, 3)
        targets = times[:, :6] + 0.01
        before, _ = backend.resample(data, times, targets, Previous())
        data[:, 6:] = 1e9
        after, _ = backend.resample(data, times, targets, Previous())
        assert torch.equal(before, after)

    @pytest.mark.parametrize("order", ["xyzw", "wxyz"])
    def test_slerp_does_not_care_about_signs(self, backend, order):
        """q and -q are one rotation: flips of the inputs may flip results, and nothing else."""
        data, times = random_stream(2, 20, 8, dtype=torch.float32)
        targets = random_targets(times, 40)
        flips = torch.randint(0, 2, (2, 20, 2, 1), generator=torch.Generator().manual_seed(5)) * 2 - 1
        flipped = (data.unflatten(-1, (2, 4)) * flips).flatten(2)
        plain, _ = backend.resample(data, times, targets, Slerp(order=order))
        other, _ = backend.resample(flipped, times, targets, Slerp(order=order))
        dots = (plain.unflatten(-1, (2, 4)) * other.unflatten(-1, (2, 4))).sum(-1).abs()
        norms = plain.unflatten(-1, (2, 4)).norm(dim=-1) * other.unflatten(-1, (2, 4)).norm(dim=-1)
        torch.testing.assert_close(dots, norms, rtol=1e-5, atol=0)

    def test_slerp_between_stamps_is_of_unit_length(self, backend):
        data, times = random_stream(1, 8, 4, dtype=torch.float32)
        middle = (times[:, 1:] + times[:, :-1]) / 2
        result, _ = backend.resample(data * 37, times, middle, Slerp())
        torch.testing.assert_close(result.norm(dim=-1), torch.ones(1, 7))

    def test_slerp_of_equal_and_nearly_equal_rotations(self, backend):
        """sin(0) / sin(0) must not show, and acos near 1 must not cost digits."""
        half = torch.tensor([0.3, 0.3, 0.3 + 1e-4, 0.3 + 1e-4 + 1e-3], dtype=torch.float64)
        data = torch.stack([half.sin(), half * 0, half * 0, half.cos()], -1)[None].float()
        targets = torch.tensor([[0.5, 1.5, 2.5]], dtype=torch.float64)
        result, _ = backend.resample(data, torch.arange(4.0, dtype=torch.float64)[None], targets, Slerp())
        angle = torch.atan2(result[0, :, 0].double(), result[0, :, 3].double())
        torch.testing.assert_close(angle, (half[1:] + half[:-1]) / 2, rtol=0, atol=3e-7)

    @pytest.mark.parametrize("degrees", [1e-6, 0.01, 1.0, 3.5, 4.0, 30.0, 179.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_slerp_turns_at_an_even_rate(self, backend, dtype, degrees, assert_one_rounding):
        """A chord instead of an arc, or an arc cosine near 1, costs digits at a few degrees."""
        half = torch.tensor([0.3, 0.3 + math.radians(degrees) / 2], dtype=torch.float64)
        weights = torch.linspace(0, 1, 9, dtype=torch.float64)
        data = torch.stack([half.sin(), half * 0, half * 0, half.cos()], -1)[None]
        result, _ = backend.resample(data.to(dtype), torch.tensor([[0.0, 1.0]]).double(), weights[None], Slerp())
        wanted = half[0] + weights * (half[1] - half[0])
        exact = torch.stack([wanted.sin(), wanted * 0, wanted * 0, wanted.cos()], -1)[None]
        assert_one_rounding(result, exact, 1.0, operations=10)

    def test_angle_goes_the_short_way(self, backend):
        data = torch.tensor([[[3.0], [-3.0], [3.0]]])
        targets = torch.tensor([[0.25, 0.75, 1.5]])
        result, _ = backend.resample(data, torch.tensor([[0.0, 1.0, 2.0]]), targets, Angle())
        step = 2 * math.pi - 6
        expected = [3 + step / 4, 3 + 0.75 * step - 2 * math.pi, math.pi]
        np.testing.assert_allclose([*result[0, :2, 0], abs(result[0, 2, 0])], expected, atol=1e-6)

    def test_angle_results_lie_in_the_half_open_turn(self, backend):
        data, times = random_stream(2, 30, 2)
        targets = random_targets(times, 90)
        result, valid = backend.resample(data * 1000, times, targets, Angle(period=360.0, outside="nan"))
        inside = result[valid]
        assert bool(((inside >= -180) & (inside < 180)).all())

    def test_angle_of_another_period(self, backend):
        data, targets = torch.tensor([[[170.0], [-170.0]]]), torch.tensor([[0.25, 0.5, 0.75]])
        result, _ = backend.resample(data, torch.tensor([[0.0, 1.0]]), targets, Angle(period=360))
        np.testing.assert_allclose(result.flatten(), [175, -180, -175], atol=1e-4)

    @pytest.mark.parametrize("policy", [Previous(), Nearest()], ids=lambda p: type(p).__name__)
    @pytest.mark.parametrize("dtype", OTHERS, ids=str)
    def test_integers_and_bools_are_copied(self, backend, dtype, policy):
        high = 1 if dtype == torch.bool else torch.iinfo(dtype).max
        low = 0 if dtype == torch.bool else torch.iinfo(dtype).min
        data = torch.tensor([low, high, high, low]).to(dtype)[None, :, None].repeat(1, 1, 3)
        targets = torch.tensor([[0.1, 1.2, 3.0, 9.0]])
        result, _ = backend.resample(data, torch.tensor([[0.0, 1.0, 2.0, 3.0]]), targets, policy)
        assert torch.equal(result, data[:, [0, 1, 3, 3]])


class TestDtypes:
    """Row *dtypes*: out is in; arithmetic in float32 (float64 for float64); one rounding at the end."""

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("outside", ["clamp", "extrapolate"])
    def test_linear_is_rounded_once(self, backend, reference, dtype, outside, assert_one_rounding):
        data, times = random_stream(3, 17, 5, dtype=dtype)
        targets, policy = random_targets(times, 33), Linear(outside=outside)
        actual, _ = backend.resample(data, times, targets, policy)
        exact, _ = reference.resample(data.double(), times, targets, policy)
        assert actual.dtype == dtype
        scale = data.abs().max().item() * (20 if outside == "extrapolate" else 1)
        assert_one_rounding(actual, exact, scale)

    def test_an_intermediate_rounding_would_show(self, backend):
        """257, 259 and 261 in float32; a weight or a product rounded to bfloat16 first gives other neighbours."""
        data = torch.tensor([[[256.0], [262.0]]], dtype=torch.bfloat16)
        targets = torch.tensor([[1 / 6, 0.5, 5 / 6]])
        result, _ = backend.resample(data, torch.tensor([[0.0, 1.0]]), targets)
        assert result.flatten().tolist() == [256, 260, 260]

    def test_float16_does_not_overflow_on_the_way(self, backend):
        data = torch.tensor([[[-60000.0], [60000.0]]], dtype=torch.float16)
        result, _ = backend.resample(data, torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.5, 0.75]]))
        assert result.flatten().tolist() == [-30000, 0, 30000]

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_slerp_and_angle_keep_the_dtype(self, backend, dtype):
        data, times = random_stream(2, 5, 4, dtype=dtype)
        for policy in (Slerp(), Angle(), Nearest(), Previous()):
            assert backend.resample(data, times, random_targets(times, 7), policy)[0].dtype == dtype


class TestRagged:
    """Row *ragged batch*: `lengths`, or times padded with +inf."""

    policies = pytest.mark.parametrize(
        "policy",
        [Linear(), Linear(outside="extrapolate"), Nearest(), Previous(), Slerp(), Angle(), Linear(outside="nan")],
        ids=lambda p: f"{type(p).__name__}-{p.outside}",
    )

    @staticmethod
    def batch():
        data, times = random_stream(5, 9, 4, dtype=torch.float32)
        lengths = torch.tensor([9, 4, 1, 2, 0])
        beyond = torch.arange(9)[None] >= lengths[:, None]
        return data, times, random_targets(times, 21), lengths, beyond

    @policies
    def test_lengths_is_each_row_alone(self, backend, policy, assert_same_bits):
        data, times, targets, lengths, beyond = self.batch()
        data[beyond], times[beyond] = math.nan, -1.0  # whatever stands beyond the length is never used
        actual, valid = backend.resample(data, times, targets, policy, lengths)
        for row, length in enumerate(lengths[:4].tolist()):
            alone = slice(row, row + 1)
            expected = backend.resample(data[alone, :length], times[alone, :length], targets[alone], policy)
            if isinstance(policy, Slerp):  # PyTorch's arc tangent rounds otherwise in the last few lanes of a vector
                torch.testing.assert_close(actual[alone], expected[0], rtol=1e-6, atol=1e-6, equal_nan=True)
            else:
                assert_same_bits(actual[alone], expected[0])
            assert torch.equal(valid[alone], expected[1])
        assert actual[4].isnan().all()
        assert not valid[4].any()

    @policies
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_infinite_times_are_no_samples(self, backend, policy, dtype, assert_same_bits):
        data, times, targets, lengths, beyond = self.batch()
        times, targets = (times - 1_700_000_000).to(dtype), (targets - 1_700_000_000).to(dtype)
        padded = times.masked_fill(beyond, INF)
        actual, valid = backend.resample(data.masked_fill(beyond[..., None], math.nan), padded, targets, policy)
        expected = backend.resample(data, times, targets, policy, lengths)
        assert_same_bits(actual, expected[0])
        assert torch.equal(valid, expected[1])

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
    def test_lengths_of_both_integer_dtypes(self, backend, dtype):
        data, times, targets, lengths, _ = self.batch()
        expected = backend.resample(data, times, targets, lengths=lengths)
        actual = backend.resample(data, times, targets, lengths=lengths.to(dtype))
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)

    def test_lengths_that_are_a_view(self, backend):
        data, times, targets, lengths, _ = self.batch()
        table = torch.stack([lengths, lengths * 0 + 3], 1).to(backend.device)
        actual = backend.resample(data, times, targets, lengths=table[:, 0])
        expected = backend.resample(data, times, targets, lengths=lengths)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
        few = backend.resample(data, times, targets, lengths=table[0, 1].expand(5))
        assert torch.equal(few[1], backend.resample(data[:, :3], times[:, :3], targets)[1])


class LargestNewTensor(TorchDispatchMode):
    """Remembers the most elements of any floating tensor that an operation made (views make none)."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in (*args, *(kwargs or {}).values()) if isinstance(t, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in old:
                self.elements = max(self.elements, tensor.numel())
        return result


class TestStrides:
    """Row *strides*: expanded and sliced inputs are right, without a copy where the last axis is contiguous."""

    def views(self, device):
        wide, times = random_stream(3, 40, 12, dtype=torch.float32)
        wide, times = wide.to(device), times.to(device)
        yield "columns", wide[:, :, 2:9], times
        yield "every_second_sample", wide[:, ::2], times[:, ::2]
        yield "offset_rows", wide[1:, 5:], times[1:, 5:]
        yield "expanded_batch", wide[:1].expand(3, -1, -1), times[:1].expand(3, -1)
        yield "expanded_samples", wide[:, :1].expand(-1, 40, -1), times
        yield "batch_last_in_memory", wide.permute(1, 2, 0).contiguous().permute(2, 0, 1), times
        yield "dim_not_last_in_memory", wide.transpose(1, 2).contiguous().transpose(1, 2), times
        yield "every_second_column", wide[:, :, ::2], times

    @pytest.mark.parametrize("policy", [Linear(), Previous()], ids=lambda p: type(p).__name__)
    def test_views_give_what_their_copies_give(self, backend, policy, assert_same_bits):
        for _, data, times in self.views(backend.device):
            assert not (data.is_contiguous() and times.is_contiguous())
            targets = random_targets(times.cpu(), 8).to(backend.device)
            for wanted in (targets, targets[:, ::2], targets[:1].expand(3, -1)[: len(data)]):
                actual = backend.resample(data, times, wanted, policy)
                expected = backend.resample(data.contiguous(), times.contiguous(), wanted.contiguous(), policy)
                assert_same_bits(actual[0], expected[0])
                assert torch.equal(actual[1], expected[1])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.uint8], ids=str)
    def test_views_that_start_anywhere_in_memory(self, backend, dtype, assert_same_bits):
        """Wide accesses need aligned rows; a kernel compiled for those must not be used for the others."""
        wide, clock = random_stream(2, 20, 32, dtype=torch.float32)
        wide, clock = (wide * 50).abs().to(dtype).to(backend.device), clock.to(backend.device)
        wanted = random_targets(clock.cpu(), 14).to(backend.device)
        for start in (0, 1, 8, 2, 0):
            view, times = wide[:, start : start + 11, start : start + 16], clock[:, start : start + 11]
            targets = wanted[:, start:]
            actual, _ = backend.resample(view, times, targets, Previous())
            assert_same_bits(actual, backend.resample(view.clone(), times.clone(), targets.clone(), Previous())[0])
            fused, _ = backend.fuse([view, view], [times, times], targets, [Previous(), Nearest()])
            assert_same_bits(fused[:, :, :16], actual)

    @pytest.mark.parametrize("policy", [Linear(), Previous()], ids=lambda p: type(p).__name__)
    def test_no_hidden_copy(self, fast_backend, policy):
        """A recording of 400 samples, wanted at two times: nothing as large as the source is made."""
        source = torch.randn(2, 400, 24, device=fast_backend.device)
        times = torch.arange(800.0, device=fast_backend.device).reshape(2, 400)
        for data in (source[:, :, 4:20], source[:1, :, 4:20].expand(2, -1, -1), source[:, ::2].repeat(1, 1, 1)):
            with LargestNewTensor() as largest:
                fast_backend.resample(data, times[:, : data.shape[1]], times[:, :2] + 0.5, policy)
            assert 0 < largest.elements < data.numel() / 2
