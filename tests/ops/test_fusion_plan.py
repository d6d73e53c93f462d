"""A plan fuses what its tensors hold when it is called, into the same memory; and nothing is compiled for a size."""

from __future__ import annotations

import pytest
import torch

import robocache as rc
from robocache.errors import ArgumentError
from robocache.ops.fuse_multimodal import reference

POLICIES = [rc.Linear(max_gap=0.1), rc.Previous(), rc.Nearest()]


def streams(device, seed=0, batch=2, sizes=((9, 8), (30, 4), (70, 5)), targets=12, sliced=False):
    random = torch.Generator().manual_seed(seed)
    made = {}
    for index, (source, dim) in enumerate(sizes):
        data = torch.randn(batch, source, dim, generator=random).to(device)
        times = torch.rand(batch, source, generator=random).sort(1).values.to(device)
        if sliced:  # the last axis is not contiguous: a copy is needed at every call
            data = data.repeat_interleave(2, 2)[:, :, ::2]
        made[f"s{index}"] = rc.Stream(data, times, POLICIES[index % 3])
    return made, torch.rand(batch, targets, generator=random).to(device)


def expected(made, targets):
    parts = [rc.Stream(one.data.cpu(), one.times.cpu(), one.policy) for one in made.values()]
    data, times = [one.data for one in parts], [one.times for one in parts]
    return reference.fuse(data, times, targets.cpu(), [one.policy for one in parts], [None] * len(parts))


def check(result, made, targets):
    data, valid = expected(made, targets)
    torch.testing.assert_close(result.data.cpu(), data)
    assert torch.equal(result.valid.cpu(), valid)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("sliced", [False, True], ids=["contiguous", "sliced"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_plan_fuses_what_the_streams_hold_now(device, sliced):
    made, targets = streams(device, sliced=sliced)
    plan = rc.FusionPlan(made, targets)
    check(plan.result, made, targets)
    place = plan.result.data.data_ptr()
    for seed in range(1, 5):
        fresh, fresh_targets = streams(device, seed)
        for name, stream in fresh.items():
            made[name].data.copy_(stream.data)
            made[name].times.copy_(stream.times)
        targets.copy_(fresh_targets)
        result = plan()
        check(result, fresh, fresh_targets)
        assert result is plan.result
        assert result.data.data_ptr() == place


@pytest.mark.gpu
def test_a_captured_plan_replays_with_new_content():
    made, targets = streams("cuda")
    plan = rc.FusionPlan(made, targets, graph=True)
    fresh, fresh_targets = streams("cuda", seed=7)
    for name, stream in fresh.items():
        made[name].data.copy_(stream.data)
        made[name].times.copy_(stream.times)
    targets.copy_(fresh_targets)
    check(plan(), fresh, fresh_targets)


def test_what_a_plan_cannot_do_is_said():
    made, targets = streams("cpu")
    with pytest.raises(ArgumentError, match=r"^graph=True needs the cuda backend, but '(native|pytorch)' serves"):
        rc.FusionPlan(made, targets, graph=True)
    made["s0"].data.requires_grad_()
    with pytest.raises(ArgumentError, match=r"^streams\['s0'\]\.data requires a gradient"):
        rc.FusionPlan(made, targets)


@pytest.mark.gpu
@pytest.mark.usefixtures("ordinary_algorithms")
def test_two_hundred_sizes_compile_nothing_new():
    """Fails when a size is specialised: a plain integer in a tuple, or `do_not_specialize` left out for one."""
    from robocache.ops.fuse_multimodal.triton_kernel import _fuse_kernel
    from robocache.ops.voxelize_pointcloud.triton_count import count_kernel

    def variants():
        return [len(kernel.device_caches[torch.cuda.current_device()][0]) for kernel in (_fuse_kernel, count_kernel)]

    def run(seed):
        random = torch.Generator().manual_seed(seed)
        batch, source, targets, points = (int(torch.randint(1, 90, (), generator=random)) for _ in range(4))
        made, wanted = streams("cuda", seed, batch, ((source, 8), (source + 3, 4), (2 * source, 5)), targets)
        rc.fuse_streams(made, wanted)
        cloud = torch.randn(points, 3, generator=random).cuda()
        rc.voxelize_pointcloud(cloud, None, (-1, -1, -1), 0.1, (3, 3, 5))  # fewer points than voxels, or more
        return rc.voxelize_pointcloud(cloud, None, (-1, -1, -1), 0.1, (source, batch, targets), "count")

    run(0)
    before = variants()
    for seed in range(1, 201):
        run(seed)
    assert variants() == before
