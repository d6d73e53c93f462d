"""The semantics of a resample, row by row of the design's table, on every backend; expected values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

EPOCH_S = 1_700_000_000
EPOCH_NS = EPOCH_S * 1_000_000_000
NAN, INF = math.nan, math.inf
POLICIES = (Linear(), Previous(), Nearest(), Slerp(), Angle())


def column(*values, dtype=torch.float32):
    """[1, S, 1]."""
    return torch.tensor(values, dtype=dtype)[None, :, None]


def stamps(*values, dtype=torch.float64):
    """[1, S]."""
    return torch.tensor(values, dtype=dtype)[None]


def flat(result):
    data, valid = result
    return data.flatten().tolist(), valid.flatten().tolist()


class TestTimes:
    """Row *times*: float32, float64 or int64, searched and subtracted in that dtype."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
    def test_each_dtype(self, backend, dtype):
        data, valid = flat(
            backend.resample(column(0, 10, 20), stamps(0, 8, 16, dtype=dtype), stamps(2, 8, 12, 15, dtype=dtype))
        )
        assert data == [2.5, 10, 15, 18.75]
        assert valid == [True] * 4

    def test_epoch_seconds_in_float64_are_not_cast_to_float32(self, backend):
        """At epoch seconds one float32 step is 128 s: all these stamps would be one."""
        source = stamps(*(EPOCH_S + k / 64 for k in range(5)))
        data, valid = flat(backend.resample(column(0, 1, 2, 3, 4), source, source + 1 / 256))
        assert data == [0.25, 1.25, 2.25, 3.25, 4]
        assert valid == [True] * 4 + [False]

    def test_epoch_nanoseconds_in_int64_keep_every_nanosecond(self, backend):
        """float64 holds only every 256th nanosecond of today; the difference of two is exact."""
        source = stamps(EPOCH_NS + 1, EPOCH_NS + 9, EPOCH_NS + 17, dtype=torch.int64)
        targets = stamps(*(EPOCH_NS + k for k in (1, 2, 9, 12, 17)), dtype=torch.int64)
        data, valid = flat(backend.resample(column(0, 8, 16), source, targets))
        assert data == [0, 1, 8, 11, 16]
        assert valid == [True] * 5

    def test_epoch_seconds_in_float32_are_compared_as_they_are(self, backend):
        source = stamps(2.0**30, 2.0**30 + 128, 2.0**30 + 256, dtype=torch.float32)
        targets = stamps(2.0**30 + 128, 2.0**30, dtype=torch.float32)
        assert flat(backend.resample(column(1, 2, 3), source, targets)) == ([2, 1], [True, True])

    def test_negative_stamps(self, backend):
        targets = stamps(-7, -5, -4, dtype=torch.int64)
        result = backend.resample(column(0, 4, 8), stamps(-8, -4, 0, dtype=torch.int64), targets)
        assert flat(result) == ([1, 3, 4], [True] * 3)


class TestExactKnot:
    """Row *exact knot*: the sample itself, bit-exact, whatever stands beside it."""

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_every_sample_comes_back_to_the_bit(self, backend, policy, dtype, assert_same_bits):
        generator = torch.Generator().manual_seed(3)
        source = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64).to(dtype) * 100
        source[0, 3], source[1, 5] = -0.0, 5.9e-8  # a signed zero, and a subnormal of float16
        times = (torch.rand(2, 9, generator=generator, dtype=torch.float64) + 0.01).cumsum(1) + EPOCH_S
        data, valid = backend.resample(source, times, times, policy)
        assert_same_bits(data, source)
        assert valid.all()

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_a_neighbour_that_is_not_finite_does_not_leak(self, backend, policy, bad):
        source = torch.tensor([bad, 0.6, bad, 0.8]).repeat(4, 1).T[None]
        data, valid = backend.resample(source, stamps(0, 1, 2, 3), stamps(1, 3, 0, 4), policy)
        assert (
            data[0, :, 0].nan_to_num(7.0, 8.0, 9.0).tolist()
            == torch.tensor([0.6, 0.8, bad, 0.8]).nan_to_num(7.0, 8.0, 9.0).tolist()
        )
        assert valid.tolist() == [[True, True, True, False]]

    def test_no_epsilon_in_the_weight(self, backend, assert_one_rounding):
        """With stamps a few 1e-12 apart, an epsilon such as 1e-9 in the divisor would hold the first sample."""
        source = stamps(0, 2.0**-38, 2.0**-37)
        data, _ = backend.resample(column(0, 1, 2, dtype=torch.float64), source, source + 2.0**-40)
        assert_one_rounding(data, torch.tensor([0.25, 1.25, 2.0], dtype=torch.float64)[None, :, None], 2.0)


class TestOutside:
    """Row *outside the range*."""

    targets = stamps(-1, 0, 3, 4, 6)
    source = stamps(0, 1, 4)

    @pytest.mark.parametrize(
        ("outside", "first", "last"), [("clamp", 0.0, 9.0), ("nan", NAN, NAN), ("extrapolate", -3.0, 13.0)]
    )
    def test_linear(self, backend, outside, first, last):
        data, valid = flat(backend.resample(column(0, 3, 9), self.source, self.targets, Linear(outside=outside)))
        np.testing.assert_array_equal(data, [first, 0, 7, 9, last])
        assert valid == [False, True, True, True, False]

    @pytest.mark.parametrize(("outside", "first", "last"), [("clamp", 0.0, 9.0), ("nan", NAN, NAN)])
    @pytest.mark.parametrize(("policy", "inside"), [(Previous, 3.0), (Nearest, 9.0)])
    def test_hold(self, backend, policy, inside, outside, first, last):
        data, valid = flat(backend.resample(column(0, 3, 9), self.source, self.targets, policy(outside=outside)))
        np.testing.assert_array_equal(data, [first, 0, inside, 9, last])
        assert valid == [False, True, True, True, False]

    @pytest.mark.parametrize(("outside", "first", "last"), [("clamp", 0, 170), ("nan", NAN, NAN)])
    def test_angle(self, backend, outside, first, last):
        policy = Angle(outside=outside, period=360)
        data, _ = flat(backend.resample(column(0, 150, 170), self.source, stamps(-1, 5), policy))
        np.testing.assert_array_equal(data, [first, last])

    def test_angle_extrapolated_wraps(self, backend):
        policy = Angle(outside="extrapolate", period=360)
        data, valid = flat(backend.resample(column(-170, 170, 110), self.source, stamps(-2, 8), policy))
        np.testing.assert_allclose(data, [-130, 30], rtol=1e-6)  # at -20 a second, then from 110 at -20
        assert valid == [False, False]

    def test_slerp_extrapolates_at_the_edge_segments_rate(self, backend):
        about_x = torch.tensor([0.0, 0.5, 1.1], dtype=torch.float64)  # half angles
        source = torch.stack([about_x.sin(), about_x * 0, about_x * 0, about_x.cos()], -1)[None]
        data, valid = backend.resample(source, self.source, stamps(-1, 6), Slerp(outside="extrapolate"))
        expected = torch.tensor([-0.5, 1.5], dtype=torch.float64)
        torch.testing.assert_close(data[0, :, 0], expected.sin())
        torch.testing.assert_close(data[0, :, 3], expected.cos())
        assert not valid.any()

    def test_extrapolation_beside_duplicates_uses_the_last_two_different_stamps(self, backend):
        result = backend.resample(
            column(50, 0, 3, 90, 9), stamps(0, 0, 1, 2, 2), stamps(-1, 3), Linear(outside="extrapolate")
        )
        assert flat(result) == ([-3, 15], [False, False])

    def test_a_not_finite_inner_neighbour_does_not_leak_into_a_clamped_edge(self, backend):
        assert flat(backend.resample(column(1, NAN, INF, 4), stamps(0, 1, 2, 3), stamps(-1, 9)))[0] == [1, 4]


class TestMaxGap:
    """Row *max_gap*: inclusive, 0 means exact stamps only."""

    source = stamps(0, 1, 3, 7, dtype=torch.float64)

    @pytest.mark.parametrize("policy", [Linear, Angle])
    def test_linear_and_angle_measure_between_the_neighbours(self, backend, policy):
        data, valid = flat(
            backend.resample(column(0, 1, 3, 7), self.source, stamps(0.5, 2, 3, 4, 7), policy(max_gap=2))
        )
        np.testing.assert_allclose(data, [0.5, 2, 3, 4 if policy is Linear else 4 - math.pi / 2, 7], rtol=1e-6)
        assert valid == [True, True, True, False, True]

    def test_slerp_measures_between_the_neighbours(self, backend):
        source = torch.nn.functional.normalize(torch.arange(16.0).reshape(1, 4, 4) + 1, dim=-1)
        _, valid = backend.resample(source, self.source, stamps(2, 3, 4), Slerp(max_gap=2))
        assert valid.tolist() == [[True, True, False]]

    def test_previous_measures_to_the_sample_used(self, backend):
        result = backend.resample(column(0, 1, 3, 7), self.source, stamps(2.5, 5, 5.25, 7), Previous(max_gap=2))
        assert flat(result) == ([1, 3, 3, 7], [True, True, False, True])

    def test_nearest_measures_to_the_sample_used(self, backend):
        result = backend.resample(column(0, 1, 3, 7), self.source, stamps(4, 4.5, 5.5, 6), Nearest(max_gap=1))
        assert flat(result) == ([3, 3, 7, 7], [True, False, False, True])

    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_zero_accepts_exact_stamps_only(self, backend, policy):
        source = torch.nn.functional.normalize(torch.arange(16.0).reshape(1, 4, 4) + 1, dim=-1)
        _, valid = backend.resample(source, self.source, stamps(0, 0.25, 1, 6, 7, 8), type(policy)(max_gap=0))
        assert valid.tolist() == [[True, False, True, False, True, False]]

    def test_it_is_inclusive_in_the_times_own_dtype(self, backend):
        """float32(0.1) is more than 0.1, and yet a gap of 0.1 must be within a limit of 0.1."""
        times = stamps(0, 0.1, dtype=torch.float32)
        assert flat(backend.resample(column(0, 1), times, times / 2, Linear(max_gap=0.1)))[1] == [True, True]

    def test_outside_nan_blanks_gaps_too_and_clamp_only_marks_them(self, backend):
        data, valid = flat(
            backend.resample(column(0, 1, 3, 7), self.source, stamps(2, 4, 7), Linear(max_gap=2, outside="nan"))
        )
        np.testing.assert_array_equal(data, [2, NAN, 7])
        assert valid == [True, False, True]
        data, valid = flat(backend.resample(column(0, 1, 3, 7), self.source, stamps(2, 4, 7), Linear(max_gap=2)))
        assert data == [2, 4, 7]
        assert valid == [True, False, True]

    def test_nanoseconds(self, backend):
        times = stamps(EPOCH_NS, EPOCH_NS + 50_000_000, EPOCH_NS + 100_000_001, dtype=torch.int64)
        targets = times[:, :2] + 1
        assert flat(backend.resample(column(0, 1, 2), times, targets, Linear(max_gap=50_000_000)))[1] == [True, False]


class TestDuplicates:
    """Row *duplicate stamps*: the last one wins; a zero-width interval is never divided by."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
    def test_as_if_all_but_the_last_were_deleted(self, backend, dtype):
        data = column(99, 0, NAN, 88, 8, 16, 77, 24)
        times = stamps(0, 0, 8, 8, 8, 16, 24, 24, dtype=dtype)
        result = backend.resample(data, times, stamps(0, 4, 8, 12, 16, 20, 24, dtype=dtype))
        assert flat(result) == ([0, 4, 8, 12, 16, 20, 24], [True] * 7)

    def test_the_last_also_before_and_after_the_range(self, backend):
        assert flat(backend.resample(column(9, 1, 2, 9, 3), stamps(0, 0, 1, 2, 2), stamps(-1, 5)))[0] == [1, 3]

    @pytest.mark.parametrize("policy", [Previous(), Nearest()], ids=lambda p: type(p).__name__)
    def test_hold_policies(self, backend, policy):
        times, targets = stamps(0, 0, 4, 4), stamps(0, 1, 3.5, 4)
        data, _ = flat(backend.resample(column(9, 1, 9, 2), times, targets, policy))
        assert data == ([1, 1, 1, 2] if isinstance(policy, Previous) else [1, 1, 2, 2])

    def test_all_stamps_equal_is_one_sample(self, backend):
        result = backend.resample(column(9, 9, 5), stamps(2, 2, 2), stamps(1, 2, 3), Linear(outside="extrapolate"))
        assert flat(result) == ([5, 5, 5], [False, True, False])


class TestFewSamples:
    """Rows *one sample* and *S=0* (the error is in test_errors.py): empty results have the right shape."""

    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_one_sample_is_constant_and_valid_at_its_own_stamp(self, backend, policy):
        source = torch.tensor([0.5, -0.5, 0.5, 0.5])[None, None]
        data, valid = backend.resample(source, stamps(3), stamps(1, 3, 4), policy)
        assert data.tolist() == [[[0.5, -0.5, 0.5, 0.5]] * 3]
        assert valid.tolist() == [[False, True, False]]

    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_one_sample_out_of_range_is_blank_when_asked(self, backend, policy):
        source = torch.tensor([0.5, -0.5, 0.5, 0.5])[None, None]
        data, _ = backend.resample(source, stamps(3), stamps(1, 3), type(policy)(outside="nan"))
        assert data[0, 0].isnan().all()
        assert data[0, 1].tolist() == [0.5, -0.5, 0.5, 0.5]

    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_length_zero_is_filled_and_not_valid(self, backend, policy):
        data, valid = backend.resample(
            torch.ones(2, 3, 4), stamps(0, 1, 2).repeat(2, 1), stamps(0, 9).repeat(2, 1), policy, torch.tensor([0, 3])
        )
        assert data[0].isnan().all()
        assert data[1].eq(1).all()
        assert valid.tolist() == [[False, False], [True, False]]

    @pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool], ids=str)
    def test_length_zero_is_filled_with_zero_for_integers(self, backend, dtype):
        data, valid = backend.resample(
            torch.ones(1, 3, 2, dtype=dtype), stamps(0, 1, 2), stamps(0, 1), Previous(), torch.tensor([0])
        )
        assert data.dtype == dtype
        assert not data.any()
        assert not valid.any()


class TestTargets:
    """Rows *unsorted source times* (targets in any order) and *NaN target time*."""

    def test_targets_in_any_order(self, backend):
        result = backend.resample(column(0, 10, 20), stamps(0, 1, 2), stamps(1.5, 0, 2, 0.5, -1, 1.5))
        assert flat(result) == ([15, 0, 20, 5, 0, 15], [True, True, True, True, False, True])

    @pytest.mark.parametrize("outside", ["clamp", "nan"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
    def test_a_nan_target_is_nan_and_not_valid(self, backend, policy, dtype, outside):
        times, targets = stamps(0, 1, 2, dtype=dtype), stamps(NAN, 1, NAN, dtype=dtype)
        data, valid = backend.resample(torch.full((1, 3, 4), 0.5), times, targets, type(policy)(outside=outside))
        assert data[0, :, 0].isnan().tolist() == [True, False, True]
        assert valid.tolist() == [[False, True, False]]

    def test_an_infinite_target_is_outside(self, backend):
        padded = stamps(0, 1, 2, INF)
        for times, data in ((stamps(0, 1, 2), column(3, 4, 5)), (padded, column(3, 4, 5, NAN))):
            assert flat(backend.resample(data, times, stamps(INF, -INF))) == ([5, 3], [False, False])

    def test_a_nan_target_is_zero_for_integers(self, backend):
        result = backend.resample(column(4, 5, dtype=torch.int64), stamps(0, 1), stamps(NAN, 1), Nearest())
        assert flat(result) == ([0, 5], [False, True])
