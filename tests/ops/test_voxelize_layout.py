"""Packed clouds, the coo layout, grids to fill again, strided clouds and promised shapes of a voxelization."""

from __future__ import annotations

import itertools

import pytest
import torch

import robocache as rc
from robocache.ops.voxelize_pointcloud.cases import EDGE_CASES

MODES = ("occupancy", "count", "mean", "max", "min", "sum")
BOX = {"grid_min": (-1.0, -1.0, -1.0), "voxel_size": (0.5, 0.4, 0.3), "grid_size": (4, 5, 6)}


def cloud(count=200, *, seed=0, mode="count"):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator) * 2.6 - 1.3
    return points, torch.randn(count, 3, generator=generator) - 2 if mode not in ("occupancy", "count") else None


@pytest.mark.usefixtures("ordinary_algorithms")
@pytest.mark.parametrize("case", EDGE_CASES, ids=str)
def test_promised_shapes(fast_backend, reference, case):
    points, features = case.inputs("cpu")
    grid = {"grid_min": case.grid_min, "voxel_size": case.voxel_size, "grid_size": case.grid_size}
    actual = fast_backend.voxelize(points, features, case.mode, **grid)
    expected = reference.voxelize(points, features, case.mode, **grid)
    exact = {} if case.mode in ("mean", "sum") else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(actual, expected, **exact)


class TestOffsets:
    """`offsets [C+1]` packs C clouds into one call."""

    @pytest.mark.parametrize("mode", MODES)
    def test_each_cloud_has_the_grid_it_would_have_alone(self, backend, mode):
        points, features = cloud(mode=mode)
        cuts = [0, 30, 30, 31, 200]  # one of them empty
        packed = backend.voxelize(points, features, mode, offsets=torch.tensor(cuts), **BOX)
        assert packed.shape[:4] == (4, 4, 5, 6)
        for index, (start, end) in enumerate(itertools.pairwise(cuts)):
            part = None if features is None else features[start:end]
            alone = backend.voxelize(points[start:end], part, mode, **BOX)
            torch.testing.assert_close(packed[index], alone)
        assert not packed[1].any()

    def test_one_cloud_and_none(self, backend):
        points, _ = cloud()
        one = backend.voxelize(points, mode="count", offsets=torch.tensor([0, 200]), **BOX)
        assert torch.equal(one[0], backend.voxelize(points, mode="count", **BOX))
        assert backend.voxelize(points[:0], offsets=torch.tensor([0]), **BOX).shape == (0, 4, 5, 6)

    def test_points_beyond_the_last_offset_belong_to_no_cloud(self, backend):
        points, _ = cloud()
        packed = backend.voxelize(points, mode="count", offsets=torch.tensor([10, 50, 90]), **BOX)
        assert torch.equal(packed[0], backend.voxelize(points[10:50], mode="count", **BOX))
        assert torch.equal(packed[1], backend.voxelize(points[50:90], mode="count", **BOX))


class TestStrides:
    """Row *strides*, for clouds."""

    @pytest.mark.parametrize("mode", ["count", "max", "sum"])
    def test_views_give_what_their_copies_give(self, backend, mode):
        points, features = cloud(mode=mode)
        rows = torch.cat([points, points.flip(0)], 1)  # a lidar's x, y, z, and more columns after them
        for view in (rows[:, :3], rows[::2, :3], rows[:, 3:], points[:1].expand(200, -1), points.T.contiguous().T):
            kept = None if features is None else torch.stack([features, features], 1)[: len(view), 1]
            assert not view.is_contiguous()
            copy = None if kept is None else kept.contiguous()
            torch.testing.assert_close(
                backend.voxelize(view, kept, mode, **BOX), backend.voxelize(view.contiguous(), copy, mode, **BOX)
            )

    @pytest.mark.parametrize("mode", ["occupancy", "count", "max", "mean"])
    def test_clouds_that_start_anywhere_in_memory(self, backend, mode):
        points, features = cloud(mode=mode)
        expected = backend.voxelize(points, features, mode, **BOX)
        for start in (0, 1, 2, 4, 0):
            moved = [
                None if x is None else torch.zeros(x.numel() + start, device=backend.device) for x in (points, features)
            ]
            views = [None if x is None else x[start:].view(200, 3) for x in moved]
            for view, original in zip(views, (points, features), strict=True):
                if view is not None:
                    view.copy_(original)
            torch.testing.assert_close(backend.voxelize(*views, mode, **BOX), expected)


class TestCoo:
    """`layout="coo"`: coordinates, values, counts of occupied voxels only."""

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("mode", MODES)
    def test_it_is_the_dense_grid_without_its_empty_voxels(self, mode, packed, kernel_device):
        points, features = (None if x is None else x.to(kernel_device) for x in cloud(mode=mode))
        offsets = torch.tensor([0, 70, 200], device=kernel_device) if packed else None
        sparse = rc.voxelize_pointcloud(points, features, **BOX, mode=mode, offsets=offsets, layout="coo")
        dense = rc.voxelize_pointcloud(points, features, **BOX, mode=mode, offsets=offsets)
        counts = rc.voxelize_pointcloud(points, None, **BOX, mode="count", offsets=offsets)
        assert sparse.coordinates.dtype == torch.int64
        assert torch.equal(sparse.coordinates, counts.nonzero())
        index = tuple(sparse.coordinates.unbind(1))
        assert sparse.counts.dtype == torch.int32
        assert torch.equal(sparse.counts, counts[index])
        assert sparse.values.dtype == dense.dtype
        torch.testing.assert_close(sparse.values, dense[index])

    @pytest.mark.parametrize("mode", ["count", "mean"])
    def test_nothing_inside_is_nothing(self, mode, kernel_device):
        points = torch.full((5, 3), 99.0, device=kernel_device)
        features = torch.ones(5, 2, device=kernel_device) if mode == "mean" else None
        sparse = rc.voxelize_pointcloud(points, features, **BOX, mode=mode, layout="coo")
        assert sparse.coordinates.shape == (0, 3)
        assert sparse.values.shape == ((0, 2) if mode == "mean" else (0,))
        assert sparse.counts.shape == (0,)

    def test_a_grid_too_large_to_be_made_is_no_problem(self, kernel_device):
        """10**15 voxels: memory grows with the points."""
        points = torch.tensor([[0.5, 0.5, 99_999.5], [99_999.5, 0.5, 0.5]], device=kernel_device)
        sparse = rc.voxelize_pointcloud(points, None, (0, 0, 0), 1.0, (100_000,) * 3, "count", layout="coo")
        assert sparse.coordinates.tolist() == [[0, 0, 99_999], [99_999, 0, 0]]


class TestOut:
    """`out=` is overwritten, whatever it held, and returned."""

    @pytest.mark.parametrize("mode", MODES)
    def test_it_is_filled_and_returned(self, mode, kernel_device):
        points, features = (None if x is None else x.to(kernel_device) for x in cloud(mode=mode))
        expected = rc.voxelize_pointcloud(points, features, **BOX, mode=mode)
        for junk in (-7, 2**30):
            out = torch.full_like(expected, junk)
            result = rc.voxelize_pointcloud(points, features, **BOX, mode=mode, out=out)
            assert result.data_ptr() == out.data_ptr()
            torch.testing.assert_close(result, expected)

    @pytest.mark.parametrize("mode", MODES)
    def test_it_may_start_anywhere_in_memory(self, mode, kernel_device):
        points, features = (None if x is None else x.to(kernel_device) for x in cloud(mode=mode))
        expected = rc.voxelize_pointcloud(points, features, **BOX, mode=mode)
        for start in (0, 1, 3, 0):
            room = torch.full((expected.numel() + start + 1,), 99, dtype=expected.dtype, device=kernel_device)
            rc.voxelize_pointcloud(points, features, **BOX, mode=mode, out=room[start:-1].view(expected.shape))
            torch.testing.assert_close(room[start:-1].view(expected.shape), expected)
            assert room[-1] == 99
            assert bool((room[:start] == 99).all())

    def test_an_empty_cloud_clears_it(self, kernel_device):
        out = torch.full((4, 5, 6), 3, dtype=torch.int32, device=kernel_device)
        rc.voxelize_pointcloud(torch.zeros(0, 3, device=kernel_device), None, **BOX, out=out)
        assert not out.any()
