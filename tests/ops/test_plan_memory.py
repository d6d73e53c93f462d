"""What is remembered of calls is bounded, shared by threads, holds no tensor, and launches with the right pointers."""

from __future__ import annotations

import gc
import importlib
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.ops import allocation, direct_launch, plans, recent_calls, resample_trajectories
from robocache.ops.fuse_multimodal import reference
from robocache.policies import Linear, Nearest, Previous

pytestmark = pytest.mark.usefixtures("ordinary_algorithms")
CACHE = resample_trajectories.__globals__["_PLANS"]


@pytest.fixture(autouse=True)
def _nothing_remembered():
    CACHE.clear()
    yield
    CACHE.clear()


def stream(device, source=9, dim=3, targets=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    data, times = torch.randn(2, source, dim, generator=random), torch.rand(2, source, generator=random).sort(1).values
    return data.to(device), times.to(device), torch.rand(2, targets, generator=random).to(device)


def right(tensors, policy):
    result = rc.resample_trajectories(*tensors, policy=policy)
    torch.testing.assert_close(result, rc.resample_trajectories(*tensors, policy=policy, backend="pytorch"))


def test_threads_share_what_is_remembered(kernel_device):
    """Fails when a call is remembered piece by piece: another thread then finds one's guard with another's plan."""
    shapes = [(source, dim) for source in (5, 9, 12) for dim in (1, 4)]

    def repeat(seed):
        for turn in range(30):
            tensors = stream(kernel_device, *shapes[(seed + turn) % len(shapes)], seed=seed)
            right(tensors, Nearest() if turn % 3 else Linear())
        return seed

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(repeat, range(8))) == list(range(8))


def test_more_calls_than_are_remembered(kernel_device, monkeypatch):
    """Fails when either memory has no bound, or a call that was forgotten is not planned again."""
    monkeypatch.setattr(plans, "LIMIT", 8)
    sizes = []
    for _ in range(2):
        for targets in range(1, 20):
            right(stream(kernel_device, targets=targets), Linear())
            sizes.append((len(CACHE), len(CACHE._recent)))
    assert max(sizes) == (8, recent_calls.RECENT)


def test_calls_that_alternate_are_planned_once(kernel_device, monkeypatch):
    """Fails when a plan is thrown away as soon as its call is no longer among the recent ones."""
    planned = []
    remember = plans.PlanCache.remember
    monkeypatch.setattr(plans.PlanCache, "remember", lambda *call: planned.append(call[1]) or remember(*call))
    for _ in range(3):
        for targets in range(1, 3 * recent_calls.RECENT):
            rc.resample_trajectories(*stream(kernel_device, targets=targets), policy=Linear())
    assert len(planned) == 3 * recent_calls.RECENT - 1


def one_result(operation, device, targets):
    parts = [stream(device, dim=dim, targets=targets) for dim in (1, 4, 2)]
    wanted, pairs, points = parts[0][2], [x for part in parts for x in part[:2]], parts[0][0].expand(2, 9, 3)[0]
    if operation == "resample":
        return rc.resample_trajectories(*parts[1], return_valid=True)[1]
    if operation == "fuse":
        lengths = [torch.full((2,), 7, device=device), None, None]
        return rc.fuse_multimodal(*pairs, wanted, lengths=lengths)
    if operation == "streams":
        return rc.fuse_streams({"a": rc.Stream(*pairs[:2])}, wanted).data
    features = None if operation == "count" else points
    return rc.voxelize_pointcloud(points, features, (-1.0, -1.0, -1.0), 0.5, (4, 4, targets), operation)


@pytest.mark.parametrize("operation", ["resample", "fuse", "streams", "count", "sum"])
def test_no_tensor_is_kept_alive(operation, kernel_device, monkeypatch):
    """Fails when a plan, a guard or a key holds one of the tensors it was made with, or gave."""
    seen = []
    original = plans.PlanCache.remember_recent

    def watched(self, how, tensors, found):
        seen.extend(weakref.ref(one) for one in tensors)
        return original(self, how, tensors, found)

    monkeypatch.setattr(plans.PlanCache, "remember_recent", watched)
    sizes = (11, 11, 13)  # which no other test has
    seen += [weakref.ref(one_result(operation, kernel_device, targets)) for targets in sizes]
    gc.collect()
    assert len(seen) > len(sizes)
    assert [one for one in seen if one() is not None] == []


def test_without_guards_every_call_is_found_and_that_is_said(kernel_device, monkeypatch, capsys):
    """Fails when a PyTorch whose guards are another is not told, or not served."""
    others = [] if direct_launch.QUICK_PROBLEM is None else [direct_launch.QUICK_PROBLEM]
    assert rc.check_installation()["call_problems"] == others
    monkeypatch.setattr(recent_calls, "_PROBLEM", "a made-up reason")
    for _ in range(3):
        right(stream(kernel_device), Linear())
    assert (len(CACHE), len(CACHE._recent)) == (2, 0)
    assert rc.check_installation()["call_problems"] == ["a made-up reason", *others]
    rc.print_installation_info()
    assert "slower calls: a made-up reason" in capsys.readouterr().out


def test_guards_that_misbehave_are_found_out(monkeypatch):
    """The control of the trial itself."""
    assert recent_calls._misbehaviour() is None
    guard = recent_calls._guard
    monkeypatch.setattr(recent_calls, "_guard", lambda tensors: lambda *others: True)
    assert "accept another shape and rank and strides and dtype" in recent_calls._misbehaviour()
    monkeypatch.setattr(recent_calls, "_guard", lambda tensors: lambda *others: False)
    assert "refuse tensors that are alike" in recent_calls._misbehaviour()
    monkeypatch.setattr(recent_calls, "_guard", lambda tensors: guard((tensors[0],)))
    assert "no tensor guards as they are known: TypeError" in recent_calls._misbehaviour()


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 0, 3), (0,), (4, 1)], ids=str)
def test_an_allocator_gives_what_torch_empty_gives(shape, kernel_device, monkeypatch):
    """Fails when strides are computed wrongly, or the mode or the flag of the moment is not looked at."""
    device = torch.zeros((), device=kernel_device).device
    allocate = allocation.allocator(shape, torch.float16, device)
    expected = torch.empty(shape, dtype=torch.float16, device=kernel_device)
    made = allocate()
    for name in ("shape", "dtype", "device", "layout", "requires_grad"):
        assert getattr(made, name) == getattr(expected, name)
    assert made.stride() == expected.stride()
    with torch.inference_mode():
        assert allocate().is_inference()
    assert not allocate().is_inference()
    torch.use_deterministic_algorithms(mode=True)
    assert allocate().isnan().all()
    monkeypatch.setattr(allocation, "_function", lambda device_type: torch.empty)
    allocation._problem.cache_clear()
    try:
        assert allocation._problem(device) is not None
    finally:
        allocation._problem.cache_clear()


def direct(launched, current_device):
    """Stands for a direct launch: notes its pointers, where it would enqueue."""

    def enqueue(device, items):
        pointers = [one if isinstance(one, int) else one.data_ptr() for one in items]
        if device != current_device or any(pointer % 16 for pointer in pointers):
            return False
        launched.append(tuple(pointers))
        return True

    return enqueue


WAYS = [(False, None), (True, None), (False, (0,)), (True, (0, 2)), (True, (0, 1, 2))]


@pytest.mark.parametrize(("with_valid", "counted"), WAYS, ids=str)
@pytest.mark.parametrize("is_sliced", [False, True], ids=["contiguous", "sliced"])
def test_the_kernel_gets_its_tensors_in_its_order(with_valid, counted, is_sliced, kernel_device, monkeypatch):
    """Fails when `_kernel_order` exchanges two tensors, or an unaligned one is launched as if it were aligned."""
    kernels = pytest.importorskip("robocache.ops.fuse_multimodal.triton_kernel")
    parts = [stream(kernel_device, source, 4, seed=source) for source in (9, 20, 30)]
    data, times, targets = [part[0] for part in parts], [part[1] for part in parts], parts[0][2]
    if is_sliced:
        data = [one.repeat_interleave(2, 2)[:, :, ::2] for one in data]
    policies, lengths = [Linear(max_gap=0.2), Previous(), Nearest()], [None] * 3
    for index in counted or ():
        lengths[index] = torch.tensor([5, 8], device=kernel_device)
    plan = kernels.FusePlan(data, times, targets, policies, lengths, with_valid=with_valid)
    tensors = kernels.flat(data, times, targets, lengths)
    on_host = [[None if one is None else one.cpu() for one in some] for some in (data, times, lengths)]
    wanted, wanted_valid = reference.fuse(*on_host[:2], targets.cpu(), policies, on_host[2])
    for _ in range(3):
        with np.errstate(all="ignore"):
            out, valid = plan(tensors)
        torch.testing.assert_close(out.cpu(), wanted)
        assert (valid is not None) is with_valid
        assert valid is None or torch.equal(valid.cpu(), wanted_valid)
    launched = []
    monkeypatch.setattr(plan._kernel, "_direct", direct(launched, targets.get_device()))
    out, valid = plan(tensors)
    there = [targets if length is None else length for length in lengths]
    last = (targets, targets if valid is None else valid, out)
    expected = [one.data_ptr() for one in (*data, *times, *there, *last)]
    assert len(launched) == 1
    assert list(launched[0])[3 if is_sliced else 0 :] == expected[3 if is_sliced else 0 :]
    shifted = torch.empty(41, device=kernel_device)[1:].view(2, 20)
    with np.errstate(all="ignore"):
        again, _ = plan((*tensors[:4], shifted.copy_(times[1]), *tensors[5:]))
    torch.testing.assert_close(again.cpu(), wanted)
    assert len(launched) == 1


def test_a_bound_plan_is_launched_again_with_the_same_pointers(kernel_device, monkeypatch):
    """Fails when a plan forgets what it was bound to, or takes the direct way on another current device."""
    kernels = importlib.import_module("robocache.ops.fuse_multimodal.triton_kernel")
    tensors = stream(kernel_device)
    plan = kernels.FusePlan(*([one] for one in tensors[:2]), tensors[2], [Linear()], [None], with_valid=True)
    into = plan(tensors)
    again, launched = plan.bound(tensors, into), []
    monkeypatch.setattr(plan._kernel, "_direct", direct(launched, tensors[0].get_device()))
    again()
    data, times, targets = (one.data_ptr() for one in tensors)
    assert launched == [(data, times, targets, targets, into[1].data_ptr(), into[0].data_ptr())]
    into[0].zero_()
    monkeypatch.setattr(plan._kernel, "_direct", direct(launched, tensors[0].get_device() + 1))
    again()
    assert len(launched) == 1
    torch.testing.assert_close(into[0], rc.resample_trajectories(*tensors, backend="pytorch"))
