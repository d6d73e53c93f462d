"""A call like the last is known again; one that differs in anything that matters is not, and is right all the same."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import robocache as rc
from robocache.errors import ArgumentError, DTypeError, RoboCacheError
from robocache.ops import checks, fuse_multimodal, plans, resample_trajectories, voxelize_pointcloud
from robocache.policies import Linear, Previous

BOX = ((0.0, 0.0, 0.0), 1.0, (4, 4, 4))


def caches():
    """The plans of each operation; the package shows functions under the modules' names."""
    functions = (fuse_multimodal, resample_trajectories, voxelize_pointcloud)
    return [function.__globals__["_PLANS"] for function in functions]


@pytest.fixture(autouse=True)
def way(monkeypatch, ordinary_algorithms, both_ways_to_recall):
    """Which way the last call went: recalled, found, planned, or "full" where nothing was remembered for it."""
    for cache in caches():
        cache.clear()
    ways = ["full"]

    def watch(name, says):
        original = getattr(plans.PlanCache, name)

        def watched(self, *arguments):
            result = original(self, *arguments)
            if result is not None or name == "remember":
                ways[0] = says
            return result

        monkeypatch.setattr(plans.PlanCache, name, watched)

    watch("recall", "recalled")
    watch("find", "found")
    watch("remember", "planned")

    def last():
        result, ways[0] = ways[0], "full"
        return result

    yield last
    for cache in caches():
        cache.clear()


def stream(device, shape=(2, 9, 3), dtype=torch.float32, seed=0, targets=5):
    random = torch.Generator().manual_seed(seed)
    data = torch.randn(shape, generator=random).to(dtype).to(device)
    times = torch.rand(shape[:2], generator=random).sort(1).values.to(device)
    return data, times, torch.rand(shape[0], targets, generator=random).to(device)


def right(data, times, targets, **how):
    """Compare with the portable backend, and one column with numpy where that knows the policy."""
    result = rc.resample_trajectories(data, times, targets, **how)
    expected = rc.resample_trajectories(data, times, targets, **how | {"backend": "pytorch"})
    for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (result, expected)), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    if not how:
        columns = (x.detach().cpu().double().numpy() for x in (targets[0], times[0], data[0, :, 0]))
        np.testing.assert_allclose(result[0, :, 0].detach().cpu().double().numpy(), np.interp(*columns), 1e-2, 1e-2)
    return result


def calls(device):
    """Each operation, with tensors of its own at every call."""
    parts = [stream(device, (2, 9, width), seed=width) for width in (1, 4, 2)]
    points, features = torch.rand(30, 3).to(device) * 5, torch.randn(30, 2).to(device)
    named = {str(k): rc.Stream(data.clone(), times.clone()) for k, (data, times, _) in enumerate(parts)}

    def fuse(backend=None):
        pairs = [x.clone() for part in parts for x in part[:2]]
        return rc.fuse_multimodal(*pairs, parts[0][2].clone(), backend=backend)

    return {
        "resample": lambda backend=None: rc.resample_trajectories(*(x.clone() for x in parts[1]), backend=backend),
        "fuse": fuse,
        "streams": lambda backend=None: rc.fuse_streams(named, parts[0][2].clone(), backend=backend).data,
        "count": lambda backend=None: rc.voxelize_pointcloud(points.clone(), None, *BOX, "count", backend=backend),
        "sum": lambda backend=None: rc.voxelize_pointcloud(points.clone(), features, *BOX, "sum", backend=backend),
    }


@pytest.mark.parametrize("operation", ["resample", "fuse", "streams", "count", "sum"])
def test_a_call_like_the_last_is_recalled(operation, kernel_device, way):
    """Fails when `remember_recent` keeps nothing, or `recall` accepts nothing."""
    call = calls(kernel_device)[operation]
    expected = call("pytorch")
    assert way() == "planned"
    for wanted in ("planned", "recalled", "recalled"):
        torch.testing.assert_close(call(), expected)
        assert way() == wanted


CHANGES = {
    "shape": lambda d, t, g: (d[:, :7].contiguous(), t[:, :7].contiguous(), g),
    "rows": lambda d, t, g: (d[:1], t[:1], g[:1]),
    "targets": lambda d, t, g: (d, t, g[:, :3].contiguous()),
    "stride": lambda d, t, g: (d.transpose(1, 2).contiguous().transpose(1, 2), t, g),
    "stride_of_times": lambda d, t, g: (d, t.t().contiguous().t(), g),
    "dtype": lambda d, t, g: (d.half(), t, g),
    "dtype_of_times": lambda d, t, g: (d, t.double(), g.double()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_tensors_are_not_recalled(change, kernel_device, way):
    """Fails when a guard leaves out sizes, strides or dtypes: each change gives what numpy gives, there and back."""
    before = stream(kernel_device)
    right(*before)
    after = CHANGES[change](*stream(kernel_device, seed=1))
    for tensors, wanted in ((after, "planned"), (before, "recalled"), (after, "recalled")):
        rc.resample_trajectories(*tensors)
        assert way() == wanted
        right(*tensors)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"policy": Linear()}, "recalled"),  # another object, of the same value
        ({"policy": Linear(max_gap=0.01, outside="nan")}, "planned"),
        ({"policy": Previous()}, "planned"),
        ({"return_valid": True}, "planned"),
        ({"backend": "pytorch"}, "planned"),
        ({"lengths": [3, 9]}, "planned"),
    ],
    ids=str,
)
def test_other_arguments_are_not_recalled(how, wanted, kernel_device, way):
    """Fails when one of them is left out of `how`; compared by value, since loops write policies inside the call."""
    tensors = stream(kernel_device)
    rc.resample_trajectories(*tensors)
    how = {name: torch.tensor(x, device=kernel_device) if name == "lengths" else x for name, x in how.items()}
    rc.resample_trajectories(*tensors, **how)
    assert way() == wanted
    right(*tensors, **how)
    rc.resample_trajectories(*tensors)
    assert way() == "recalled"


def test_gradients_reach_autograd(kernel_device, way):
    """Fails when a tensor that wants a gradient is remembered, such as one seen under `no_grad`."""
    data, times, targets = stream(kernel_device)
    right(data, times, targets)
    leaf = data.clone().requires_grad_()
    with torch.no_grad():
        for _ in range(2):
            assert not right(leaf, times, targets).requires_grad
            assert way() == "found"
    result = rc.resample_trajectories(leaf, times, targets)
    assert way() == "full"
    result.sum().backward()
    expected = leaf.detach().clone().requires_grad_()
    rc.resample_trajectories(expected, times, targets, backend="pytorch").sum().backward()
    torch.testing.assert_close(leaf.grad, expected.grad)
    assert not right(leaf.detach(), times, targets).requires_grad


class Labelled(torch.Tensor):
    pass


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_what_a_plan_is_not_for_takes_the_full_way(kernel_device, way):
    """Fails when `may_plan` forgets one of the states, or a guard the class."""
    data, times, targets = stream(kernel_device)
    right(data, times, targets)
    assert way() == "planned"
    kinds = [torch.nn.Parameter(data, requires_grad=False), data.as_subclass(Labelled)]
    for kind in kinds:
        right(kind, times, targets)
        assert way() == "full"
    batched = torch.stack([data, data + 1])
    mapped = torch.vmap(lambda one: rc.resample_trajectories(one, times, targets))(batched)
    captured = torch.vmap(lambda one: rc.resample_trajectories(data, times, targets) + one)(
        torch.zeros(2, device=kernel_device)
    )
    with torch.autograd.forward_ad.dual_level():
        rc.resample_trajectories(data, times, targets)
    with Watching():
        rc.resample_trajectories(data, times, targets)
    assert way() == "full"
    for row in range(2):
        torch.testing.assert_close(mapped[row], right(batched[row], times, targets))
        torch.testing.assert_close(captured[row], right(data, times, targets))
    with torch.inference_mode():
        assert right(data, times, targets).is_inference()
        way()
        rc.resample_trajectories(data, times, targets)
        assert way() == "recalled"
    assert not right(data, times, targets).is_inference()


def test_the_environment_counts_at_every_call(kernel_device, way, monkeypatch):
    """Fails when the variable is read once, or only from the dictionary that `os.environ` had at first."""
    data, times, targets = stream(kernel_device)
    right(data, times, targets)
    for value in ("1", "0", "1"):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", value)
        assert checks.validates_values() is (value == "1")
    with pytest.raises(ArgumentError, match="must ascend"):
        rc.resample_trajectories(data, times.flip(1), targets)
    monkeypatch.delenv("ROBOCACHE_VALIDATE")
    rc.resample_trajectories(data, times, targets)
    assert way() == "recalled"
    monkeypatch.setattr(os, "environ", {**os.environ, "ROBOCACHE_VALIDATE": "1"})
    assert checks.validates_values()


def test_streams_on_one_clock_are_recalled_and_others_are_not_taken_for_them(kernel_device, way):
    """Fails when a tensor given twice is never known again, or two tensors are taken for one."""
    (data, clock, targets), (_, other, _) = stream(kernel_device), stream(kernel_device, seed=1)

    def fuse(first, second, how=None, backend=None):
        tensors = (data, first, data, second, data, first, targets)
        return rc.fuse_multimodal(*tensors, lengths=how, backend=backend)

    counts = torch.tensor([3, 9], device=kernel_device)
    for how in (None, [None, counts, None], [counts, None, counts]):
        for first, second in ((clock, clock), (clock, other), (other, clock), (clock, clock)):
            expected = fuse(first, second, how, "pytorch")
            torch.testing.assert_close(fuse(first, second, how), expected)
            way()
            torch.testing.assert_close(fuse(first, second, how), expected)
            assert way() == "recalled"
        one, times, _ = stream(kernel_device, (2, 9, 4), seed=2)
        tensors = (data, clock, one, times, data, clock, targets)
        expected = rc.fuse_multimodal(*tensors, lengths=how, backend="pytorch")
        torch.testing.assert_close(rc.fuse_multimodal(*tensors, lengths=how), expected)


def test_voxels_know_their_grid_and_the_deterministic_flag(kernel_device, way):
    """Fails when a number, a list's contents or the flag is left out of `how`."""
    points, features = torch.rand(40, 3, device=kernel_device) * 6 - 1, torch.ones(40, 1, device=kernel_device)
    offsets = torch.tensor([0, 10, 40], device=kernel_device)
    corner = [0.0, 0.0, 0.0]

    def voxels(wanted, *grid, **how):
        result = rc.voxelize_pointcloud(points, features, *grid, **how)
        assert way() == wanted
        expected = rc.voxelize_pointcloud(points, features, *grid, **how | {"backend": "pytorch", "out": None})
        torch.testing.assert_close(result, expected)
        way()

    voxels("planned", corner, *BOX[1:], "sum")
    voxels("recalled", tuple(corner), *BOX[1:], "sum")
    corner[0] = 0.5
    voxels("planned", corner, *BOX[1:], "sum")
    voxels("planned", corner, 2.0, BOX[2], "sum")
    voxels("planned", corner, 2.0, (4, 4, 5), "sum")
    voxels("planned", corner, 2.0, (4, 4, 5), "mean")
    voxels("planned", corner, 2.0, (4, 4, 5), "mean", outside="clamp")
    voxels("planned", corner, 2.0, (4, 4, 5), "mean", offsets=offsets)
    voxels("planned", corner, 2.0, (4, 4, 5), "mean", out=torch.empty(4, 4, 5, 1, device=kernel_device))
    voxels("recalled", corner, 2.0, (4, 4, 5), "mean", out=torch.empty(4, 4, 5, 1, device=kernel_device))
    torch.use_deterministic_algorithms(mode=True)
    voxels("planned", corner, 2.0, (4, 4, 5), "mean")


def test_what_is_no_plain_tensor_fails_as_ever(kernel_device, way):
    """Fails when a guard is asked about a nested tensor, which ends the process, or about an array."""
    data, times, targets = stream(kernel_device)
    right(data, times, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that they are a prototype
        nested = torch.nested.nested_tensor([data[0], data[1]])
    for wrong in (nested, data.cpu().to_sparse(), times.cpu().numpy(), None, [1.0]):
        for tensors in ((wrong, times, targets), (data, wrong, targets), (data, times, wrong)):
            with pytest.raises(ArgumentError, match=r"must be a (torch\.Tensor|dense tensor)"):
                rc.resample_trajectories(*tensors)
    for policy in (data, np.ones(2), [Linear()], "Linear"):
        with pytest.raises(ArgumentError, match="must be a robocache policy"):
            rc.resample_trajectories(data, times, targets, policy=policy)
    with pytest.raises(RoboCacheError):
        rc.resample_trajectories(data.to("meta"), times, targets)
    with pytest.raises(DTypeError):
        rc.resample_trajectories(data.int(), times, targets)
    right(data, times, targets)
