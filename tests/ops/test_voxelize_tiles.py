"""Features of large grids, tile by tile: judged by scipy, numpy and the reference, on tiles small enough for a test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robocache.ops.voxelize_pointcloud import reference

pytest.importorskip("triton")
plan = pytest.importorskip("robocache.ops.voxelize_pointcloud.tile_plan")
kernel = pytest.importorskip("robocache.ops.voxelize_pointcloud.triton_kernel")

pytestmark = pytest.mark.usefixtures("small_tiles")
MODES = ("mean", "max", "min", "sum")
BOX = ((-1.0, -1.0, -1.0), (0.25, 0.3, 0.4), (9, 7, 5))  # 315 voxels: the last tile is cut off


def planned(points, features, mode, box=BOX, offsets=None, outside="drop"):
    """What a call by tiles is made with; unwritten memory is NaN here, and a missing zero shows."""
    made = kernel.VoxelPlan(points, features, box, mode, offsets, outside)
    assert made._tiles is not None
    return made


@pytest.fixture
def tiled(kernel_device):
    """Like a backend's `voxelize`, but always by tiles."""

    def voxelize(points, features, mode, box=BOX, offsets=None, outside="drop"):
        inputs = [None if x is None else x.to(kernel_device) for x in (points, features, offsets)]
        made = planned(inputs[0], inputs[1], mode, box, inputs[2], outside)
        with np.errstate(all="ignore"):
            return made(*inputs).cpu()

    return voxelize


def expected_of(points, features, mode, box=BOX, offsets=None, outside="drop"):
    return reference.voxelize_pointcloud(points, features, *box, mode, offsets, outside)


def check(actual, expected, mode):
    slack = {"rtol": 0, "atol": 0} if mode in ("max", "min") else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(actual, expected, equal_nan=True, **slack)


def cloud(count=120, width=2, *, seed=2):
    """Dense near the centre, as a lidar's: some tiles have no point, some one, some far too many."""
    random = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=random) * 0.8
    points[: count // 4] *= 0.2
    return points, torch.randn(count, width, generator=random) - 1


def points_of_tiles(points, tiling):
    cells = reference.voxel_numbers(points, *BOX, None, "drop")
    return torch.bincount(cells[cells >= 0] >> tiling.tile_bits, minlength=tiling.tiles)


def test_the_cloud_of_these_tests_has_tiles_of_every_kind():
    """Fails when a change of sizes leaves a kind of tile untested."""
    points, _ = cloud()
    tiling = plan.Tiling.of(len(points), math.prod(BOX[2]), 2)
    counts = points_of_tiles(points, tiling)
    assert counts.shape == (tiling.tiles,)
    assert tiling.capacity == 16
    assert (counts == 0).any()
    assert ((counts > 0) & (counts <= plan.BLOCK)).any()
    assert ((counts > plan.BLOCK) & (counts <= tiling.capacity)).any()
    assert (counts > tiling.capacity).any()
    assert math.prod(BOX[2]) % (1 << tiling.tile_bits)


@pytest.mark.parametrize("mode", MODES)
def test_features_are_scipy_binned_statistic_dd(tiled, mode):
    """Fails when crowded tiles are skipped, the list is, or the mean divides by another voxel's count."""
    stats = pytest.importorskip("scipy.stats")
    points, features = cloud()
    low, size, shape = map(np.array, BOX)
    scaled = ((points.numpy() - low.astype(np.float32)) / size.astype(np.float32)).astype(np.float64)
    inside = ((scaled >= 0) & (scaled < shape)).all(1)
    edges = [np.arange(count + 1) for count in shape]
    columns = features.numpy()[inside].astype(np.float64).T
    judge = [stats.binned_statistic_dd(scaled[inside], column, mode, bins=edges).statistic for column in columns]
    expected = np.nan_to_num(np.stack(judge, -1)).astype(np.float32)  # scipy marks empty voxels NaN
    check(tiled(points, features, mode), torch.from_numpy(expected), mode)


@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("mode", ["mean", "min"])
def test_any_number_of_features(tiled, mode, width):
    """Fails when a tile's zeros end at a multiple of four, or features after the first block stay where they were."""
    points, features = cloud(80, width)
    check(tiled(points, features, mode), expected_of(points, features, mode), mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("mode", ["mean", "max"])
def test_any_floats(tiled, mode, dtype):
    points, features = cloud(80)
    points = points.double() if dtype == torch.float64 else points.to(dtype)
    features = features.to(dtype)
    check(tiled(points, features, mode), expected_of(points, features, mode), mode)


class TestContention:
    """Row *many points in one voxel*."""

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("count", [8, 9, 16, 17, 100])
    def test_all_points_in_one_voxel(self, tiled, mode, count):
        """Of 100, programs whose points all lie in one tile count them with one atomic."""
        features = torch.randn(count, 1, generator=torch.Generator().manual_seed(count)) + 2
        grid = tiled(torch.full((count, 3), 0.5), features, mode)
        column = features[:, 0].numpy().astype(np.float64)
        judge = {"mean": np.mean, "max": np.max, "min": np.min, "sum": np.sum}[mode](column)
        assert grid[6, 5, 3, 0].item() == pytest.approx(judge, rel=1e-5)
        grid[6, 5, 3, 0] = 0
        assert not grid.any()

    @pytest.mark.parametrize("mode", MODES)
    def test_an_overfull_tile_of_many_voxels(self, tiled, mode):
        """Fails when an overfull tile's bin counts from something else than zero."""
        points = torch.full((90, 3), 0.5)
        points[:, 2] = torch.linspace(-0.9, 1.0, 90)[torch.randperm(90, generator=torch.Generator().manual_seed(1))]
        features = torch.randn(90, 3, generator=torch.Generator().manual_seed(2))
        check(tiled(points, features, mode), expected_of(points, features, mode), mode)

    @pytest.mark.parametrize("mode", ["mean", "max"])
    def test_several_busy_tiles(self, tiled, mode):
        """Fails when a program that takes turns does its first one only."""
        points = torch.tensor([[-0.9, 0, 0], [0.0, 0, 0], [0.9, 0, 0], [-0.4, 0, 0], [0.4, 0, 0]])
        points = points.repeat_interleave(torch.tensor([20, 18, 30, 10, 12]), 0)
        features = torch.randn(90, 1, generator=torch.Generator().manual_seed(3))
        check(tiled(points, features, mode), expected_of(points, features, mode), mode)

    def test_dropped_points_among_those_of_one_tile(self, tiled):
        points = torch.full((64, 3), 0.5)
        points[::3, 1] = math.nan
        features = torch.arange(64.0)[:, None]
        assert tiled(points, features, "sum").sum() == sum(k for k in range(64) if k % 3)


class TestValues:
    """What sums and comparisons make of special numbers, to the bit as without tiles."""

    def special(self):
        """Ten voxels of four points, and the last point alone in another one."""
        at = torch.arange(40)
        points = torch.stack([torch.full((40,), -0.9), at // 20 * 0.3 - 0.9, at // 4 % 5 * 0.4 - 0.9], 1)
        points[39, 0] = 0.9
        features = torch.zeros(40, 3)
        numbers = (-0.0, -0.0, -0.0, -0.0, 0.0, -0.0, -0.0, 0.0, -math.inf, 1, math.inf, 2)
        features[:, 0] = torch.tensor(numbers).repeat(4)[:40]
        features[3::5, 1] = math.nan
        features[::2, 2] = -torch.tensor(math.nan)
        return points, features

    @pytest.mark.parametrize("mode", MODES)
    def test_special_numbers(self, tiled, kernel_device, mode, assert_same_bits):
        """Fails when a sum starts from its first number (-0.0 alone), or a NaN is compared as a float."""
        points, features = self.special()
        by_tiles = tiled(points, features, mode)
        points, features = points.to(kernel_device), features.to(kernel_device)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan.Tiling, "pays", lambda tiling: False)
            made = kernel.VoxelPlan(points, features, BOX, mode, None, "drop")
        assert made._tiles is None
        with np.errstate(all="ignore"):
            by_atomics = made(points, features, None).cpu()
        assert_same_bits(by_tiles, by_atomics)
        check(by_tiles, expected_of(points.cpu(), features.cpu(), mode), mode)


class TestPackedAndClamped:
    @pytest.mark.parametrize("outside", ["drop", "clamp"])
    @pytest.mark.parametrize("mode", ["mean", "max"])
    def test_offsets(self, tiled, mode, outside):
        """An empty cloud, points before the first cloud and behind the last; border tiles are overfull of clamped."""
        points, features = cloud(120)
        points[::11, 0] = math.nan
        offsets = torch.tensor([4, 60, 60, 61, 140])
        grid = tiled(points, features, mode, offsets=offsets, outside=outside)
        check(grid, expected_of(points, features, mode, offsets=offsets, outside=outside), mode)

    def test_strides(self, tiled):
        points, features = cloud(60, 4)
        wide, rows = torch.cat([features, points], 1), torch.stack([features, -features], 1)
        views = (wide[:, 4:], wide[:, :4]), (wide[::2, 4:], rows[::2, 1]), (points, features[:1].expand(60, 4))
        for view, kept in views:
            check(tiled(view, kept, "sum"), expected_of(view.clone(), kept.clone(), "sum"), "sum")


@pytest.mark.parametrize("start", [0, 1, 4])
@pytest.mark.parametrize("width", [1, 3])
def test_out_is_overwritten_and_nothing_beside_it(kernel_device, start, width):
    """Fails when the last tile, which the grid's end cuts off, is written whole."""
    points, features = (x.to(kernel_device) for x in cloud(60, width))
    expected = expected_of(points.cpu(), features.cpu(), "mean")
    room = torch.full((expected.numel() + start + 64,), 99.0, device=kernel_device)
    out = room[start:-64].view(expected.shape)
    result = planned(points, features, "mean")(points, features, None, out)
    assert result.data_ptr() == out.data_ptr()
    check(result.cpu(), expected, "mean")
    assert bool((room[:start] == 99).all())
    assert bool((room[-64:] == 99).all())


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("part", ["numbers", "keys"])
def test_wide_integers(tiled, monkeypatch, mode, part):
    """Numbers beyond 2**31 elements, and keys of clouds whose points do not fit beside their voxels."""
    if part == "numbers":
        monkeypatch.setattr(kernel, "_INT32_LIMIT", 0)
    else:
        monkeypatch.setattr(plan, "KEY_BITS", 10)
        assert plan.Tiling.of(120, math.prod(BOX[2]), 2).key_dtype == torch.int64
    points, features = cloud()
    check(tiled(points, features, mode), expected_of(points, features, mode), mode)
