"""Every detector finds the fault that it is there for: products broken on purpose, run in the same suite."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from robocache import ops
from robocache.errors import ArgumentError
from robocache.stress import burn_in as burn_in_module
from robocache.stress import repeated_allocation as repeated_allocation_module
from robocache.stress.burn_in import Check, Hooks, burn_in
from robocache.stress.concurrency import concurrent_inference
from robocache.stress.exceptions import exceptions
from robocache.stress.memory_leak import repeated_operation
from robocache.stress.monitor import Monitor
from robocache.stress.repeated_allocation import repeated_allocation
from robocache.stress.settings import Settings, choose_device
from robocache.testing import Leak

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
SHORT = Settings(seconds=2, batch_size=2, device=choose_device({}))
FUSE, VOXELIZE = ops.fuse_multimodal, ops.voxelize_pointcloud


def every(count, fault):
    """A call counter: true at each `count`-th call. Broken only now and then is harder to find."""
    calls = itertools.count(1)
    return lambda result: fault(result) if next(calls) % count == 0 else result


def next_but_one(fused):
    """Two roundings away."""
    return (fused.view(torch.int16) + 2).view(fused.dtype)


def one_nan(fused):
    fused[0, 0, 0] = torch.nan
    return fused


def one_voxel_less(grid):
    grid.view(-1)[grid.view(-1).argmax()] = 0
    return grid


RESULT_FAULTS = {
    "a_fuse_two_roundings_off": ("fuse_multimodal", next_but_one),
    "a_nan_in_a_fuse": ("fuse_multimodal", one_nan),
    "a_fuse_in_another_dtype": ("fuse_multimodal", torch.Tensor.float),
    "a_fuse_one_row_short": ("fuse_multimodal", lambda fused: fused[:, 1:]),
    "a_point_lost": ("voxelize_pointcloud", one_voxel_less),
    "counts_for_occupancy": ("voxelize_pointcloud", lambda grid: grid * 2),
}


@pytest.mark.parametrize("fault", RESULT_FAULTS)
def test_the_burn_in_finds_wrong_results(fault, monkeypatch):
    name, spoil = RESULT_FAULTS[fault]
    good, spoiled = getattr(ops, name), every(5, spoil)
    monkeypatch.setattr(ops, name, lambda *args, **kwargs: spoiled(good(*args, **kwargs)))
    report = burn_in(Settings(seconds=1, batch_size=2, device=SHORT.device))
    assert [failure for failure in report.failures if "elements of the results are wrong after" in failure]


def test_the_burn_in_finds_an_operation_that_keeps_writing_to_its_result(monkeypatch):
    kept = VOXELIZE(torch.zeros(1, 3, device=SHORT.device))

    def voxelize(*args, **kwargs):
        return kept.copy_(VOXELIZE(*args, **kwargs))  # right when it returns, overwritten by the next call

    monkeypatch.setattr(ops, "voxelize_pointcloud", voxelize)
    assert burn_in(Settings(seconds=1, device=SHORT.device)).failures


@pytest.mark.parametrize(
    ("kind", "counter", "times"),
    [("tensor", "tensors", 1), ("object", "python_blocks", 20), ("file", "open_files", 1)],
)
def test_the_burn_in_finds_a_leak_in_150_readings(kind, counter, times):
    """One object an iteration is within the budget of a day where a machine makes fewer than 20 iterations a second."""
    with Leak(kind) as leak:
        lines, report = burn_in_of_150_readings(lambda: [leak() for _ in range(times)])
    assert f"FAIL {counter}" in " ".join(report.problems)
    assert lines[-1].startswith("✗ Burn-in failed after ")


def test_the_burn_in_finds_one_tensor_lost_in_ten_iterations():
    with Leak("tensor", every=10) as leak:
        _, report = burn_in_of_150_readings(leak)
    assert "FAIL tensors" in " ".join(report.problems)


def burn_in_of_150_readings(after_iteration):
    """As long as it takes, however slow the machine is; a reading after each iteration, however fast it is."""
    lines, monitors, keep = [], [], Monitor.__init__

    def watched(self, *args, **kwargs):
        keep(self, *args, **kwargs)
        monitors.append(self)

    def should_stop():
        return monitors[0].readings >= 150

    hooks = Hooks(lines=lines.append, after_iteration=after_iteration, should_stop=should_stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "__init__", watched)
        settings = Settings(seconds=80, batch_size=2, device=SHORT.device)
        return lines, burn_in(settings, hooks, readings=5_000, reading_share=1.0)


def test_a_burn_in_of_two_seconds_still_checks_once():
    lines, checks, beats = [], [], []
    hooks = Hooks(lines=lines.append, on_check=checks.append, heartbeat=lambda: beats.append(1))
    report = burn_in(SHORT, hooks)
    assert report.passed, report
    assert checks[-1].iteration == report.iterations
    checked = [line for line in lines if line.startswith("[")]
    assert checked[-1].startswith(f"[0.00h] Iter {report.iterations}: GPU=")
    assert tuple(lines[lines.index(checked[-1]) + 1 : -2]) == report.undecided
    assert lines[-2:] == ["", f"✓ Burn-in complete: {report.iterations} iterations, no memory leaks"]
    assert len(beats) >= len(checks)


def test_the_last_check_is_shown_even_right_after_another(monkeypatch):
    monkeypatch.setattr(burn_in_module, "ITERATIONS_PER_CHECK", 1)
    monkeypatch.setattr(burn_in_module, "_WARM_UP_ITERATIONS", (2, 2))
    monkeypatch.setattr(burn_in_module, "_SECONDS_PER_LINE", 60.0)  # the last check is within it
    lines, checks = [], []
    hooks = Hooks(lines=lines.append, on_check=checks.append, should_stop=lambda: len(checks) >= 3)
    report = burn_in(Settings(batch_size=1, device=SHORT.device), hooks)
    checked = [line for line in lines if line.startswith("[")]
    assert [f"Iter {report.iterations}:" in line for line in checked] == [False, True]
    assert len(checks) == 3


def test_a_counter_without_a_verdict_is_shown():
    lines = []
    report = repeated_operation("voxelize_pointcloud", SHORT, lines.append, iterations=140)
    assert report.passed
    assert lines[1:] == list(report.undecided)
    assert "INCONCLUSIVE heap_bytes: 40 readings are too few, 64 are needed: run longer" in lines


def test_a_burn_in_told_to_stop_says_what_it_knows():
    lines = []
    report = burn_in(Settings(device=SHORT.device), Hooks(lines=lines.append, should_stop=lambda: True))
    assert lines[-1] == f"Burn-in stopped after {report.iterations} iterations, no memory leaks so far"


def test_a_check_that_objects_ends_the_burn_in():
    def object_to(check):
        raise AssertionError(check.cpu_mb)

    with pytest.raises(AssertionError):
        burn_in(Settings(seconds=1, device=SHORT.device), Hooks(on_check=object_to))


def test_the_lines_are_those_of_the_readme():
    first = Check(0.004, 1_000, 120.3, 0.1, 350.2, 0.3, 0)
    assert str(first) == "[0.00h] Iter 1000: GPU=120.3MB (+0.1), CPU=350.2MB (+0.3)"
    last = Check(24.0, 1_440_000, 122.04, 1.76, 354.5, 4.6, 0)
    assert str(last) == "[24.00h] Iter 1440000: GPU=122.0MB (+1.8), CPU=354.5MB (+4.6)"
    assert str(Check(1, 1, 0.0, -0.01, 1.0, -2.0, 0)) == "[1.00h] Iter 1: GPU=0.0MB (+0.0), CPU=1.0MB (-2.0)"


def test_a_day_is_announced_with_the_way_to_shorten_it():
    lines = []
    settings = Settings(is_default_duration=True, device=SHORT.device)
    burn_in(settings, Hooks(lines=lines.append, should_stop=lambda: True))
    assert lines[0].startswith("Burn-in of 86400 s (24.00 h) on ")
    assert lines[0].endswith("STRESS_TEST_DURATION is not set; `export STRESS_TEST_DURATION=3600` makes it an hour")


def test_concurrency_finds_threads_that_share_a_buffer(monkeypatch):
    shared, meeting = [None], threading.Barrier(2)

    def fuse(*args, **kwargs):
        shared[0] = FUSE(*args, **kwargs)
        try:
            meeting.wait(timeout=1)  # two threads have written: one of them reads the other's result
        except threading.BrokenBarrierError:
            meeting.reset()
        return shared[0]

    monkeypatch.setattr(ops, "fuse_multimodal", fuse)
    report = concurrent_inference(SHORT, threads=2, iterations=10)
    assert "elements are wrong" in " ".join(report.failures)


def test_concurrency_finds_threads_that_take_turns(monkeypatch):
    monkeypatch.setattr("robocache.stress.concurrency.ThreadPoolExecutor", OneAfterTheOther)
    for_one = threading.Barrier(1)
    monkeypatch.setattr("robocache.stress.concurrency.threading.Barrier", lambda *_, **__: for_one)
    report = concurrent_inference(SHORT, threads=2, iterations=2)
    assert "the threads never ran at the same time, so nothing was shown" in report.failures


class OneAfterTheOther:
    """A pool that is none."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *args):
        result = function(*args)
        done = threading.Event()
        done.result = lambda: result
        return done


def test_exceptions_finds_an_invalid_call_that_is_accepted(monkeypatch):
    def voxelize(points, *args, **kwargs):
        return VOXELIZE(points.float(), *args, **kwargs)

    monkeypatch.setattr(ops, "voxelize_pointcloud", voxelize)
    report = exceptions(SHORT, iterations=170)
    assert [failure for failure in report.failures if failure.endswith("point_dtype: nothing was raised")]


def test_exceptions_finds_another_text_and_another_type(monkeypatch):
    def fuse(*args, **kwargs):
        try:
            return FUSE(*args, **kwargs)
        except ArgumentError as error:
            raise ArgumentError(str(error)) from error

    monkeypatch.setattr(ops, "fuse_multimodal", fuse)
    report = exceptions(SHORT, iterations=50)
    assert "rank: raised ArgumentError: stream1_data must be" in report.failures[0]


def test_exceptions_finds_a_result_spoilt_by_the_error_before(monkeypatch):
    was_invalid = []

    def voxelize(*args, **kwargs):
        grid = VOXELIZE(*args, **kwargs)
        return one_voxel_less(grid) if was_invalid and was_invalid.pop() else grid

    def fuse(*args, **kwargs):
        try:
            return FUSE(*args, **kwargs)
        except ArgumentError:
            was_invalid.append(True)
            raise

    monkeypatch.setattr(ops, "fuse_multimodal", fuse)
    monkeypatch.setattr(ops, "voxelize_pointcloud", voxelize)
    assert "iteration 9: 1 elements are wrong" in exceptions(SHORT, iterations=20).failures


def test_repeated_allocation_finds_memory_that_fits(monkeypatch):
    monkeypatch.setattr(repeated_allocation_module, "_run_out_of_memory", in_this_process)
    monkeypatch.setattr(repeated_allocation_module, "_HUGE_EDGE", 8)
    report = repeated_allocation(Settings(seconds=2), cycles=4, out_of_memory_rounds=2)
    assert report.failures == ("2 of 2 huge allocations succeeded: out of memory was not met",)


def in_this_process(settings, rounds, *, is_own_process):
    return repeated_allocation_module._fail_repeatedly(settings.device, settings.seed, rounds)


def test_repeated_allocation_finds_dirty_memory_and_kept_grids(monkeypatch):
    monkeypatch.setattr(repeated_allocation_module, "_EDGES", {"cpu": (32, 40, 48), "cuda": (32, 40, 48)})
    kept, spoiled = [], every(40, one_voxel_less)

    def voxelize(*args, **kwargs):
        grid = spoiled(VOXELIZE(*args, **kwargs))
        kept.append(grid)
        return grid

    monkeypatch.setattr(ops, "voxelize_pointcloud", voxelize)
    report = repeated_allocation(SHORT, cycles=400, out_of_memory_rounds=0)
    assert report.failures == ("10 of 400 grids are wrong",)
    assert "FAIL tensors" in " ".join(report.problems)


@pytest.mark.parametrize("kind", ["tensor", "object"])
def test_the_leak_test_finds_a_leak(kind):
    with Leak(kind, every=3) as leak:
        report = repeated_operation("voxelize_pointcloud", SHORT, iterations=1_500, after_iteration=leak)
    assert "FAIL" in " ".join(report.problems)


def test_the_leak_test_finds_a_wrong_result(monkeypatch):
    resample, spoiled = ops.resample_trajectories, every(100, lambda result: result + 1e-3)
    monkeypatch.setattr(ops, "resample_trajectories", lambda *args, **kwargs: spoiled(resample(*args, **kwargs)))
    report = repeated_operation("resample_trajectories", SHORT, iterations=300)
    assert report.failures == ("3 of 300 results are wrong",)
