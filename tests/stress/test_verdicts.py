"""The parts of a verdict: end of the warm-up, correlated noise, minimum detectable leak, causes; and its JSON."""

from __future__ import annotations

import json
import math
import subprocess
import time

import numpy as np
import pytest
import scipy.stats
import torch

from robocache.errors import ArgumentError
from robocache.stress import process_counts
from robocache.stress.monitor import Monitor
from robocache.stress.report import Report
from robocache.stress.resources import Counter, QuietCollections
from robocache.stress.series import Series
from robocache.stress.statistics import is_settling, largest_step, quiescent_levels, settled_from, theil_sen
from robocache.stress.verdicts import Verdict, judge, told_apart

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
READINGS = 600
ITERATION = np.arange(READINGS, dtype=np.float64)
HEAP = Counter("heap_bytes", lambda: 0.0, 500e6, noise=20_000)
RESIDENT = Counter("resident_bytes", lambda: 0.0, 500e6, noise=32e6, is_exact=False)
FREE = Counter("heap_free_bytes", lambda: 0.0, 500e6, noise=32e6, is_exact=False)


def spikes(seed):
    generator = np.random.default_rng(seed)
    return generator.exponential(20_000, READINGS) * (generator.random(READINGS) < 0.3)


@pytest.mark.parametrize("length", [10, 30, 60])
def test_the_warm_up_ends_where_the_curve_does(length):
    """Fails when a fixed share is cut: 3 MB that fill within `length` readings leave 1 kB after eight such lengths."""
    counts = 3e6 * (1 - np.exp(-ITERATION / length))
    assert 3 * length < settled_from(ITERATION, counts) <= READINGS // 2


def test_a_steady_leak_is_no_warm_up():
    """Fails when the cut follows the level instead of a line: a rising level is then always still warming up."""
    assert np.median([settled_from(ITERATION, 854 * ITERATION + spikes(seed)) for seed in range(15)]) < READINGS // 4


def test_random_walks_are_taken_for_trends_less_often():
    """Fails without the correction for neighbours that resemble each other: scipy's plain test cries wolf for most."""
    walks = [np.random.default_rng(seed).normal(size=32).cumsum() for seed in range(200)]
    times = np.arange(32.0)
    plain = sum(scipy.stats.kendalltau(times, walk).pvalue < 0.01 for walk in walks)
    corrected = sum(theil_sen(times, walk, is_correlated=True).p_value < 0.01 for walk in walks)
    assert plain > 100
    assert corrected < 0.8 * plain


@pytest.mark.parametrize(
    ("curve", "expected"), [(np.log1p, True), (np.sqrt, True), (np.abs, False), (np.square, False)]
)
def test_what_flattens_is_told_from_what_does_not(curve, expected):
    """Fails when settling is asked of halves only: a logarithm then looks like a leak."""
    noise = np.random.default_rng(0).normal(size=32) * 0.002
    times = np.linspace(0, 1, 32)
    assert is_settling(times, curve(20 * times) / curve(20.0) + noise) is expected


def test_one_step_and_two_are_steps_and_eight_are_a_leak():
    """Fails when growth in a single window passes for a slope, or a slope for a step since one window is long."""
    windows = np.arange(32.0)
    assert largest_step(windows, 7.0 * (windows > 9)) == 7
    assert largest_step(windows, 7.0 * (windows > 9) + 5.0 * (windows > 20)) == 12
    assert largest_step(windows, 7.0 * (windows // 4)) == 0
    assert largest_step(windows, -windows) == 0
    uneven = windows + 500.0 * (windows > 9)
    assert largest_step(uneven, 7.0 * uneven) == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_minimum_detectable_leak_is_found_and_a_third_of_it_is_not(seed):
    """Fails when the report promises a size that the rule misses, or one that is far from the least."""
    size = judge(HEAP, ITERATION, 5e7 + spikes(seed), per_day=1e9).detectable_per_iteration
    assert 2_000 / READINGS < size < 100
    leaks = {share: 5e7 + spikes(seed + 100) + share * size * ITERATION for share in (1.2, 1 / 3)}
    found = {share: judge(HEAP, ITERATION, counts, per_day=1e9).outcome for share, counts in leaks.items()}
    assert found == {1.2: "FAIL", 1 / 3: "PASS"}


def test_a_short_run_of_a_level_heap_sees_a_leak_that_one_of_a_wandering_heap_cannot():
    """Fails with a fixed allowance of 20 kB, which over 150 iterations is 133 bytes each; or with none for a walk."""
    generator = np.random.default_rng(5)
    level = 5e7 + generator.integers(0, 100, 150).astype(float)
    size = judge(HEAP, ITERATION[:150], level, per_day=1e9).detectable_per_iteration
    assert size < 64
    assert judge(HEAP, ITERATION[:150], level + 64 * ITERATION[:150], per_day=1e9).outcome == "FAIL"
    assert judge(RESIDENT, ITERATION[:150], level + 64 * ITERATION[:150], per_day=1e9).outcome == "PASS"
    walks = [5e7 + np.random.default_rng(seed).normal(0, 200, 150).cumsum() for seed in range(200)]
    assert "FAIL" not in {judge(HEAP, ITERATION[:150], walk, per_day=1e9).outcome for walk in walks}


def test_more_windows_where_there_are_more_readings():
    assert [len(quiescent_levels(np.arange(n * 1.0), np.ones(n)).values) for n in (64, 200, 2_000)] == [16, 25, 40]


def growing(counter, per_reading):
    return judge(counter, ITERATION, 3e8 + per_reading * ITERATION, per_day=1e6)


def test_resident_growth_with_a_level_heap_is_called_fragmentation():
    """Fails when a growing heap is excused too, or the allocator's free bytes are not looked at."""
    level, leaking = growing(HEAP, 0), growing(HEAP, 200_000)
    resident, free = growing(RESIDENT, 200_000), growing(FREE, 190_000)
    assert resident.outcome == "FAIL"
    (told,) = told_apart((resident, level, free), (RESIDENT, HEAP, FREE))[:1]
    assert told.outcome == "FAIL"
    assert "fragmentation: live heap bytes stay level, what malloc holds free in pieces grows with it" in told.why
    (told,) = told_apart((resident, level), (RESIDENT, HEAP))[:1]
    assert "fragmentation, or memory mapped past malloc" in told.why
    assert told_apart((resident, leaking), (RESIDENT, HEAP)) == (resident, leaking)


def test_readings_keep_to_their_share_of_the_time():
    """Fails when a reading that takes 5 ms is made each time that it is asked for."""
    slow = Counter("slow", lambda: time.sleep(0.005) or 1.0, 1)  # slow on purpose
    monitor = Monitor([slow], readings=1_000, share=0.05)
    iteration = 0
    with QuietCollections():
        end = time.monotonic() + 1.0  # from here on: the collection at the beginning may take seconds
        while time.monotonic() < end:
            iteration += 1
            monitor.read_if_cheap(iteration)
    assert 2 <= monitor.readings <= 12
    assert monitor.cost_share < 0.06


def test_a_clock_that_goes_back_is_invalid(monkeypatch):
    """Fails when rates are worked out from seconds that do not ascend."""
    monitor = Monitor([Counter("tensors", lambda: 1.0, 24)], readings=3)
    with QuietCollections():
        monitor.read(0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now - 7)
    monitor.read(1)
    monkeypatch.undo()
    assert str(monitor.verdicts()[-1]).startswith("INVALID clock: it went back by ")


def test_children_files_and_free_bytes_are_counted(monkeypatch, tmp_path):
    """Fails when a counter reads something else than what is there."""
    monkeypatch.setattr(process_counts, "_SHARED_MEMORY", tmp_path)  # the real one belongs to others too
    before = process_counts.child_processes()
    with subprocess.Popen(["sleep", "60"]) as child:
        assert process_counts.child_processes() == before + 1
        child.kill()
    assert process_counts.child_processes() == before
    assert process_counts.shared_memory_files() == 0
    (tmp_path / "block").touch()
    assert process_counts.shared_memory_files() == 1
    pieces = [torch.zeros(1_000) for _ in range(2_000)]
    free = process_counts.heap_free_bytes()  # only now: they may lie where something else was free before
    del pieces[::2]
    assert process_counts.heap_free_bytes() - free > 1_000 * 3_000


def test_a_report_comes_back_from_json_with_its_series():
    """Fails when a field is left out, or NaN reaches the JSON."""
    series = Series("heap_bytes", (0.0, 1.0), (0.0, 0.5), (5.0, math.nan))
    verdict = judge(HEAP, ITERATION, 5e7 + spikes(0), per_day=1e9)
    report = Report("a", "cpu", 2, 1.5, ("it broke",), (verdict,), {"rate": 2.0}, (series,))
    text = json.dumps(report.as_dict(), allow_nan=False)
    again = Report.from_dict(json.loads(text))
    assert (again.verdicts, again.failures, again.measured) == (report.verdicts, report.failures, report.measured)
    assert again.series[0].iterations == series.iterations
    assert math.isnan(again.series[0].counts[1])
    assert (again.outcome, json.loads(text)["outcome"]) == ("FAIL", "FAIL")
    assert "(minimum detectable leak: " in str(report)
    assert "series" not in report.as_dict(with_series=False)


def test_the_worst_verdict_is_the_reports():
    def report(*outcomes):
        return Report("a", "cpu", 1, 1.0, verdicts=tuple(Verdict("tensors", each, "why") for each in outcomes)).outcome

    assert report("PASS", "INCONCLUSIVE") == "INCONCLUSIVE"
    assert report("INVALID", "INCONCLUSIVE") == "INVALID"
    assert report("INVALID", "FAIL") == "FAIL"
    assert report() == "PASS"


def test_a_series_of_unequal_lengths_is_refused():
    with pytest.raises(ArgumentError, match=r"^iterations, seconds and counts of tensors have \(1, 2, 2\) readings$"):
        Series("tensors", (1.0,), (1.0, 2.0), (1.0, 2.0))
