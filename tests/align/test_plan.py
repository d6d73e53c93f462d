from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robocache.align import Align, Follow, From, Rate, plan_alignment
from robocache.align.plan import MAX_FRAMES, rate_clock
from robocache.errors import ArgumentError, UnknownStreamError
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


def recorded(name, times_ns, values=None, **fields):
    times_ns = np.asarray(times_ns, dtype=np.int64)
    values = np.arange(len(times_ns), dtype=np.float64)[:, None] if values is None else np.asarray(values)
    return RecordedStream(name, values, times_ns, {"header": times_ns}, "header", **fields)


def episode(*streams):
    return Episode("episode_000000", {stream.name: stream for stream in streams}, "run.mcap")


@given(
    hz=st.one_of(
        st.fractions(min_value=Fraction(1, 20), max_value=5000, max_denominator=10_000),
        # The last one's numerators are beyond int64.
        st.sampled_from([Fraction(30000, 1001), Fraction(30), Fraction(1, 3), Fraction(10**20 + 1, 3 * 10**17)]),
    ),
    span_ns=st.integers(0, 100_000_000),
    start=st.sampled_from([0, EPOCH, -EPOCH]),
)
def test_the_clock_is_exact_to_the_last_frame(hz, span_ns, start):
    clock = rate_clock(start, start + span_ns, hz)
    assert clock.dtype == np.int64
    half = Fraction(1, 2)
    expected, k = [], 0
    while (stamp := (k * 1_000_000_000 / hz + half).__floor__()) <= span_ns:
        expected.append(start + stamp)
        k += 1
    assert clock.tolist() == expected


def test_the_clock_does_not_drift_over_a_day():
    clock = rate_clock(EPOCH, EPOCH + 86_400 * 10**9, Fraction(30))
    assert len(clock) == 86_400 * 30 + 1
    assert clock[-1] - EPOCH == 86_400 * 10**9
    assert set(np.unique(np.diff(clock)).tolist()) == {33_333_333, 33_333_334}


def test_a_rate_that_would_fill_the_memory_is_refused():
    with pytest.raises(ArgumentError, match=rf"rate 1e\+09 Hz over 395\.0 s makes 395000000001 frames, .*{MAX_FRAMES}"):
        rate_clock(0, 395 * 10**9, Fraction(10**9))


def test_the_overlap_is_where_every_stream_has_something_to_say():
    fast, late = recorded("fast", np.arange(0, 1000) * MS), recorded("late", np.arange(5, 90) * 10 * MS)
    overlap = plan_alignment(episode(fast, late), Align(Rate(100))).times_ns
    assert (overlap[0], overlap[-1]) == (50 * MS, 890 * MS)
    union = plan_alignment(episode(fast, late), Align(Rate(100), span="union")).times_ns
    assert (union[0], union[-1]) == (0, 990 * MS)


def test_latency_moves_a_stream_back_to_when_it_happened():
    times = np.arange(10) * 10 * MS
    spec = Align(Rate(100), {"a": From("a", latency="36ms")})
    plan = plan_alignment(episode(recorded("a", times)), spec)
    assert plan.streams[0].times_ns.tolist() == (times - 36 * MS).tolist()
    assert plan.times_ns[0] == -36 * MS


def test_following_a_stream_gives_its_stamps_once_each_within_the_overlap():
    camera = recorded("camera", [0, 33 * MS, 33 * MS, 66 * MS, 99 * MS])
    arm = recorded("arm", np.arange(10, 80) * MS)
    spec = Align(Follow("image"), {"image": From("camera"), "state": From("arm")})
    assert plan_alignment(episode(camera, arm), spec).times_ns.tolist() == [33 * MS, 66 * MS]


def test_following_a_stream_that_is_not_there_lists_those_that_are():
    with pytest.raises(UnknownStreamError, match=r"no stream 'camra' in .*did you mean 'camera'\? it has: camera, arm"):
        plan_alignment(episode(recorded("camera", [0]), recorded("arm", [0])), Align(Follow("camra")))


def test_default_policies_follow_kind_and_dtype():
    times, gap = np.arange(5) * 10 * MS, 30 * MS
    quaternions, ints = np.tile([1.0, 0, 0, 0], (5, 1)), np.arange(5, dtype=np.int64)[:, None]
    streams = (
        recorded("v", times),
        recorded("q", times, quaternions, kind="quaternion_wxyz"),
        recorded("r", times, quaternions, kind="quaternion_xyzw"),
        recorded("angle", times, kind="angle"),
        recorded("i", times, ints),
        recorded("b", times, ints > 2),
        recorded("p", times, np.zeros((7, 3)), kind="points", offsets=np.array([0, 1, 2, 3, 4, 7])),
    )
    plan = plan_alignment(episode(*streams), Align(Rate(100)))
    assert [stream.policy for stream in plan.streams] == [
        Linear(max_gap=gap),
        Slerp(max_gap=gap, order="wxyz"),
        Slerp(max_gap=gap, order="xyzw"),
        Angle(max_gap=gap),
        Previous(max_gap=gap),
        Previous(max_gap=gap),
        Nearest(max_gap=gap // 2),
    ]


def test_durations_become_nanoseconds():
    spec = Align(Rate(10), {"a": From("a", Linear(max_gap="50ms"))})
    assert plan_alignment(episode(recorded("a", [0, MS])), spec).streams[0].policy == Linear(max_gap=50 * MS)


def test_rows_with_a_nan_are_no_samples_but_a_column_that_is_never_filled_loses_nothing():
    values = np.array([[0, np.nan], [1, np.nan], [np.nan, np.nan], [3, np.nan]])
    stream = recorded("fix", np.arange(4) * MS, values)
    dropped = plan_alignment(episode(stream), Align(Rate(1000))).streams[0]
    assert dropped.rows.tolist() == [0, 1, 3]
    assert dropped.dropped == 1
    kept = plan_alignment(episode(stream), Align(Rate(1000), {"fix": From("fix", missing="keep")})).streams[0]
    assert kept.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("streams", "spec", "message"),
    [
        ((recorded("a", []),), Align(Rate(1)), r"^run\.mcap: stream 'a' of episode_000000 has no samples; leave"),
        ((recorded("a", [0], [[np.nan]]),), Align(Rate(1)), r"has no sample without a NaN; leave"),
        ((), Align(Rate(1)), r"^run\.mcap, episode_000000: no streams to align; name a recording"),
        (
            (recorded("a", [0, MS]), recorded("b", [5 * MS])),
            Align(Rate(1)),
            r"'b' starts 0\.004 s after 'a' ends; leave one out, or align with span='union'$",
        ),
        (
            (recorded("p", [0], np.zeros((1, 3)), kind="points", offsets=np.array([0, 1])),),
            Align(Rate(1), {"p": From("p", Linear())}),
            r"^streams\['p'\] is a point cloud, .* use Nearest or Previous, not Linear$",
        ),
    ],
)
def test_what_cannot_be_aligned_says_why_and_what_to_do(streams, spec, message):
    with pytest.raises(ArgumentError, match=message):
        plan_alignment(episode(*streams), spec)
