"""Statistics of streams, judged by numpy and by the faults that were put in."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robocache.readers import SyntheticRobot, stream_statistics
from robocache.records import RecordedStream

START_NS = 1_700_000_000_000_000_000


def stream_at(times_ns, values=None, **clocks):
    times_ns = np.asarray(times_ns, np.int64)
    values = np.zeros((len(times_ns), 1)) if values is None else values
    return RecordedStream("/x", values, times_ns, {"header": times_ns, **clocks}, "header")


def test_a_perfect_clock_has_no_jitter_no_gaps_and_no_duplicates():
    result = stream_statistics(stream_at(START_NS + np.arange(101) * 10_000_000))
    assert (result.count, result.rate_hz, result.period_ns, result.jitter_ns) == (101, 100.0, 10_000_000.0, 0.0)
    assert (result.gaps, result.duplicates, result.nan_fraction) == ((), 0, 0.0)
    assert (result.start_ns, result.end_ns, result.duration_ns) == (START_NS, START_NS + 10**9, 10**9)


def test_a_gap_is_named_by_the_stamps_around_it():
    times = START_NS + np.delete(np.arange(100), [40, 41, 42, 70, 71]) * 1_000_000
    result = stream_statistics(stream_at(times))
    # Three missing are a gap of four periods; two missing are exactly three periods, which is not more than three.
    assert result.gaps == ((START_NS + 39_000_000, START_NS + 43_000_000),)


def test_duplicates_are_counted_and_do_not_pull_the_period_down():
    times = START_NS + np.repeat(np.arange(10), 3) * 1_000_000
    result = stream_statistics(stream_at(times))
    assert result.duplicates == 20
    assert result.period_ns == 1_000_000


def test_clock_offsets_are_exact_to_the_nanosecond_at_epoch_times():
    times = START_NS + np.arange(5) * 1_000
    result = stream_statistics(stream_at(times, log=times + np.array([36, 36, 37, 35, 36]), publish=times - 3))
    assert result.clock_offsets_ns == {"log": 36.0, "publish": -3.0}


def test_nan_fraction_counts_values():
    values = np.array([[0.0, np.nan], [1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    assert stream_statistics(stream_at(range(4), values)).nan_fraction == 3 / 8
    assert stream_statistics(stream_at(range(4), np.zeros((4, 2), np.int64))).nan_fraction == 0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_have_no_rate(count):
    result = stream_statistics(stream_at([START_NS] * count, log=np.full(count, START_NS, np.int64)))
    assert result.count == count
    assert all(math.isnan(value) for value in (result.rate_hz, result.period_ns, result.jitter_ns))
    assert result.clock_offsets_ns == ({"log": 0.0} if count else {})
    assert result.duration_ns == 0


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=60))
def test_numpy_agrees(intervals):
    times = START_NS + np.cumsum([0, *intervals])
    result = stream_statistics(stream_at(times))
    distinct = np.unique(times)
    assert result.duplicates == len(times) - len(distinct)
    if len(distinct) > 1:
        period = np.median(np.diff(distinct))
        assert result.period_ns == period
        short = [step for step in np.diff(distinct) if step <= 3 * period]
        assert result.jitter_ns == pytest.approx(np.std(short))
        assert len(result.gaps) == len(distinct) - 1 - len(short)


def test_the_synthetic_robots_faults_are_found():
    robot = SyntheticRobot(seed=0, duration_s=10)
    found = {name: stream_statistics(stream) for name, stream in robot.read_episode(0).streams.items()}
    assert found["/imu.angular_velocity"].clock_offsets_ns["log"] == pytest.approx(36e6, abs=0.3e6)
    for name, statistics in found.items():
        gap = robot.gap_ns(name)
        assert len(statistics.gaps) == (0 if gap is None else 1)
        if gap is not None:
            assert statistics.gaps[0][0] < gap[0] < gap[1] < statistics.gaps[0][1]
