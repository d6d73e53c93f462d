"""The reference of a resample, judged by libraries we did not write; then every backend judged the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

EPOCH_S = 1_700_000_000


def clocks(seed, *, samples=60, targets=200):
    """Irregular stamps and targets, at today's epoch, some targets outside and some on a stamp."""
    random = np.random.default_rng(seed)
    times = EPOCH_S + np.cumsum(random.exponential(0.01, samples) + 1e-4)
    wanted = random.uniform(times[0] - 0.05, times[-1] + 0.05, targets)
    wanted[::7] = random.choice(times, len(wanted[::7]))
    return times, wanted, random


def one(array):
    """[1, ...] tensor."""
    return torch.from_numpy(np.ascontiguousarray(array))[None]


def in_range(times, wanted):
    return (wanted >= times[0]) & (wanted <= times[-1])


@pytest.mark.parametrize("seed", range(4))
def test_linear_is_numpy_interp(backend, seed):
    times, wanted, random = clocks(seed)
    values = random.normal(size=(len(times), 3))
    data, valid = backend.resample(one(values), one(times), one(wanted))
    expected = np.stack([np.interp(wanted - EPOCH_S, times - EPOCH_S, column) for column in values.T], -1)
    np.testing.assert_allclose(data[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(valid[0], in_range(times, wanted))


def test_linear_with_duplicates_is_numpy_interp_of_the_last_ones(backend):
    times, wanted, random = clocks(11)
    times = np.sort(np.concatenate([times, random.choice(times, 30)]))
    values = random.normal(size=len(times))
    last = np.append(np.diff(times) > 0, [True])
    data, _ = backend.resample(one(values[:, None]), one(times), one(wanted))
    expected = np.interp(wanted - EPOCH_S, times[last] - EPOCH_S, values[last])
    np.testing.assert_allclose(data[0, :, 0], expected, rtol=1e-12, atol=1e-12)


def test_extrapolation_is_scipy_interp1d(backend):
    interpolate = pytest.importorskip("scipy.interpolate")
    times, wanted, random = clocks(5)
    values = random.normal(size=(len(times), 2))
    judge = interpolate.interp1d(times - EPOCH_S, values, axis=0, fill_value="extrapolate")
    data, _ = backend.resample(one(values), one(times), one(wanted), Linear(outside="extrapolate"))
    np.testing.assert_allclose(data[0], judge(wanted - EPOCH_S), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
def test_slerp_is_scipy_slerp_whatever_the_signs(backend, order):
    transform = pytest.importorskip("scipy.spatial.transform")
    times, wanted, random = clocks(6)
    wanted = wanted[in_range(times, wanted)]
    steps = transform.Rotation.from_rotvec(random.normal(scale=0.6, size=(len(times), 3)))
    rotations = [steps[0]]
    for k in range(1, len(times)):
        rotations.append(rotations[-1] * steps[k])
    rotations = transform.Rotation.concatenate(rotations)
    flips = random.choice([-1.0, 1.0], size=(len(times), 1))
    quaternions = rotations.as_quat() * flips  # scalar last
    quaternions = np.roll(quaternions, 1, axis=1) if order == "wxyz" else quaternions
    assert (flips < 0).any()
    data, valid = backend.resample(one(quaternions), one(times), one(wanted), Slerp(order=order))
    data = data[0].numpy()
    actual = transform.Rotation.from_quat(np.roll(data, -1, axis=1) if order == "wxyz" else data)
    expected = transform.Slerp(times - EPOCH_S, rotations)(wanted - EPOCH_S)
    assert (actual.inv() * expected).magnitude().max() < 1e-9
    assert valid.all()


@pytest.mark.parametrize("period", [2 * np.pi, 360.0, 1.0])
def test_angle_is_interp_of_numpy_unwrap(backend, period):
    times, wanted, random = clocks(7)
    walk = np.cumsum(random.uniform(-0.45, 0.45, len(times))) * period
    wrapped = (walk + period / 2) % period - period / 2
    unwrapped = np.unwrap(wrapped, period=period)
    data, _ = backend.resample(one(wrapped[:, None]), one(times), one(wanted), Angle(period=period))
    expected = np.interp(wanted - EPOCH_S, times - EPOCH_S, unwrapped)
    distance = (data[0, :, 0].numpy() - expected + period / 2) % period - period / 2
    np.testing.assert_allclose(distance, 0, atol=1e-11 * period)
    assert bool((data.abs() <= period / 2).all())


class TestAsOf:
    """pandas.merge_asof, at int64 nanoseconds with duplicates and a tolerance."""

    def tables(self, seed):
        pandas = pytest.importorskip("pandas")
        random = np.random.default_rng(seed)
        times = EPOCH_S * 10**9 + np.sort(random.integers(0, 400, 120))
        wanted = EPOCH_S * 10**9 + np.sort(random.integers(-20, 420, 150))
        values = random.normal(size=len(times))
        # merge_asof takes either of equal keys when it looks forward: leave it the ones that count.
        table = pandas.DataFrame({"t": times, "value": values}).drop_duplicates("t", keep="last")
        return pandas, times, wanted, values, table

    @pytest.mark.parametrize("tolerance", [0, 3, None])
    def test_previous_is_merge_asof_backward(self, backend, tolerance):
        pandas, times, wanted, values, table = self.tables(8)
        judge = pandas.merge_asof(pandas.DataFrame({"t": wanted}), table, on="t", tolerance=tolerance)
        policy = Previous(max_gap=tolerance, outside="nan")
        data, valid = backend.resample(one(values[:, None]), one(times), one(wanted), policy)
        expected = judge["value"].where((wanted >= times[0]) & (wanted <= times[-1])).to_numpy()
        np.testing.assert_array_equal(data[0, :, 0], expected)
        np.testing.assert_array_equal(valid[0], ~np.isnan(expected))

    @pytest.mark.parametrize("tolerance", [0, 2, None])
    def test_nearest_is_merge_asof_nearest(self, backend, tolerance):
        """pandas resolves a tie to the earlier one too."""
        pandas, times, wanted, values, table = self.tables(9)
        judge = pandas.merge_asof(
            pandas.DataFrame({"t": wanted}), table, on="t", tolerance=tolerance, direction="nearest"
        )
        policy = Nearest(max_gap=tolerance, outside="nan")
        data, valid = backend.resample(one(values[:, None]), one(times), one(wanted), policy)
        expected = judge["value"].where((wanted >= times[0]) & (wanted <= times[-1])).to_numpy()
        np.testing.assert_array_equal(data[0, :, 0], expected)
        np.testing.assert_array_equal(valid[0], ~np.isnan(expected))
        since = wanted[:, None] - table["t"].to_numpy()
        ties = (np.where(since >= 0, since, 999).min(1) == np.where(since < 0, -since, 998).min(1)).sum()
        assert ties > 3
