"""After `warmup`, no size of the same call launches a kernel that was not compiled then."""

from __future__ import annotations

import importlib
from functools import partial

import pytest
import torch

import robocache as rc
from robocache.errors import ArgumentError
from robocache.ops import native_library, warming

ON_CPU = "pytorch" if native_library.PROBLEM else "native"
OPS = "robocache.ops"
POLICIES = [rc.Linear(max_gap=0.1), rc.Previous(), rc.Nearest()]


class Recorder:
    """Stands for a prepared kernel: notes what Triton would compile for, and launches nothing."""

    seen: set[object]

    def __init__(self, kernel, grid, groups, numbers, options):
        self._key = (kernel.__name__, groups, tuple(options.items()), tuple(map(wide, numbers)))

    def __call__(self, *tensors):
        self.launch(tensors, -1)

    def relaunch(self, items, device):
        return False

    def launch(self, tensors, device):
        self.seen.add((*self._key, tuple(tensor.dtype for tensor in tensors)))


def wide(number):
    return len(number) if isinstance(number, tuple) else number >= 2**31


@pytest.fixture
def recorder(monkeypatch):
    """The kernels chosen for tensors on a CPU, and recorded instead of run."""
    pytest.importorskip("triton")
    Recorder.seen = set()
    contracts = [importlib.import_module(f"{OPS}.{name}") for name in warming.OPERATIONS]
    grid = importlib.import_module(f"{OPS}.voxelize_pointcloud.grid")
    for module in (*contracts, grid, warming):
        monkeypatch.setattr(module, "choose_backend", lambda backend, device: backend or "cuda")
    for file in (
        "fuse_multimodal.triton_kernel",
        "voxelize_pointcloud.triton_kernel",
        "voxelize_pointcloud.triton_grid",
        "voxelize_pointcloud.tile_plan",
    ):
        monkeypatch.setattr(importlib.import_module(f"{OPS}.{file}"), "PreparedKernel", Recorder)
    monkeypatch.setattr(tile_plan(), "LEAST_BYTES", 1 << 16)
    monkeypatch.setattr(tile_plan(), "LEAST_POINTS", 1000)
    monkeypatch.setattr(warming, "compiled_kernels", lambda: len(Recorder.seen))
    for module in contracts:
        module._PLANS.clear()
    yield Recorder
    for module in contracts:
        module._PLANS.clear()


def tile_plan():
    return importlib.import_module(f"{OPS}.voxelize_pointcloud.tile_plan")


def streams(batch, source=9, device="cpu", dtype=torch.bfloat16):
    random = torch.Generator().manual_seed(batch)
    made = {}
    for index, (longer, dim) in enumerate(((0, 64), (3, 12), (30, 7))):
        data = torch.randn(batch, source + longer, dim, generator=random).to(dtype).to(device)
        times = torch.rand(batch, source + longer, generator=random).sort(1).values.to(device)
        lengths = torch.full((batch,), source, device=device) if index == 1 else None
        made[str(index)] = rc.Stream(data, times, POLICIES[index], lengths)
    return made


def calls(batch, device="cpu"):
    """One of each kind, of a batch and a number of points that follow from it."""
    made, targets = streams(batch, 5 + batch % 40, device), torch.rand(batch, 50, device=device)
    pairs = [part for one in made.values() for part in (one.data, one.times)]
    points, features = torch.rand(batch, 4, device=device), torch.rand(batch, 6, device=device)
    lone = streams(batch, 7, device, torch.float32)["0"]
    return (
        partial(rc.fuse_streams, made, targets),
        partial(rc.fuse_multimodal, *pairs, targets, return_valid=False),
        partial(rc.resample_trajectories, lone.data, lone.times, targets, return_valid=True),
        partial(rc.voxelize_pointcloud, points[:, :3], features, grid_size=(32, 16, 16), mode="max"),
    )


BATCHES = (1, 3, 16, 200, 999, 1000, 2000)  # from 1000 points on features are sorted into tiles


def test_other_sizes_of_an_example_need_no_other_kernel(recorder):
    """Fails when only the example itself is run: a few points have other kernels than many."""
    report = rc.warmup(*calls(3))
    assert report.kernels == len(recorder.seen) >= 7  # one for each call that resamples, more for the maximum
    assert report.reason is None
    assert set(report.backends.values()) == {"cuda"}
    before = set(recorder.seen)
    for batch in BATCHES:
        for call in calls(batch):
            call()
    assert recorder.seen == before


def test_a_single_run_of_the_example_is_not_enough(recorder):
    """The positive control: what the test above would see without `warmup`."""
    for call in calls(3):
        call()
    before = set(recorder.seen)
    for call in calls(2000):
        call()
    assert recorder.seen > before


@pytest.mark.parametrize(("mode", "width"), [("count", 0), ("mean", 5)])
def test_clouds_of_every_size_of_a_grid_are_covered(recorder, mode, width):
    """Fails when the second update, which is the first that clears, or the large cloud is left out."""
    grid = rc.VoxelGrid(grid_size=(16, 16, 16), mode=mode, features=width, device="cpu")

    def cloud(count):
        return (torch.rand(count, 3), torch.rand(count, width)) if width else (torch.rand(count, 3),)

    report = rc.warmup(partial(grid.update, *cloud(9)))
    assert report.backends == {"VoxelGrid": "cuda"}
    before = set(recorder.seen)
    for count in (0, 1, 5, 256, 257, 4000, 3):
        grid.update(*cloud(count))
    assert recorder.seen == before


def test_usual_calls_are_covered_without_examples(recorder):
    report = rc.warmup(widths=(64, 12, 7), device="cpu")
    assert set(report.backends) == {*warming.OPERATIONS, "fuse_streams"}
    before = set(recorder.seen)
    assert report.kernels == len(before)
    for batch in BATCHES:
        made = {name: rc.Stream(one.data, one.times) for name, one in streams(batch).items()}
        rc.fuse_streams(made, torch.rand(batch, 50))
        rc.resample_trajectories(made["1"].data, made["1"].times, torch.rand(batch, 50))
        rc.voxelize_pointcloud(torch.rand(batch, 3), mode="count")
    assert recorder.seen == before
    assert len(rc.warmup(operations=["voxelize_pointcloud"], device="cpu").backends) == 1


def test_data_that_will_need_a_gradient_is_run_as_it_will_be(recorder):
    """Fails when examples are detached: a fuse with a gradient also computes the validity, in another kernel."""
    data = torch.rand(2, 9, 8, requires_grad=True)
    times, targets = torch.rand(2, 9).sort(1).values, torch.rand(2, 5)
    rc.warmup(partial(rc.resample_trajectories, data, times, targets))
    before = set(recorder.seen)
    rc.resample_trajectories(data, times, targets)
    assert recorder.seen == before


def test_without_a_gpu_nothing_is_run_and_the_report_says_so():
    report = rc.warmup(device="cpu")
    assert report.kernels == 0
    assert report.reason == f"there is nothing to compile for {ON_CPU}"
    assert set(report.backends.values()) == {ON_CPU}
    grid = rc.VoxelGrid(device="cpu", backend="pytorch")
    grid.update(torch.zeros(5, 3))
    report = rc.warmup(partial(grid.update, torch.zeros(5, 3)))
    assert report.backends == {"VoxelGrid": "pytorch"}
    assert grid.values.sum() == 1


BAD = {
    "a lambda": (lambda: None, "examples must be functools.partial of an operation, got function"),
    "another": (partial(print, 1), "examples must be of resample_trajectories, .*, got 'print'"),
    "half": (partial(rc.resample_trajectories), "an example of resample_trajectories is not a whole call: missing"),
    "no tensor": (partial(rc.voxelize_pointcloud, 3), "an example of voxelize_pointcloud must hold tensors, got none"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_example_is_named(name):
    example, message = BAD[name]
    with pytest.raises(ArgumentError, match=f"^{message}"):
        rc.warmup(example)


def test_an_example_without_rows_is_refused(recorder):
    with pytest.raises(ArgumentError, match=r"^an example needs a row at least, got a tensor of shape \(0, 9, 64\)"):
        rc.warmup(partial(rc.fuse_streams, streams(0), torch.rand(0, 5)))
    with pytest.raises(ArgumentError, match=r"^operations must be of .*, got 'fuse'"):
        rc.warmup(operations=["fuse"])


@pytest.mark.gpu
@pytest.mark.usefixtures("ordinary_algorithms")
def test_after_it_fifty_batch_sizes_compile_nothing():
    """By Triton's own count."""
    grid = rc.VoxelGrid(grid_size=(16, 16, 16), mode="mean", features=6)
    report = rc.warmup(*calls(3, "cuda"), partial(grid.update, torch.rand(5, 3).cuda(), torch.rand(5, 6).cuda()))
    assert report.reason is None
    before = warming.compiled_kernels()
    assert before >= report.kernels > 0
    for batch in range(1, 2001, 40):
        for call in calls(batch, "cuda"):
            call()
        grid.update(torch.rand(batch, 3, device="cuda"), torch.rand(batch, 6, device="cuda"))
    assert warming.compiled_kernels() == before
