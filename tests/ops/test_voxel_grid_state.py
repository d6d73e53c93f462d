"""What a `VoxelGrid` refuses, what an error leaves behind, and what it holds: the grid is right for the next cloud."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

import robocache as rc
from robocache.errors import ArgumentError, BackendUnavailableError, DeviceError, DTypeError, ShapeError
from robocache.stress.resources import host_counters, leaked_per_round

TENSORS = [counter for counter in host_counters() if counter.name == "tensors"]
BOX = ((0.0, 0.0, 0.0), 1.0, (8, 8, 8))
pytestmark = pytest.mark.usefixtures("ordinary_algorithms")


def cloud(count, seed=0, device="cpu"):
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 8).to(device)


def counted(points):
    return torch.histogramdd(points.cpu().double(), [8, 8, 8], range=[0.0, 8.0] * 3).hist.to(torch.int32)


def is_right(grid, seed):
    """The next update holds its cloud and nothing else, judged by PyTorch's histogram."""
    points = cloud(20, seed, grid.values.device)
    if grid.values.is_floating_point():
        got = grid.update(points, torch.ones(20, grid.values.shape[3], device=points.device))[..., 0]
    else:
        got = grid.update(points)
    wanted = counted(points)
    return torch.equal(got.cpu().to(torch.int32), wanted if grid._mode in ("count", "sum") else wanted.clamp(max=1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"voxel_size": 0}, ArgumentError, "voxel_size must be greater than 0, got 0"),
        ({"grid_min": "abc"}, ArgumentError, "grid_min must be one number or three, got 'abc'"),
        ({"grid_size": (4, 0, 4)}, ArgumentError, "grid_size must be at least 1 along each axis, got (4, 0, 4)"),
        ({"mode": "median"}, ArgumentError, "mode must be one of occupancy, count, mean, max, min, sum, got 'median'"),
        ({"mode": "mean"}, ArgumentError, "mode='mean' needs features, the number of feature columns, got 0"),
        ({"features": 3}, ArgumentError, "mode='occupancy' has no use for features; pass mode='mean', 'max', 'min'"),
        ({"mode": "max", "features": -1}, ArgumentError, "features must be a number of columns, 0 or more, got -1"),
        ({"mode": "max", "features": True}, ArgumentError, "features must be a number of columns, 0 or more, got True"),
        ({"outside": "wrap"}, ArgumentError, "outside must be 'drop' or 'clamp', got 'wrap'"),
        ({"backend": "gpu"}, ArgumentError, "backend must be one of cuda, native, pytorch or None, got 'gpu'"),
        ({"backend": "cuda"}, BackendUnavailableError, "backend='cuda' needs tensors on a GPU, but they are on cpu"),
    ],
)
def test_what_no_grid_can_be_made_of_is_named(arguments, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        rc.VoxelGrid(device="cpu", **arguments)


BAD_CLOUDS = {
    "a list": (([[0, 0, 0]], None), ArgumentError, "points must be a torch.Tensor, got list"),
    "two axes": ((torch.zeros(4, 2), None), ShapeError, "points must be [point, 3], got shape (4, 2)"),
    "integers": ((torch.zeros(4, 3, dtype=torch.int32), None), DTypeError, "points is int32, but must be one of"),
    "elsewhere": ((torch.zeros(4, 3, device="meta"), None), DeviceError, "points is on meta, but the grid is on "),
    "features": ((torch.zeros(4, 3), torch.zeros(4, 2)), ArgumentError, "mode='count' has no use for features"),
}


@pytest.mark.parametrize("name", BAD_CLOUDS)
def test_a_refused_cloud_leaves_the_grid_as_it_was(make_grid, name):
    """Fails when the grid is cleared before the cloud is checked."""
    arguments, error, message = BAD_CLOUDS[name]
    grid = make_grid(*BOX, "count")
    before = grid.update(cloud(20, device=grid.values.device)).clone()
    arguments = [
        one.to(grid.values.device) if isinstance(one, torch.Tensor) and not one.is_meta else one for one in arguments
    ]
    with pytest.raises(error, match="^" + re.escape(message)):
        grid.update(*arguments)
    assert torch.equal(grid.values, before)
    assert is_right(grid, 1)


def test_features_must_be_those_the_grid_was_made_for(make_grid):
    grid = make_grid(*BOX, "mean", features=3)
    device = grid.values.device
    with pytest.raises(ShapeError, match=r"^features has feature=2, but the grid was made with features=3$"):
        grid.update(torch.zeros(4, 3, device=device), torch.zeros(4, 2, device=device))
    with pytest.raises(ArgumentError, match=r"^mode='mean' needs features \[point, feature\], got None$"):
        grid.update(torch.zeros(4, 3, device=device))
    with pytest.raises(ArgumentError, match=r"^accumulate is for mode='occupancy' or 'count', not 'mean'; concatenate"):
        grid.accumulate(torch.zeros(4, 3, device=device))
    assert is_right(grid, 1)


@pytest.mark.parametrize("mode", ["occupancy", "mean", "max"])
@pytest.mark.parametrize("when", ["reserve", "clear_touched", "before", "after"])
def test_an_update_that_fails_on_the_way_is_made_good(make_grid, monkeypatch, mode, when):
    """No memory for the list, a launch that fails, an interrupt. Fails when the list is believed afterwards."""
    grid = make_grid(*BOX, mode, features=0 if mode == "occupancy" else 2)
    assert is_right(grid, 0)
    before, kind = grid.values.clone(), type(grid._cells)
    add = kind.add

    def failing(cells, *arguments, **options):
        if when == "after":  # written, but not in the list
            add(cells, *arguments, **options)
            cells.__dict__.update({"touched": 0} if "touched" in vars(cells) else {"_lists": []})
        raise torch.OutOfMemoryError("no memory, on purpose")

    monkeypatch.setattr(kind, when if when in ("reserve", "clear_touched") else "add", failing)
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        is_right(grid, 1)
    if when == "reserve":
        assert torch.equal(grid.values, before)
    monkeypatch.undo()
    assert is_right(grid, 2)
    assert is_right(grid, 3)


@pytest.mark.parametrize("mode", ["count", "max"])
def test_inference_mode_and_no_grad_make_no_difference(make_grid, mode):
    """Fails when the grid is an inference tensor: PyTorch then refuses to change it outside of the mode."""
    with torch.inference_mode():
        made_inside = make_grid(*BOX, mode, features=0 if mode == "count" else 2)
        assert is_right(made_inside, 0)
    assert is_right(made_inside, 1)
    with torch.no_grad():
        assert is_right(made_inside, 2)
    with torch.inference_mode():
        assert is_right(made_inside, 3)
    assert is_right(made_inside, 4)


def test_a_gradient_is_refused_with_the_way_out(make_grid):
    grid = make_grid(*BOX, "sum", features=2)
    points = cloud(20, device=grid.values.device)
    features = torch.ones(20, 2, device=points.device, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"^features requires a gradient.*; pass features.detach\(\), or use voxel"):
        grid.update(points, features)
    assert not grid.update(points, features.detach()).requires_grad
    with torch.no_grad():
        grid.update(points, features)
    assert not grid.update(points.clone().requires_grad_(), features.detach()).requires_grad
    assert is_right(grid, 1)


@pytest.mark.parametrize("count", [20, 400], ids=["few", "whole"])
def test_a_backward_through_an_earlier_grid_raises(make_grid, count):
    """Fails when autograd is not told of the change: the gradient would be of a cloud that came later, in silence."""
    grid = make_grid(*BOX, "sum", features=2)
    device = grid.values.device
    weight = torch.ones(2, device=device, requires_grad=True)
    loss = (grid.update(cloud(20, device=device), torch.ones(20, 2, device=device)) * weight).sum()
    grid.update(cloud(count, 1, device), torch.ones(count, 2, device=device))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("mode", ["count", "mean"])
def test_under_a_compiler_and_beside_it_grids_are_the_same(make_grid, mode):
    """A traced update writes the whole grid; what comes after it, outside, must not trust an older list."""
    grid = make_grid(*BOX, mode, features=0 if mode == "count" else 2)
    if grid._backend == "cuda" and not grid.values.is_cuda:
        pytest.skip("the interpreter's kernels cannot be traced")
    device = grid.values.device
    inputs = [cloud(20, 1, device)] + ([] if mode == "count" else [torch.ones(20, 2, device=device)])
    expected = grid.update(*inputs).clone()
    assert is_right(grid, 2)
    traced = torch.compile(lambda *arguments: grid.update(*arguments) * 2, backend="eager", fullgraph=True)
    assert torch.equal(traced(*inputs), expected * 2)
    assert is_right(grid, 3)
    torch.compiler.reset()


def held_bytes(grid):
    """Of all tensors that the grid keeps."""
    kept = itertools.chain.from_iterable(one if isinstance(one, list) else [one] for one in vars(grid._cells).values())
    return sum(one.nbytes for one in kept if isinstance(one, torch.Tensor))


@pytest.mark.parametrize("mode", ["occupancy", "mean"])
def test_a_thousand_updates_hold_no_more_than_one(make_grid, mode):
    """Fails when the list is appended to for ever, or a cloud is kept."""
    grid = make_grid(*BOX, mode, features=0 if mode == "occupancy" else 4)
    device = grid.values.device
    clouds = [cloud(count, count, device) for count in (31, 1, 17, 32, 0, 31)]
    features = [None if mode == "occupancy" else torch.ones(len(one), 4, device=device) for one in clouds]

    def six_updates():
        for points, columns in zip(clouds, features, strict=True):
            grid.update(points, columns)

    six_updates()
    before = held_bytes(grid)
    rounds = 8 if grid._backend == "cuda" and not grid.values.is_cuda else 167  # the interpreter is slow
    leaked = leaked_per_round(six_updates, rounds=rounds, warm_up=1, counters=TENSORS)
    assert leaked == {}
    assert held_bytes(grid) == before


def test_people_read_what_it_is():
    grid = rc.VoxelGrid((0, 0, 0), 0.5, (4, 5, 6), "mean", features=3, device="cpu", backend="pytorch")
    assert repr(grid) == (
        "VoxelGrid(grid_min=(0.0, 0.0, 0.0), voxel_size=(0.5, 0.5, 0.5), grid_size=(4, 5, 6), mode='mean', features=3, "
        "outside='drop', device='cpu', backend='pytorch')"
    )
    assert grid.values.shape == (4, 5, 6, 3)
    assert not grid.values.any()


@pytest.mark.gpu
def test_a_capture_is_refused():
    grid = rc.VoxelGrid(*BOX, "count")
    points = cloud(20, device="cuda")
    grid.update(points)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        points.clone()  # PyTorch warns of a graph with nothing in it
        with pytest.raises(ArgumentError, match=r"^a VoxelGrid cannot be captured"):
            grid.update(points)
    assert is_right(grid, 1)


@pytest.mark.gpu
def test_updates_follow_the_current_stream():
    """Fails when a launch or a clear goes to the default stream, which here is held up."""
    grid = rc.VoxelGrid(*BOX, "count")
    clouds = [cloud(30, seed, "cuda") for seed in range(5)]
    grid.update(clouds[0])
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    torch.cuda._sleep(100_000_000)
    with torch.cuda.stream(side):
        for points in clouds[1:]:
            result = grid.update(points).to("cpu")
    assert torch.equal(result, counted(clouds[-1]))
