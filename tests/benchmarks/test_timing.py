"""Timing with a clock of our own: turns, medians, and how long is long enough; and cost against size."""

from __future__ import annotations

import pytest
import torch

from robocache.benchmarks import scaling
from robocache.benchmarks.host_timing import Effort, wall_times


class Time:
    """A clock that stands still but for what the runs take."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def run(self, name, seconds):
        def spend():
            self.log.append(name)
            self.now += next(seconds) if hasattr(seconds, "__next__") else seconds

        return spend


def test_candidates_take_turns():
    """Fails when one candidate is measured to the end before the next begins."""
    clock = Time()
    effort = Effort(rounds=3, least_rounds=3, seconds=0.0, sample_seconds=0.0)
    wall_times({"a": clock.run("a", 1.0), "b": clock.run("b", 2.0)}, effort, clock)
    assert clock.log == ["a", "a", "b", "b", *("a", "b") * 3]  # once to warm up, once to see how long it takes


def test_the_median_of_the_samples_counts():
    """Fails when a mean or the warm-up gets into the result."""
    clock = Time()
    seconds = iter([50.0, 1.0, 1.0, 9.0, 2.0])
    effort = Effort(rounds=3, least_rounds=3, seconds=0.0, sample_seconds=0.0)
    (found,) = wall_times({"a": clock.run("a", seconds)}, effort, clock).values()
    assert found == {"wall_us": 2e6, "wall_fastest_us": 1e6, "wall_slowest_us": 9e6, "samples": 3}


def test_quick_calls_are_repeated_and_slow_ones_measured_less_often():
    """Fails when a sample is one call of a microsecond, or a slow library takes minutes."""
    clock = Time()
    effort = Effort(rounds=10, least_rounds=3, seconds=1.0, sample_seconds=0.01)
    found = wall_times({"fast": clock.run("fast", 0.001), "slow": clock.run("slow", 5.0)}, effort, clock)
    assert clock.log.count("fast") == 2 + 10 * 10
    assert found["fast"]["samples"] == 10
    assert found["slow"]["samples"] == 3
    assert found["fast"]["wall_us"] == pytest.approx(1000)


SIZES = (1 << 20, 4 << 20)


def test_scaling_flags_cost_that_grows_faster_than_the_work():
    """Fails when the spread is not that of the largest and the smallest cost of a byte."""

    def squared_us(call):
        return call().nbytes ** 2 / 1e9

    for entry in scaling.measure(squared_us, "pytorch", "cpu", SIZES):
        costs = [point["ps_a_byte"] for point in entry["points"]]
        assert entry["spread"] == pytest.approx(costs[1] / costs[0])
        assert entry["spread"] == pytest.approx(4, rel=0.1)
        assert not entry["within_bounds"]
    for entry in scaling.measure(lambda call: call().nbytes / 1e3, "pytorch", "cpu", SIZES):
        assert entry["spread"] == pytest.approx(1)
        assert entry["within_bounds"]
        for wanted, point in zip(SIZES, entry["points"], strict=True):
            assert point["output_bytes"] == pytest.approx(wanted, rel=0.05)


def test_scaling_leaves_out_what_does_not_fit(monkeypatch):
    """Fails when a size beyond the memory is tried, or left out without a word."""
    monkeypatch.setattr(scaling, "free_bytes", lambda _: 6 << 20)
    for entry in scaling.measure(lambda call: call().nbytes / 1e3, "pytorch", "cpu", SIZES):
        assert len(entry["points"]) == 1
        assert entry["left_out_bytes"] == [4 << 20]


def test_scaling_reports_a_wrong_result_and_does_not_time_it(monkeypatch):
    """Fails when rows at the end of a large result are wrong and nobody looks."""
    original = scaling.ClockProblem.call

    def wrong_at_the_end(problem, backend):
        def call():
            result = original(problem, backend)()
            result[-1] = 0
            return result

        return call

    monkeypatch.setattr(scaling.ClockProblem, "call", wrong_at_the_end)
    for entry in scaling.measure(lambda _: pytest.fail("timed"), "pytorch", "cpu", SIZES[:1]):
        assert entry["points"] == []
        assert len(entry["faults"]) == 1
        assert "numbers differ" in entry["faults"][0]
        assert entry["spread"] is None
        assert not entry["within_bounds"]


def test_inputs_of_scaling_ascend():
    """Fails when the clocks made on the device are no clocks."""
    problem = scaling._problem(((30, 4), (100, 2)), 5, 3, "cpu")
    assert all((times.diff(dim=1) > 0).all() for times in problem.times)
    assert problem.data[0].dtype == torch.bfloat16
