"""Hours of inference, a thousand large allocations, a consumer that cannot keep up."""

from __future__ import annotations

import pytest

from robocache.stress.back_pressure import back_pressure
from robocache.stress.burn_in import Check, Hooks, burn_in
from robocache.stress.long_settings import thresholds_from_environment
from robocache.stress.repeated_allocation import repeated_allocation

pytestmark = [pytest.mark.slow, pytest.mark.stress]


@pytest.mark.as_long_as_set
def test_24h_burn_in(settings, lines, hang_watch, is_terminated):
    """Inference for STRESS_TEST_DURATION seconds: every result is right, and memory stays where it was.

    Edits seen to fail it, in runs of 6 seconds: a fuse that keeps its results, or one number a call; times cast to
    float32 before they are subtracted; a weight 1 % too large; a voxel's upper edge included; voxel numbers by the
    rounded reciprocal of the size; one grid handed out again and again. All were made in the PyTorch backend, the
    weight and the reciprocal in the compiled library too. `test_controls.py` repeats such faults.
    """

    limits = thresholds_from_environment()

    def check_memory(check: Check) -> None:
        gpu_leak, cpu_leak = check.gpu_leak_mb, check.cpu_leak_mb
        assert gpu_leak < limits.gpu_leak_mb  # 100, unless ROBOCACHE_GPU_LEAK_MB is set
        assert cpu_leak < limits.cpu_leak_mb  # 500, unless ROBOCACHE_CPU_LEAK_MB is set

    hooks = Hooks(lines=lines, on_check=check_memory, heartbeat=hang_watch.beat, should_stop=is_terminated)
    report = burn_in(settings, hooks)
    if is_terminated():
        pytest.exit(f"SIGTERM ended the burn-in early; so far:\n{report}", returncode=143)
    assert report.problems == (), str(report)


def test_repeated_allocation(settings, lines):
    """1000 cycles of a large grid, then 50 real out-of-memory errors, each followed by a right result.

    Edits seen to fail it: a grid that is not cleared; an out-of-memory error answered with a smaller grid; voxel
    numbers kept when the grid's memory runs out; one number kept of every grid.
    """
    report = repeated_allocation(settings, lines)
    assert report.iterations == 1000
    assert report.problems == (), str(report)


def test_backpressure_handling(settings, lines):
    """A producer as fast as it can, a consumer of 100 ms: bytes bounded, order kept, nothing left behind.

    Edits seen to fail it: a budget that takes nothing, never gives back, or admits one too many; a prefetcher that
    does not join its thread, swallows the reader's exception, forgets the bytes of what was not taken, delivers a
    sample twice, or waits for room after it was closed. `test_controls_back_pressure.py` repeats such faults.
    """
    report = back_pressure(settings, lines)
    assert report.problems == (), str(report)
