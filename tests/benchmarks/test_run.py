"""Whole runs on tiny cases: everyone is checked, the wrong are not timed, the absent are named."""

from __future__ import annotations

import json

import pytest
import torch

from robocache.benchmarks import run
from robocache.benchmarks.peers_optional import optional_peers
from robocache.benchmarks.workloads import QUICK_LIMIT_BYTES, _size_bytes, workloads
from robocache.errors import ArgumentError
from robocache.ops import native_library
from robocache.ops.fuse_multimodal import torch_backend as fuse_torch
from robocache.ops.resample_trajectories import torch_backend as resample_torch
from robocache.ops.voxelize_pointcloud import torch_backend as voxelize_torch

FUSE = "fuse_30x512_100x64_200x12_to_50_b4"
RESAMPLE = "resample_1024x1000x64_to_500"


def entries(case):
    return {one["name"]: one for one in case["results"]}


def test_every_promised_case_is_right_everywhere(measured):
    """Fails when a peer or a backend computes something else than the reference, or a case of an op is left out."""
    document = measured()
    names = [case["name"] for case in document["cases"]]
    assert len(names) == len(set(names)) == 15
    for case in document["cases"]:
        assert case["scaled"]
        status = {name: one["status"] for name, one in entries(case).items()}
        assert "wrong" not in status.values(), case
        assert "failed" not in status.values(), case
        expected = {"pytorch", "torch eager", "numpy"} | ({"native"} if native_library.PROBLEM is None else set())
        assert {name for name, one in status.items() if one == "measured"} >= expected
        assert status["cuda"] == "absent"
        for one in entries(case).values():
            assert ("times" in one) == (one["status"] == "measured") == ("reason" not in one)
    assert run.faults(document) == []
    assert document["scaling"] is None
    assert document["settings"]["threads"] == 1
    json.dumps(document, allow_nan=False)


def test_ratios_and_shares_are_those_of_the_times(measured):
    """Fails when a ratio is turned round, or taken from another row."""
    (case,) = measured("count_500k_to_128")["cases"]
    found = entries(case)
    ours = found["pytorch"]
    for peer in ("torch eager", "numpy", "numpy.histogramdd"):
        assert ours["ratios"][peer] == found[peer]["times"]["wall_us"] / ours["times"]["wall_us"]
    assert ours["share"] == case["floor_us"] / ours["times"]["wall_us"]
    assert case["needed_bytes"] == 7812 * 12 + 32**3 * 4


def spoilt(function):
    """The same, but with one number of the result a little off."""

    def spoil(*arguments, **options):
        result = function(*arguments, **options)
        values = result[0] if isinstance(result, tuple) else result
        values.flatten()[-1] += 1
        return result

    return spoil


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        (FUSE, fuse_torch, "fuse"),
        (RESAMPLE, resample_torch, "resample_trajectories"),
        ("occupancy_500k_to_128", voxelize_torch, "voxelize_pointcloud"),
    ],
)
def test_a_wrong_backend_is_reported_and_not_timed(measured, monkeypatch, name, module, function):
    """Fails when a wrong result is timed, or makes the right ones beside it wrong."""
    monkeypatch.setattr(module, function, spoilt(getattr(module, function)))
    document = measured(name)
    found = entries(document["cases"][0])
    assert found["pytorch"]["status"] == "wrong"
    assert "against the reference 1 of" in found["pytorch"]["reason"]
    assert "times" not in found["pytorch"]
    assert found["torch eager"]["status"] == found["numpy"]["status"] == "measured"
    (line,) = run.faults(document)
    assert line.startswith(f"{name}: pytorch is wrong: against the reference")


def test_a_backend_that_raises_is_reported(measured, monkeypatch):
    """Fails when an exception ends the run, or is taken for an absence."""

    def fail(*_):
        raise RuntimeError("no such kernel image")

    calls = []

    def fail_later(*arguments):
        calls.append(arguments)
        return fail() if len(calls) > 1 else original(*arguments)

    original = voxelize_torch.voxelize_pointcloud
    monkeypatch.setattr(voxelize_torch, "voxelize_pointcloud", fail_later)  # the first call is the judge's
    document = measured("max_1M_x8_to_256")
    found = entries(document["cases"][0])
    assert found["pytorch"] == {
        "name": "pytorch",
        "kind": "backend",
        "status": "failed",
        "reason": "RuntimeError: no such kernel image",
    }
    assert run.faults(document) == ["max_1M_x8_to_256: pytorch is failed: RuntimeError: no such kernel image"]


def test_threads_are_given_back(measured):
    """Fails when a run leaves PyTorch with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measured("count_500k_to_128")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_gpu_cases_are_those_of_the_operations_and_whole():
    """Fails when a GPU run cuts a case down or leaves one out."""
    whole = workloads("cuda")
    assert len(whole) == 12
    assert all(one.scaled is None for one in whole)


def test_cut_down_cases_say_so_and_fit():
    """Fails when a case is cut without a word, or stays larger than the limit."""
    by_name = {one.name: one for one in workloads("cpu")}
    assert by_name[FUSE].scaled is None
    assert by_name["fuse_30x512_100x64_200x12_to_50_b2048"].scaled == "batch 512 instead of batch 2048"
    assert by_name["mean_1M_x8_to_256"].scaled == "125000 points to 128 instead of 1000000 points to 256"
    assert all(_size_bytes(one.case) <= QUICK_LIMIT_BYTES for one in workloads("cpu", quick=True))


def test_cases_are_chosen_by_name_or_pattern():
    """Fails when a pattern takes too many, or a mistyped one silently none."""
    assert {one.operation for one in workloads("cuda", wanted=["fuse*"])} == {"fuse_multimodal"}
    assert [one.name for one in workloads("cuda", wanted=["count_500k_to_128"])] == ["count_500k_to_128"]
    with pytest.raises(ArgumentError, match=r"no benchmark case is called 'foo'; there are fuse_30x512"):
        workloads("cuda", wanted=["fuse*", "foo"])


@pytest.mark.filterwarnings("ignore")  # of Open3D's own dependencies
def test_open3d_agrees_where_it_is_installed():
    """Fails when Open3D's grid is read wrongly: axes, corner or size."""
    pytest.importorskip("open3d", exc_type=ImportError)
    (workload,) = workloads("cpu", quick=True, wanted=["occupancy_500k_to_128"])
    problem = workload.problem("cpu")
    peer, _ = optional_peers(problem)
    ours = problem.call("pytorch")()
    assert int((peer.read(peer.run()) != ours).sum()) <= 1e-4 * ours.numel()


@pytest.mark.gpu
def test_a_quick_run_on_the_gpu():
    """Fails when the GPU's timer cannot capture a backend or a peer, or gives a time that is none."""
    settings = run.Settings("cuda", quick=True, with_compile=False)
    document = run.measure(settings, workloads("cuda", quick=True), lambda _: None)
    assert run.faults(document) == []
    assert document["copy_bytes_per_s"] > 1e10
    for case in document["cases"]:
        found = entries(case)
        for name in ("cuda", "pytorch", "torch eager"):
            assert found[name]["status"] == "measured", found[name]
            assert all(value > 0 for value in found[name]["times"].values())
    assert [entry["faults"] for entry in document["scaling"]] == [[], []]
