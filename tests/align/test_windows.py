"""`Window` against a plain loop over pandas rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from robocache.align import Align, Follow, From, Rate, align_episode
from robocache.errors import ArgumentError
from robocache.policies import Window
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


def recorded(name, times_ns, values, **fields):
    times_ns = np.asarray(times_ns, dtype=np.int64)
    return RecordedStream(name, values, times_ns, {"header": times_ns}, "header", **fields)


def windows_by_loop(times_ns, values, targets_ns, span_ns, samples):
    """The obvious way: for each target the rows that pandas selects, the latest ones, oldest first."""
    frame = pd.DataFrame(values).assign(t=times_ns)
    data = np.full((len(targets_ns), samples, values.shape[1]), np.nan)
    valid, age = np.zeros(data.shape[:2], bool), np.full(data.shape[:2], -1)
    for k, target in enumerate(targets_ns):
        rows = frame[(frame.t > target - span_ns) & (frame.t <= target)].tail(samples)
        for place, (_, row) in enumerate(rows.iterrows(), start=samples - len(rows)):
            data[k, place], valid[k, place] = row.drop("t"), True
            age[k, place] = target - int(frame.t[row.name])
    return data, valid, age


@pytest.mark.parametrize(("span_ms", "samples"), [(33, 8), (33, 3), (5, 1), (1, 4), (100, 64)])
@pytest.mark.parametrize("latency_ms", [0, 7])
def test_windows_are_those_of_a_loop_over_pandas_rows(span_ms, samples, latency_ms):
    """Fails when a side of the interval is closed that should be open, when the oldest are kept instead of the latest,
    when the latency is not subtracted, or a row with a NaN stays."""
    generator = np.random.default_rng(span_ms + samples)
    times = EPOCH + np.sort(generator.integers(0, 2000, 700)) * MS  # many twins, and stamps on whole spans
    values = generator.normal(size=(700, 3)).astype(np.float32)
    values[generator.integers(0, 700, 40), generator.integers(0, 3, 40)] = np.nan
    camera = recorded("camera", EPOCH + np.arange(60) * 33 * MS, np.zeros((60, 1), np.float32))
    episode = Episode("e", {"imu": recorded("imu", times, values), "camera": camera}, "run.mcap")
    streams = {
        "camera": From("camera"),
        "imu": From("imu", Window(f"{span_ms}ms", samples), latency=f"{latency_ms}ms"),
    }
    aligned = align_episode(episode, Align(Follow("camera"), streams, span="union"))
    kept = ~np.isnan(values).any(axis=1)
    want = windows_by_loop(times[kept] - latency_ms * MS, values[kept], aligned.times_ns, span_ms * MS, samples)
    assert len(aligned.times_ns) == 60
    np.testing.assert_array_equal(aligned.data["imu"], want[0].astype(np.float32))
    np.testing.assert_array_equal(aligned.valid["imu"], want[1])
    np.testing.assert_array_equal(aligned.age_ns["imu"], want[2])
    assert list(aligned.slices) == ["camera"]
    assert aligned.fused.shape == (60, 1)
    assert aligned.policies["imu"] == Window(span_ms * MS, samples)


@pytest.mark.parametrize(("dtype", "fill"), [("int32", 0), ("bool", False), ("float64", math.nan), ("uint16", 0)])
def test_unused_places_hold_nothing_and_are_not_valid(dtype, fill):
    stream = recorded("s", EPOCH + np.array([0, 10, 50]) * MS, np.ones((3, 2), dtype))
    aligned = align_episode(
        Episode("e", {"s": stream}, "run.mcap"), Align(Rate(100), {"s": From("s", Window("10ms", 2))})
    )
    data, valid = aligned.data["s"], aligned.valid["s"].numpy()
    np.testing.assert_array_equal(valid, [[False, True], [False, True], *[[False, False]] * 3, [False, True]])
    np.testing.assert_array_equal(data[~torch.from_numpy(valid)], np.full((9, 2), fill))
    assert bool((data[torch.from_numpy(valid)] == 1).all())
    np.testing.assert_array_equal(aligned.age_ns["s"][~valid], -1)
    assert aligned.columns["s"] == ()


def test_a_window_whose_latest_sample_is_too_old_is_not_valid_but_keeps_its_values():
    stream = recorded("s", EPOCH + np.array([0, 10, 60]) * MS, np.array([[1.0], [2.0], [3.0]]))
    spec = Align(Rate(100), {"s": From("s", Window("100ms", 2, max_gap="20ms"))})
    aligned = align_episode(Episode("e", {"s": stream}, "run.mcap"), spec)
    assert aligned.valid["s"][:, 1].tolist() == [True, True, True, True, False, False, True]
    assert aligned.valid["s"][:, 0].tolist() == [False, True, True, True, False, False, True]
    assert aligned.data["s"][4, :, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Window("0ms", 3), r"^span must be greater than 0 .*, got '0ms'$"),
        (lambda: Window(-5, 3), r"^span must be greater than 0"),
        (lambda: Window(2**62, 3), r"shorter than 146 years"),
        (lambda: Window(0.033, 3), r"^span must be a duration such as '33ms' or whole nanoseconds, got 0\.033$"),
        (lambda: Window("33", 3), r"^'33' is not a duration"),
        (lambda: Window("33ms", 0), r"^samples must be a whole number, 1 or more, got 0$"),
        (lambda: Window("33ms", 2.0), r"^samples must be"),
        (lambda: Window("33ms", 2**16 + 1), r"^samples must be at most 65536"),
        (lambda: Window("33ms", 2, max_gap=-1), r"^max_gap must be 0 or more"),
    ],
)
def test_a_window_that_cannot_be_right_says_what_is_wrong(build, message):
    with pytest.raises(ArgumentError, match=message):
        build()
