"""Hours of inference, a thousand large allocations, a consumer that cannot keep up."""

from __future__ import annotations

import pytest

from robocache.stress.back_pressure import back_pressure
from robocache.stress.burn_in import Check, Hooks, burn_in
from robocache.stress.repeated_allocation import repeated_allocation

pytestmark = [pytest.mark.slow, pytest.mark.stress]


@pytest.mark.as_long_as_set
def test_24h_burn_in(settings, lines, hang_watch, is_terminated):
    """Inference for STRESS_TEST_DURATION seconds: every result is right, and memory stays where it was."""

    def check_memory(check: Check) -> None:
        gpu_leak, cpu_leak = check.gpu_leak_mb, check.cpu_leak_mb
        assert gpu_leak < 100  # MB
        assert cpu_leak < 500  # MB

    hooks = Hooks(lines=lines, on_check=check_memory, heartbeat=hang_watch.beat, should_stop=is_terminated)
    report = burn_in(settings, hooks)
    if is_terminated():
        pytest.exit(f"SIGTERM ended the burn-in early; so far:\n{report}", returncode=143)
    assert report.problems == (), str(report)


def test_repeated_allocation(settings, lines):
    """1000 cycles of a large grid, then 50 real out-of-memory errors, each followed by a right result."""
    report = repeated_allocation(settings, lines)
    assert report.iterations == 1000
    assert report.problems == (), str(report)


def test_backpressure_handling(settings, lines):
    """A producer as fast as it can, a consumer of 100 ms: bytes bounded, order kept, nothing left behind."""
    report = back_pressure(settings, lines)
    assert report.problems == (), str(report)
