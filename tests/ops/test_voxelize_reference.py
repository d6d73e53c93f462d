"""The reference of a voxelization judged by numpy and scipy, every backend the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

LOW, SIZE, GRID = (-2.0, -1.0, -0.5), 0.25, (16, 8, 4)


def edges():
    """Planes between voxels; a size of 1/4 makes them exact."""
    return [low + SIZE * np.arange(count + 1) for low, count in zip(LOW, GRID, strict=True)]


def make_cloud(seed, count=3000):
    random = np.random.default_rng(seed)
    return random.normal(scale=1.0, size=(count, 3)), random.normal(size=(count, 2)) - 1


def arguments(mode):
    return {"mode": mode, "grid_min": LOW, "voxel_size": SIZE, "grid_size": GRID}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_count_is_numpy_histogramdd(backend, seed, dtype):
    points = make_cloud(seed)[0].astype(dtype)
    expected, _ = np.histogramdd(points.astype(np.float64), bins=edges())
    assert 0 < expected.sum() < len(points)
    np.testing.assert_array_equal(backend.voxelize(torch.from_numpy(points), **arguments("count")), expected)
    np.testing.assert_array_equal(backend.voxelize(torch.from_numpy(points), **arguments("occupancy")), expected > 0)


@pytest.mark.parametrize("mode", ["mean", "max", "min", "sum"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_scipy_binned_statistic_dd(backend, mode, dtype):
    stats = pytest.importorskip("scipy.stats")
    points, features = (array.astype(dtype) for array in make_cloud(4))
    inside = ((points >= LOW) & (points < np.array(LOW) + SIZE * np.array(GRID))).all(1)
    judge = [stats.binned_statistic_dd(points[inside], f, mode, bins=edges()).statistic for f in features[inside].T]
    expected = np.nan_to_num(np.stack(judge, -1).astype(np.float64))  # scipy marks empty voxels NaN
    grid = backend.voxelize(torch.from_numpy(points), torch.from_numpy(features), **arguments(mode))
    if mode in ("max", "min"):
        np.testing.assert_array_equal(grid, expected.astype(np.float32))
    else:
        np.testing.assert_allclose(grid, expected, rtol=1e-5, atol=2e-5)
