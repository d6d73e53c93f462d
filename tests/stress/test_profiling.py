"""`--profile`: a bounded window of iterations in a trace, and the operators that took longest in it."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from robocache.errors import ArgumentError, OutputError
from robocache.stress.profiling import IterationProfile
from robocache.stress.settings import choose_device

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
MATRIX = torch.ones(1000, 1000)  # its product takes longer than any wait for a core


def heavy(iteration):
    """One large product, and additions of less than a hundred-thousandth of its work."""
    torch.mm(MATRIX, MATRIX)
    torch.add(MATRIX[:3], iteration)


def profiled(profile, iterations):
    profile.start()
    run = profile.profiled(heavy)
    for iteration in range(iterations):
        run(iteration)
    return profile


def ranges_of(trace):
    events = trace["traceEvents"]
    return [each["name"] for each in events if each.get("cat") == "user_annotation" and "iteration" in each["name"]]


def test_the_window_and_nothing_else_is_in_the_trace(tmp_path):
    """Catches a window that is not closed, begins with the warm-up, or counts one too many."""
    path = tmp_path / "trace.json"
    profile = profiled(IterationProfile(path, first=3, iterations=4), 20)
    profile.close()
    trace = json.loads(path.read_text())
    assert ranges_of(trace) == [f"robocache: iteration {number}" for number in (3, 4, 5, 6)]
    products = [each for each in trace["traceEvents"] if each.get("name") == "aten::mm"]
    assert len(products) == 4
    assert {"ts", "dur", "pid", "tid", "ph"} <= products[0].keys()
    assert profile.notes() == [f"profile: 4 iterations in {path}"]


def test_the_longest_operator_comes_first(tmp_path):
    """Catches an order by name or by calls, and times that count what is called within twice."""
    profile = profiled(IterationProfile(tmp_path / "trace.json.gz", first=1, iterations=5), 10)
    first = profile.operators()[0]
    assert (first.name, first.calls) == ("aten::mm", 5)
    assert next(iter(profile.measured().values())) == str(first)
    assert str(first).startswith("aten::mm: 5 calls, ")
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        assert len(ranges_of(json.load(file))) == 5


def test_a_run_that_ends_within_the_window_writes_what_there_is(tmp_path):
    path = tmp_path / "trace.json"
    profile = profiled(IterationProfile(path, first=2, iterations=100), 5)
    assert profile.notes() == ["profile: under way after 3 iterations"]
    profile.close()
    profile.close()
    assert len(ranges_of(json.loads(path.read_text()))) == 3


def test_a_run_that_ends_before_the_window_says_so(tmp_path):
    path = tmp_path / "trace.json"
    profile = profiled(IterationProfile(path), 5)
    profile.close()
    assert not path.exists()
    assert profile.notes() == ["profile: none, since only 5 iterations were done, and it begins after 10"]


def test_where_it_cannot_be_written_is_said_before_the_run(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        IterationProfile(tmp_path / "none" / "trace.json").start()
    with pytest.raises(ArgumentError, match="iterations >= 1, got 10 and 0"):
        IterationProfile(tmp_path / "trace.json", iterations=0)


@pytest.mark.gpu
def test_kernels_are_in_the_trace(tmp_path):
    """Strict: a trace without kernels, or operators without their time on the GPU, fails."""
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("kernels need a GPU, and PyTorch finds none here")
    there = torch.ones(4_000, 4_000, device="cuda")
    path = tmp_path / "trace.json"
    profile = IterationProfile(path, first=2, iterations=3)
    run = profile.profiled(lambda _: there @ there)
    for iteration in range(8):
        run(iteration)
    profile.close()
    kernels = [each for each in json.loads(path.read_text())["traceEvents"] if each.get("cat") == "kernel"]
    assert len(kernels) >= 3
    assert profile.operators()[0].gpu_ms > 0
