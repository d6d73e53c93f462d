"""`robocache doctor` launches where it can, and shows what it saw: to people and to machines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from robocache.ops import installation, launch
from robocache.ops.backends import OPERATIONS


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose kernels a Triton compiles that we do not know; the first operation's does not compile at all."""
    monkeypatch.setattr(installation, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(launch, "_PROBLEMS", set())

    def small_call(operation):
        if operation == OPERATIONS[0]:
            raise RuntimeError("ptxas was not found")
        kernel = {(1,): lambda *arguments, **options: SimpleNamespace(asm={})}
        prepared = launch.PreparedKernel(kernel, 1, (0,), (), {})
        tensor = torch.zeros(8)
        return lambda: prepared.launch((tensor,), 0)

    monkeypatch.setattr(installation, "_small_call", small_call)


WAY = "this Triton keeps its compiled kernels in another way: "


def test_a_slower_way_and_a_failure_are_shown_to_machines(gpu, document):
    """Fails when doctor asks before it launches, or stops at the first failure."""
    found = document("doctor")
    assert found["launches"] == {
        "resample_trajectories": "failed: RuntimeError: ptxas was not found",
        "fuse_multimodal": "launched",
        "voxelize_pointcloud": "launched",
    }
    (problem,) = found["launch_problems"]
    assert problem.startswith(WAY)


def test_a_slower_way_and_a_failure_are_shown_to_people(gpu, run):
    shown = run("doctor").stdout
    assert f"kernels are launched the slower way: {WAY}" in shown
    assert "ptxas was not found" in shown
    assert "the quick way" not in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_that_nothing_was_launched(document, run):
    found = document("doctor")
    assert set(found["launches"]) == set(OPERATIONS)
    assert set(found["launches"].values()) == {f"not launched: {found['cuda_problem']}"}
    assert found["launch_problems"] == []
    assert f"kernels: none was launched ({found['cuda_problem']})" in run("doctor").stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_operation_is_launched_the_quick_way(document, run):
    found = document("doctor")
    assert found["launches"] == dict.fromkeys(OPERATIONS, "launched")
    assert found["launch_problems"] == []
    assert "kernels are launched the quick way" in run("doctor").stdout
