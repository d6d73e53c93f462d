"""A tensor that only stands for one, in any argument, reaches no kernel: its address would be nowhere."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import robocache as rc

CALLS = {
    "resample": (("data", "times", "targets", "lengths"), lambda a: rc.resample_trajectories(
        a["data"], a["times"], a["targets"], lengths=a["lengths"])),
    "fuse": (("data", "times", "targets", "lengths"), lambda a: rc.fuse_multimodal(
        *(a["data"], a["times"]) * 3, a["targets"], lengths=[None, a["lengths"], None])),
    "voxelize": (("points", "features", "offsets"), lambda a: rc.voxelize_pointcloud(
        a["points"], a["features"], grid_size=(3, 4, 5), mode="mean", offsets=a["offsets"])),
}  # fmt: skip


def arguments(device):
    return {
        "data": torch.rand(2, 5, 3, device=device),
        "times": torch.arange(5.0, device=device).repeat(2, 1),
        "targets": torch.rand(2, 4, device=device),
        "lengths": torch.tensor([3, 4], device=device),
        "points": torch.rand(6, 3, device=device),
        "features": torch.rand(6, 2, device=device),
        "offsets": torch.tensor([0, 2, 6], device=device),
    }


@pytest.mark.parametrize(("name", "stand_in"), [(name, one) for name, (all_of, _) in CALLS.items() for one in all_of])
def test_one_stand_in_among_real_tensors(kernel_device, name, stand_in):
    """Fails, by ending the process, when only the data is asked what it is: twice, since a plan may be remembered."""
    call, real = CALLS[name][1], arguments(kernel_device)
    shape = call(real).shape
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for _ in range(2):
        result = call(real | {stand_in: mode.from_tensor(real[stand_in])})
        assert isinstance(result, FakeTensor)
        assert result.shape == shape
    assert not isinstance(call(real), FakeTensor)
