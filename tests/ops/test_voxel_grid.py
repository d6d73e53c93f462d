"""`VoxelGrid` over random sequences of clouds: each grid against the float64 reference and `voxelize_pointcloud`."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.ops.voxelize_pointcloud import reference

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
checked_on = hypothesis.settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
BOX = ((-1.0, -1.0, -1.0), (0.25, 0.5, 0.25), (8, 9, 10))
MOST = 8 * 9 * 10 // 16  # points; larger clouds are written as a whole
COUNTING, REDUCING = ("occupancy", "count"), ("mean", "max", "min", "sum")
pytestmark = pytest.mark.usefixtures("ordinary_algorithms")  # the deterministic sums are a whole write each


def cloud(kind, count, seed, dtype=torch.float32):
    """Points on the planes between voxels, anywhere near the grid, some of them not finite, or all in one voxel."""
    random = np.random.default_rng(seed)
    points = random.uniform(-1.3, 1.6, (count, 3))
    if kind == "planes":
        points = -1 + 0.25 * random.integers(-3, 12, (count, 3))
    elif kind == "strange":
        strange = random.choice([math.nan, math.inf, -math.inf, 1e30, -1e30], (count, 3))
        points = np.where(random.random((count, 3)) < 0.1, strange, points)
    elif kind == "crowd":
        points[:] = 0.1
    return torch.from_numpy(points).to(dtype)


@st.composite
def sequences(draw):
    """Clouds one after another: empty, few points, as many as are tracked, more; each in a dtype of its own."""
    kinds = st.sampled_from(("near", "planes", "strange", "crowd"))
    sizes = st.sampled_from((MOST, 7, 1, 0, MOST + 1))
    dtypes = st.sampled_from((torch.float32, torch.float64, torch.bfloat16))
    one = st.builds(cloud, kinds, sizes, st.integers(0, 999), dtypes)
    return draw(st.lists(one, min_size=2, max_size=4))


def columns(points, width, seed, *, has_nan=False):
    random = torch.Generator().manual_seed(seed)
    dtype = (torch.float32, torch.bfloat16, torch.float64)[seed % 3]
    features = torch.randn(len(points), width, generator=random, dtype=torch.float64).to(dtype)
    if has_nan:
        features[torch.rand(features.shape, generator=random) < 0.2] = math.nan
    return features


def check_grid(actual, points, features, mode, outside="drop"):
    """Against the float64 reference: exactly, but for sums."""
    wanted = reference.voxelize_pointcloud(points.cpu(), features, *BOX, mode, None, outside)
    tolerance = 1e-5 if mode in ("mean", "sum") else 0
    torch.testing.assert_close(actual.cpu(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def run(grid, clouds, mode, width=0, *, outside="drop", has_nan=False):
    """Update with each cloud in turn, checking every grid, and that it is the bits of `voxelize_pointcloud`."""
    for seed, points in enumerate(clouds):
        features = columns(points, width, seed, has_nan=has_nan) if width else None
        here = [None if one is None else one.to(grid.values.device) for one in (points, features)]
        actual = grid.update(*here)
        check_grid(actual, points, features, mode, outside)
        if grid.values.is_cuda and mode in ("mean", "sum"):
            continue  # float atomics add in any order
        how = {"outside": outside, "backend": grid._backend}
        assert_same(actual, rc.voxelize_pointcloud(*here, *BOX, mode, **how))


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@checked_on
@hypothesis.given(clouds=sequences(), mode=st.sampled_from(COUNTING), outside=st.sampled_from(("drop", "clamp")))
def test_counts_are_the_references(make_grid, clouds, mode, outside):
    """Fails when a voxel of an earlier cloud stays, or the list forgets one: `cells[at + 1]`, an entry too few."""
    run(make_grid(*BOX, mode, outside=outside), clouds, mode, outside=outside)


@checked_on
@hypothesis.given(clouds=sequences(), mode=st.sampled_from(REDUCING), width=st.integers(1, 5), has_nan=st.booleans())
def test_features_are_the_references(make_grid, clouds, mode, width, has_nan):
    """Fails when a mark stays set after a cloud (the next one's mean divides by too many), or a row is half cleared."""
    run(make_grid(*BOX, mode, features=width), clouds, mode, width, has_nan=has_nan)


@checked_on
@hypothesis.given(clouds=sequences())
def test_accumulated_clouds_are_those_of_one_cloud(make_grid, clouds):
    """Judged by numpy's histogram of all points so far. Fails when `accumulate` clears, or loses the list's start."""
    for mode in COUNTING:
        grid = make_grid(*BOX, mode)
        grid.update(torch.rand(MOST, 3, device=grid.values.device))
        grid.update(clouds[0].to(grid.values.device))
        check_grid(grid.values, clouds[0], None, mode)
        for count in range(2, len(clouds) + 1):
            grid.accumulate(clouds[count - 1].to(grid.values.device))
            cells = np.concatenate([numbered(cloud) for cloud in clouds[:count]])
            counts = np.bincount(cells, minlength=720).reshape(8, 9, 10)
            np.testing.assert_array_equal(grid.values.cpu(), np.minimum(counts, 1) if mode == "occupancy" else counts)
        run(grid, clouds, mode)


def numbered(points):
    """Flat voxel numbers of the points inside, by numpy, in the dtype that the operation computes in."""
    real = np.float64 if points.dtype == torch.float64 else np.float32
    rows = points.to(torch.float64 if real is np.float64 else torch.float32).numpy()
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.floor((rows - np.array(BOX[0], real)) / np.array(BOX[1], real))
    steps = steps[((steps >= 0) & (steps < np.array(BOX[2]))).all(1)].astype(np.int64)
    return np.ravel_multi_index(tuple(steps.T), BOX[2])


@pytest.mark.parametrize(("mode", "width"), [("occupancy", 0), ("count", 0), ("mean", 3), ("max", 2), ("sum", 1)])
def test_a_grid_that_clears_nothing_is_seen(make_grid, monkeypatch, mode, width):
    """The positive control of the comparisons above."""
    random = torch.Generator().manual_seed(0)
    clouds = [torch.rand(MOST, 3, generator=random) * 2 - 1 for _ in range(3)]
    run(make_grid(*BOX, mode, features=width), clouds, mode, width)
    broken = make_grid(*BOX, mode, features=width)
    monkeypatch.setattr(type(broken._cells), "clear_touched", lambda cells: None)
    with pytest.raises(AssertionError):
        run(broken, clouds, mode, width)


@pytest.mark.parametrize(("mode", "width"), [("occupancy", 0), ("mean", 3), ("min", 2)])
def test_small_clouds_do_not_clear_the_whole_grid(make_grid, monkeypatch, mode, width):
    """Fails when an update forgets that it knows what was touched, and clears all, which gives the same values."""
    grid = make_grid(*BOX, mode, features=width)
    cleared, clear_all = [], type(grid._cells).clear_all
    monkeypatch.setattr(type(grid._cells), "clear_all", lambda cells: cleared.append(1) or clear_all(cells))
    cloud = torch.rand(MOST, 3) - 0.5
    run(grid, [cloud] * 4, mode, width)
    assert cleared == []
    run(grid, [torch.rand(MOST + 1, 3)] + [cloud] * 2, mode, width)
    assert cleared == [1]


@pytest.mark.parametrize("mode", [*COUNTING, *REDUCING])
def test_strided_points_and_features_are_read_as_they_lie(make_grid, mode):
    """[x, y, z, intensity] rows, every second of them, and columns of a wider table."""
    table = torch.rand(2 * MOST, 7, generator=torch.Generator().manual_seed(3)) * 2 - 1
    width = 0 if mode in COUNTING else 3
    grid = make_grid(*BOX, mode, features=width)
    table = table.to(grid.values.device)
    for rows in (table[::2], table[1::2], table.T.contiguous().T[:MOST]):
        points, features = rows[:, :3], rows[:, 4:] if width else None
        check_grid(grid.update(points, features), points, None if features is None else features.cpu(), mode)


def test_every_update_is_the_same_tensor(make_grid):
    grid = make_grid(*BOX, "count")
    first = grid.update(torch.zeros(5, 3, device=grid.values.device))
    assert first.is_contiguous()
    for count in (0, 3, 2 * MOST):
        result = grid.update(torch.zeros(count, 3, device=grid.values.device))
        assert result is first is grid.values
        assert int(result.sum()) == count
    grid.clear()
    assert not grid.values.any()
    assert grid.accumulate(torch.zeros(4, 3, device=grid.values.device)) is first
    assert int(first.sum()) == 4


@pytest.mark.gpu
def test_clouds_of_any_size_compile_nothing_new():
    """Fails when a number of points or of entries is specialised."""
    module = importlib.import_module("robocache.ops.voxelize_pointcloud.triton_grid")
    kernels = [kernel for name, kernel in vars(module).items() if name.endswith("_kernel")]

    def variants():
        return [len(kernel.device_caches[torch.cuda.current_device()][0]) for kernel in kernels]

    grids = [rc.VoxelGrid(mode=mode, features=width) for mode, width in (("count", 0), ("mean", 4), ("max", 4))]

    def update(count):
        for grid in grids:
            points = torch.randn(count, 3, device="cuda")
            grid.update(points, torch.randn(count, 4, device="cuda") if grid.values.is_floating_point() else None)

    update(100)
    update(100)
    before = variants()
    for count in range(1, 40_000, 411):
        update(count)
    assert variants() == before
