"""Alignment of real recordings, judged by numpy, scipy and the recordings themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robocache.align import Align, Follow, From, Rate, align_episode
from robocache.readers import open_recording
from robocache.records import Episode

TRIAL = "broad/07_undisturbed_fast_rotation_B.hdf5"


def a_tenth_of(stream, signs):
    """Every tenth row that is no NaN, under another name."""
    kept = np.flatnonzero(~np.isnan(stream.values).any(axis=1))[::10]
    times_ns = stream.times_ns[kept]
    values = stream.values[kept] * signs(len(kept))
    return dataclasses.replace(stream, name="cut", values=values, times_ns=times_ns, clocks={stream.clock: times_ns})


@pytest.mark.parametrize(
    "signs",
    [
        pytest.param(lambda rows: np.ones((rows, 1)), id="as-recorded"),
        pytest.param(lambda rows: np.random.default_rng(7).choice([-1.0, 1.0], (rows, 1)), id="signs-flipped"),
    ],
)
def test_orientation_cut_to_a_tenth_comes_back_within_two_and_a_half_degrees(recordings, signs):
    with open_recording(recordings / TRIAL) as recording:
        full = recording.read_episode(0, ["opt_quat"]).streams["opt_quat"]
    cut = a_tenth_of(full, signs)
    assert len(cut.times_ns) < len(full.times_ns) / 10
    episode = Episode("e0", {"full": full, "cut": cut}, TRIAL)
    # A frame for each original stamp, also for those whose rows are NaN: the cut stream is asked everywhere.
    streams = {"full": From("full", missing="keep"), "cut": From("cut")}
    aligned = align_episode(episode, Align(Follow("full"), streams))
    original, back = aligned.data["full"].numpy(), aligned.data["cut"].numpy()
    judged = aligned.valid["cut"].numpy() & ~np.isnan(original).any(axis=1)
    assert judged.mean() > 0.9
    turn = (
        Rotation.from_quat(back[judged], scalar_first=True)
        * Rotation.from_quat(original[judged], scalar_first=True).inv()
    )
    error = np.degrees(turn.magnitude())
    print(f"\n95 %: {np.percentile(error, 95):.3f} degrees, median {np.median(error):.3f}")
    assert np.percentile(error, 95) <= 2.5


def test_the_huskys_odometry_agrees_with_numpy_interp(recordings):
    name = "/husky_velocity_controller/odom.position"
    with open_recording(recordings / "husky_mcap") as recording:
        episode = recording.read_episode(0, [name, "/imu/data.angular_velocity"])
    aligned = align_episode(episode, Align(Rate(50)))
    stream, start_ns = episode.streams[name], int(aligned.times_ns[0])
    assert start_ns > 10**18, "the recording has real epoch stamps"
    for column in range(3):
        want = np.interp(
            (aligned.times_ns - start_ns).astype(np.float64),
            (stream.times_ns - start_ns).astype(np.float64),
            stream.values[:, column],
        )
        np.testing.assert_allclose(aligned.data[name][:, column], want, rtol=0, atol=1e-9)


def test_a_dataset_aligned_to_its_own_rate_is_unchanged(recordings):
    with open_recording(recordings / "g1_lerobot_v30") as recording:
        episode = recording.read_episode(3)
    aligned = align_episode(episode, Align(Rate(30)))
    for name, stream in episode.streams.items():
        found = aligned.data[name] if stream.frames is None else aligned.images[name].row[:, None]
        np.testing.assert_array_equal(found, stream.values)
        np.testing.assert_array_equal(aligned.times_ns, stream.times_ns)
        assert aligned.valid[name].all()
        assert not aligned.age_ns[name].any()
