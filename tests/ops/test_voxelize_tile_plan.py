"""When a voxelization goes by tiles, the order of its sums, and tiles of real size on a GPU."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.ops.voxelize_pointcloud import reference

pytest.importorskip("triton")
plan = pytest.importorskip("robocache.ops.voxelize_pointcloud.tile_plan")
kernel = pytest.importorskip("robocache.ops.voxelize_pointcloud.triton_kernel")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

MODES = ("mean", "max", "min", "sum")
BOX = ((-1.0, -1.0, -1.0), (0.25, 0.3, 0.4), (9, 7, 5))
LARGE = ((-12.8, -12.8, -12.8), (0.1, 0.1, 0.1), (256, 256, 256))


def takes_tiles(points, cells, width):
    return plan.Tiling.of(points, cells, width).pays()


class TestTiling:
    def test_large_sparse_grids_go_by_tiles(self):
        assert takes_tiles(1_000_000, 256**3, 8)
        assert takes_tiles(1_000_000, 256**3, 1)
        assert takes_tiles(300_000, 512**3, 3)
        assert takes_tiles(5_000_000, 128**3, 64)

    def test_others_do_not(self):
        """In the cache; hardly a point; most tiles overfull; numbers beyond int32."""
        assert not takes_tiles(1_000_000, 64**3, 8)
        assert not takes_tiles(1_000, 256**3, 8)
        assert not takes_tiles(100_000_000, 128**3, 8)
        assert not takes_tiles(2**31, 1024**3, 64)

    @hypothesis.given(
        points=st.integers(1, 2**30), cells=st.integers(1, 2**36), width=st.integers(1, 3000) | st.just(100_000)
    )
    @hypothesis.settings(database=None, derandomize=True, deadline=None)
    def test_everything_fits_where_it_is_put(self, points, cells, width):
        """Fails when a tile outgrows its bin, a key its integer, or a list of tiles those that may be on it."""
        tiling = plan.Tiling.of(points, cells, width)
        size = 1 << tiling.tile_bits
        assert (tiling.tiles - 1) * size < cells <= tiling.tiles * size
        assert size >= 4
        assert size <= tiling.capacity  # an overfull tile's bin counts its voxels
        assert plan.BLOCK <= tiling.capacity <= plan.BLOCK_FULL  # the first kernel reads a block of every bin
        assert size == 4 or 4 * width * size <= plan.TILE_BYTES
        highest = ((size - 1) << tiling.key_bits) | (points - 1)
        assert points <= 1 << tiling.key_bits
        assert highest < torch.iinfo(tiling.key_dtype).max  # which stands behind all keys
        assert points // (plan.BLOCK + 1) >= tiling.busy >= tiling.overfull >= min(tiling.tiles, points // 1025)

    def test_other_sizes_are_no_other_kernels(self):
        """Fails when a size becomes a constant that a kernel is compiled for."""
        compiled_for = []
        for count, size in ((270_001, 200), (1_000_000, 256), (9_000_000, 333)):
            points = torch.empty(1, 3).expand(count, 3)
            features = torch.empty(1, 8).expand(count, 8)
            box = (*LARGE[:2], (size, size, size))
            tiles = kernel.VoxelPlan(points, features, box, "mean", None, "drop")._tiles
            made = (tiles._bin, tiles._write, tiles._rest, tiles._finish)
            compiled_for.append([prepared._options for prepared in made])
        assert compiled_for[0] == compiled_for[1] == compiled_for[2]


@pytest.mark.usefixtures("small_tiles")
class TestSmallTiles:
    @pytest.mark.parametrize("mode", ["mean", "sum"])
    def test_sums_do_not_depend_on_the_order_of_arrival(self, kernel_device, mode):
        """Fails when keys are sorted by voxel alone: which point comes first in a bin is a race."""
        random = torch.Generator().manual_seed(5)
        points = torch.rand(60, 3, generator=random) * 1.8 - 0.9
        points[:6], points[6:19] = 0.1, 0.5  # 13 points crowd their tile
        features = torch.randn(60, 2, generator=random) * 10.0 ** torch.randint(0, 8, (60, 2), generator=random)
        points, features = points.to(kernel_device), features.to(kernel_device)
        tiles = (made := kernel.VoxelPlan(points, features, BOX, mode, None, "drop"))._tiles
        write, tiling = tiles._write, tiles._tiling

        def shuffled(features, counts, bins, *others):
            for keys, count in zip(bins.view(tiling.tiles, -1), counts.tolist(), strict=False):
                assert count <= tiling.capacity
                keys[:count] = keys[torch.randperm(count, generator=random).to(kernel_device)]
            write(features, counts, bins, *others)

        first = made(points, features, None)
        tiles._write = shuffled
        for _ in range(3):
            assert torch.equal(made(points, features, None), first)

    @hypothesis.settings(
        max_examples=12 if torch.cuda.is_available() else 5,  # the interpreter takes seconds for each
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        voxels=st.lists(
            st.tuples(st.integers(-1, 9), st.integers(0, 7), st.integers(0, 4), st.integers(1, 20)), max_size=12
        ),
        mode=st.sampled_from(MODES),
        width=st.integers(1, 4),
        outside=st.sampled_from(("drop", "clamp")),
        seed=st.integers(0, 2**31),
    )
    def test_any_crowd_is_the_references(self, kernel_device, voxels, mode, width, outside, seed):
        random = torch.Generator().manual_seed(seed)
        rows = [voxel[:3] for voxel in voxels for _ in range(voxel[3])] + [(3, 3, 3)]
        points = torch.tensor(rows)[torch.randperm(len(rows), generator=random)] * torch.tensor(BOX[1]) - 0.9
        features = torch.randn(len(rows), width, generator=random)
        features[torch.rand(len(rows), width, generator=random) < 0.02] = math.nan
        on_device = points.to(kernel_device), features.to(kernel_device)
        made = kernel.VoxelPlan(*on_device, BOX, mode, None, outside)
        assert made._tiles is not None
        with np.errstate(all="ignore"):
            actual = made(*on_device, None).cpu()
        expected = reference.voxelize_pointcloud(points, features, *BOX, mode, None, outside)
        slack = 0 if mode in ("max", "min") else 1e-5
        torch.testing.assert_close(actual, expected, rtol=slack, atol=slack, equal_nan=True)


def large_cloud(kind, count=1_000_000, width=8):
    random = torch.Generator("cuda").manual_seed(3)
    points = torch.rand(count, 3, device="cuda", generator=random) * 26 - 13
    if kind == "lidar":
        points = (
            torch.nn.functional.normalize(points, dim=1) * torch.rand(count, 1, device="cuda", generator=random) ** 2
        )
        points *= 12
    elif kind == "one_voxel":
        points = points * 0 + 1.25
    return points, torch.randn(count, width, device="cuda", generator=random)


@pytest.mark.gpu
@pytest.mark.usefixtures("ordinary_algorithms")
class TestRealSize:
    @pytest.fixture(autouse=True)
    def _give_back(self):
        yield
        torch.cuda.empty_cache()

    @pytest.mark.parametrize("kind", ["uniform", "lidar", "one_voxel"])
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("width", [8, 1])
    def test_it_is_what_pytorch_makes_of_it(self, kind, mode, width):
        points, features = large_cloud(kind, width=width)
        made = kernel.VoxelPlan(points, features, LARGE, mode, None, "drop")
        assert made._tiles is not None
        expected = rc.voxelize_pointcloud(points, features, *LARGE, mode, backend="pytorch")
        slack = 0 if mode in ("max", "min") else 1e-4
        scale = {"one_voxel": 1000, "lidar": 100}.get(kind, 1) if mode == "sum" else 1  # sums cancel
        torch.testing.assert_close(made(points, features, None), expected, rtol=slack, atol=slack * scale)

    def test_sums_repeat_to_the_bit(self):
        """No tile of this cloud is overfull. Fails when the order of arrival is the order of the sum."""
        points, features = large_cloud("uniform", 3_000_000)
        first = rc.voxelize_pointcloud(points, features, *LARGE, "sum")
        for _ in range(5):
            assert torch.equal(rc.voxelize_pointcloud(points, features, *LARGE, "sum"), first)

    def test_nothing_synchronises(self):
        points, features = large_cloud("lidar")
        rc.voxelize_pointcloud(points, features, *LARGE, "mean")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            rc.voxelize_pointcloud(points, features, *LARGE, "mean")
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.parametrize("mode", ["mean", "max"])
    def test_a_graph_replays_with_other_clouds(self, mode):
        """Another cloud has other crowded and overfull tiles: nothing of the first may be left."""
        points, features = large_cloud("uniform")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            rc.voxelize_pointcloud(points, features, *LARGE, mode)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = rc.voxelize_pointcloud(points, features, *LARGE, mode)
        for kind in ("lidar", "one_voxel", "uniform"):
            points.copy_(large_cloud(kind)[0])
            graph.replay()
            expected = rc.voxelize_pointcloud(points, features, *LARGE, mode, backend="pytorch")
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("mode", ["mean", "max"])
    def test_more_than_2_31_elements(self, mode):
        if torch.cuda.mem_get_info()[0] < 24 << 30:
            pytest.skip("needs 24 GiB of free GPU memory")
        size = (1024, 1024, 257)
        points = torch.rand(300_000, 3, device="cuda") * torch.tensor(size, device="cuda")
        points[:2000] = torch.tensor([1023.5, 1023.5, 256.5], device="cuda")
        features = torch.randn(300_000, 8, device="cuda")
        made = kernel.VoxelPlan(points, features, ((0.0,) * 3, (1.0,) * 3, size), mode, None, "drop")
        assert made._tiles is not None
        grid = made(points, features, None)
        assert grid.numel() > 2**31
        sparse = rc.voxelize_pointcloud(points, features, (0, 0, 0), 1.0, size, mode, layout="coo")
        torch.testing.assert_close(grid[tuple(sparse.coordinates.unbind(1))], sparse.values, rtol=1e-4, atol=1e-4)
        assert torch.count_nonzero(grid) == torch.count_nonzero(sparse.values)
