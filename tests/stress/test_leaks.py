"""The verdict: finds leaks, clears clean runs, and says when it cannot tell. The statistics are judged by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from robocache.stress.resources import Counter
from robocache.stress.statistics import theil_sen
from robocache.stress.verdicts import LEAST_READINGS, judge

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
HEAP = Counter("heap_bytes", lambda: 0.0, 500e6, noise=20_000)
TENSORS = Counter("tensors", lambda: 0.0, 24)
RESIDENT = Counter("resident_bytes", lambda: 0.0, 500e6, noise=32e6, is_exact=False)
READINGS = 600
ITERATION = np.arange(READINGS)
PER_DAY = 50 * 86_400  # iterations, at 50 a second


def judge_at_50_hz(counter, counts):
    return judge(counter, ITERATION[: len(counts)], counts, per_day=PER_DAY)


def spikes(seed):
    """Temporary allocations that some readings happen to see."""
    generator = np.random.default_rng(seed)
    return generator.exponential(20_000, READINGS) * (generator.random(READINGS) < 0.3)


CLEAN = {
    "constant": lambda seed: np.full(READINGS, 5e7),
    "spikes": lambda seed: 5e7 + spikes(seed),
    "caches_that_fill": lambda seed: 5e7 + 3e6 * (1 - np.exp(-ITERATION / 20)) + spikes(seed),
    "one_late_cache": lambda seed: 5e7 + 2e6 * (200 + 23 * seed < ITERATION) + spikes(seed),
    "sawtooth": lambda seed: 5e7 + ITERATION % (30 + seed) * 1_000.0,
    "small_wandering": lambda seed: 5e7 + np.random.default_rng(seed).integers(-1, 2, READINGS).cumsum() * 32.0,
}
LEAKING = {  # and bytes an iteration
    "a_tensor_each": (lambda seed: 5e7 + 854.0 * ITERATION + spikes(seed), 854),
    "a_tensor_each_while_caches_fill": (
        lambda seed: 5e7 + 3e6 * (1 - np.exp(-ITERATION / 20)) + 854.0 * ITERATION + spikes(seed),
        854,
    ),
    "a_tensor_every_tenth": (lambda seed: 5e7 + 4_096.0 * (ITERATION // 10) + spikes(seed), 410),
    "a_megabyte_every_fiftieth": (lambda seed: 5e7 + 1e6 * (ITERATION // 50) + spikes(seed), 20_000),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_run_is_never_called_a_leak(name, seed):
    verdict = judge_at_50_hz(HEAP, CLEAN[name](seed))
    assert verdict.outcome == "PASS", verdict


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", LEAKING)
def test_a_leak_is_found_and_measured(name, seed):
    counts, bytes_each = LEAKING[name]
    verdict = judge_at_50_hz(HEAP, counts(seed))
    assert verdict.outcome == "FAIL", verdict
    assert verdict.growth_per_day == pytest.approx(bytes_each * PER_DAY, rel=0.1)
    assert verdict.least_per_day <= verdict.growth_per_day <= verdict.most_per_day


def test_one_object_lost_in_twenty_iterations_is_found():
    verdict = judge_at_50_hz(TENSORS, 10.0 + ITERATION // 20)
    assert str(verdict).startswith("FAIL tensors: grows by at least ")


def test_a_slow_leak_within_the_budget_is_measured_and_passes():
    seconds = np.linspace(0, 86_400, READINGS)
    verdict = judge(HEAP, seconds, 5e7 + seconds * 1e8 / 86_400, per_day=86_400)
    assert (verdict.outcome, verdict.why) == ("PASS", "100.0 MB a day, within the budget of 500.0 MB")


def test_what_still_settles_is_inconclusive():
    verdict = judge_at_50_hz(HEAP, 5e7 + 3e6 * (1 - np.exp(-ITERATION / 200)))
    assert verdict.outcome == "INCONCLUSIVE"
    assert "still settling" in verdict.why


def test_a_step_beyond_a_days_budget_is_inconclusive():
    verdict = judge_at_50_hz(HEAP, 5e7 + 6e8 * (ITERATION > 450))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.why.startswith("one step of 600.0 MB")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [2e6, 6e8])
def test_a_leak_beside_a_late_cache_is_found(step, seed):
    """Fails when a step excuses whatever else grows: "level before and after" was said of 854 bytes an iteration."""
    counts = 5e7 + 854.0 * ITERATION + spikes(seed) + step * (250 + 40 * seed < ITERATION)
    verdict = judge_at_50_hz(HEAP, counts)
    assert verdict.outcome == "FAIL", verdict
    assert verdict.why.startswith("beside a step of ")
    wanted = scipy.stats.theilslopes(counts[:250], ITERATION[:250]).slope * PER_DAY  # of what lies before the step
    assert verdict.growth_per_day == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("onset", [430, 460, 500])
def test_a_leak_that_begins_late_is_inconclusive(onset, seed):
    """Fails when the slope of the whole run decides alone: most of its pairs lie before the leak."""
    verdict = judge_at_50_hz(HEAP, 5e7 + 2_000.0 * np.maximum(ITERATION - onset, 0) + spikes(seed))
    assert verdict.outcome == "INCONCLUSIVE", verdict
    assert "not before: run longer" in verdict.why
    back = 5e7 + 2_000.0 * ((ITERATION - onset) % READINGS)  # a cache emptied at `onset`, which fills again
    assert judge_at_50_hz(HEAP, back).outcome != "INCONCLUSIVE"


def test_resident_memory_that_wanders_is_noise_and_a_flood_is_not():
    assert judge_at_50_hz(RESIDENT, 3e8 + 18e6 * ITERATION / READINGS).outcome == "PASS"
    assert judge_at_50_hz(RESIDENT, 3e8 + 90e6 * ITERATION / READINGS).outcome == "FAIL"


def test_too_few_readings_are_inconclusive_and_unreadable_ones_invalid():
    few = LEAST_READINGS - 1
    assert judge_at_50_hz(HEAP, 5e7 + 1e6 * ITERATION[:few]).outcome == "INCONCLUSIVE"
    counts = np.full(READINGS, 5e7)
    counts[7] = math.nan
    assert str(judge_at_50_hz(HEAP, counts)) == "INVALID heap_bytes: it cannot be read on this machine"
    counts[7] = -math.inf
    assert str(judge_at_50_hz(HEAP, counts)) == "INVALID heap_bytes: it cannot be read on this machine"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("has_ties", [False, True])
def test_the_slope_and_its_interval_are_scipys(seed, has_ties):
    generator = np.random.default_rng(seed)
    times = generator.random(16).cumsum()
    levels = times + generator.normal(size=16)
    levels = levels.round() if has_ties else levels
    trend = theil_sen(times, levels)
    wanted = scipy.stats.theilslopes(levels, times, alpha=0.99)
    assert (trend.slope, trend.lower, trend.upper) == pytest.approx((wanted.slope, wanted.low_slope, wanted.high_slope))


@pytest.mark.parametrize("growth", [0.0, 0.1, 0.3, 1.0])
def test_the_significance_is_that_of_kendalls_tau(growth):
    generator = np.random.default_rng(3)
    times = np.arange(16.0)
    levels = growth * times + generator.normal(size=16)
    wanted = scipy.stats.kendalltau(times, levels, method="asymptotic").pvalue
    # scipy leaves out the continuity correction, which makes Mann and Kendall's test a little more cautious.
    assert wanted <= theil_sen(times, levels).p_value <= wanted * 1.6


def test_a_constant_has_no_trend():
    trend = theil_sen(np.arange(16.0), np.ones(16))
    assert (trend.slope, trend.lower, trend.upper, trend.p_value) == (0, 0, 0, 1)
