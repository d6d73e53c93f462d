"""The detectors find what is left behind on a GPU, or pinned for it: controls, as in `test_controls.py`."""

from __future__ import annotations

import pytest
import torch

from robocache.stress.memory_leak import repeated_operation
from robocache.stress.settings import Settings, choose_device
from robocache.testing import Leak

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.gpu, pytest.mark.timeout(120)]


@pytest.fixture
def on_a_gpu():
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("what a GPU holds is counted on a GPU, and PyTorch finds none here")
    return Settings(seconds=2, batch_size=2, device="cuda")


def test_half_a_kilobyte_left_on_the_gpu_at_every_third_call_is_found(on_a_gpu):
    with Leak("tensor", every=3, device="cuda") as leak:
        report = repeated_operation("voxelize_pointcloud", on_a_gpu, iterations=1_500, after_iteration=leak)
    problems = " ".join(report.problems)
    assert "FAIL gpu_allocated_bytes" in problems
    assert "FAIL gpu_active_bytes" in problems


def test_pinned_memory_left_behind_is_found(on_a_gpu):
    kept = []

    def leak():
        kept.append(torch.zeros(4_096, dtype=torch.uint8).pin_memory())

    report = repeated_operation("voxelize_pointcloud", on_a_gpu, iterations=600, after_iteration=leak)
    assert "FAIL pinned_bytes" in " ".join(report.problems)


def test_nothing_left_behind_is_no_leak(on_a_gpu):
    report = repeated_operation("voxelize_pointcloud", on_a_gpu, iterations=1_500)
    assert report.problems == (), str(report)
