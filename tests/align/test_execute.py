"""Aligned values are judged by numpy.interp, scipy and pandas, on differences of int64 nanoseconds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.spatial.transform import Slerp as ScipySlerp

from robocache.align import Align, Follow, From, Rate, align_episode, plan_alignment
from robocache.align.plan import median_period_ns
from robocache.errors import BackendUnavailableError, DeviceError, DTypeError
from robocache.policies import Linear, Nearest, Previous, Slerp
from robocache.readers import SyntheticRobot
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


def recorded(name, times_ns, values, **fields):
    times_ns = np.asarray(times_ns, dtype=np.int64)
    return RecordedStream(name, values, times_ns, {"header": times_ns}, "header", **fields)


def jittered(rate_hz, seconds, seed):
    generator = np.random.default_rng(seed)
    count = int(rate_hz * seconds)
    wander = generator.uniform(-0.4, 0.4, count)
    return EPOCH + np.rint((np.arange(count) + wander) / rate_hz * 1e9).astype(np.int64)


def episode(*streams):
    return Episode("e0", {stream.name: stream for stream in streams}, "run.mcap", {"task": "fold"})


def interp(stream, times_ns, column):
    start = times_ns[0]
    return np.interp(
        (times_ns - start).astype(np.float64), (stream.times_ns - start).astype(np.float64), stream.values[:, column]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
def test_vectors_agree_with_numpy_interp_at_epoch_nanoseconds(dtype):
    generator = np.random.default_rng(0)
    arm = recorded("arm", jittered(500, 4, 1), generator.normal(size=(2000, 7)).astype(dtype))
    imu = recorded("imu", jittered(200, 4, 2), generator.normal(size=(800, 3)).astype(dtype))
    aligned = align_episode(episode(arm, imu), Align(Rate(50)))
    assert aligned.fused.shape == (len(aligned.times_ns), 10)
    for stream in (arm, imu):
        got = aligned.data[stream.name].double().numpy()
        want = np.stack([interp(stream, aligned.times_ns, column) for column in range(got.shape[1])], axis=1)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 if "8" in dtype or dtype == "float64" else 2e-6)
        assert aligned.valid[stream.name].all()
        np.testing.assert_array_equal(aligned.fused[:, aligned.slices[stream.name]], aligned.data[stream.name])
    assert aligned.attributes == {"task": "fold"}


def test_a_latency_shifts_the_signal_by_exactly_that():
    times = jittered(200, 4, 3)
    signal = ((times - EPOCH) / 1e9)[:, None]
    spec = Align(Rate(50), {"late": From("s", Linear(), latency="36ms"), "raw": From("s", Linear())})
    aligned = align_episode(episode(recorded("s", times, signal)), spec)
    difference = (aligned.data["late"] - aligned.data["raw"])[5:-5, 0]
    np.testing.assert_allclose(difference, 0.036, atol=1e-6)


def test_a_gap_is_not_valid_and_nothing_else_is():
    times = EPOCH + np.delete(np.arange(400), np.s_[200:260]) * 10 * MS
    stream = recorded("s", times, np.arange(340, dtype=np.float64)[:, None])
    aligned = align_episode(episode(stream), Align(Rate(100)))
    in_gap = (aligned.times_ns > EPOCH + 199 * 10 * MS) & (aligned.times_ns < EPOCH + 260 * 10 * MS)
    np.testing.assert_array_equal(aligned.valid["s"].numpy(), ~in_gap)
    assert aligned.age_ns["s"].max() == 600 * MS


def test_sample_age_and_holds_agree_with_pandas_merge_asof():
    times, targets = jittered(30, 5, 4), jittered(97, 4, 5) + 300 * MS
    values = np.arange(len(times), dtype=np.int64)[:, None]
    source = pd.DataFrame({"t": times, "used_ns": times, "value": values[:, 0]})
    clock = recorded("clock", targets, np.zeros((len(targets), 1)))
    for policy, direction in ((Previous(), "backward"), (Nearest(), "nearest")):
        spec = Align(Follow("clock"), {"clock": From("clock"), "s": From("s", policy)})
        aligned = align_episode(episode(clock, recorded("s", times, values)), spec)
        frames = pd.DataFrame({"t": aligned.times_ns})
        judged = pd.merge_asof(frames, source, on="t", direction=direction)
        np.testing.assert_array_equal(aligned.data["s"][:, 0], judged["value"])
        np.testing.assert_array_equal(aligned.age_ns["s"], judged["t"] - judged["used_ns"])


def test_of_two_scans_equally_near_the_earlier_is_used():
    samples = recorded("s", [0, 20 * MS], np.array([[0], [1]]))
    clock = recorded("clock", [0, 10 * MS, 11 * MS], np.zeros((3, 1)))
    spec = Align(Follow("clock"), {"clock": From("clock"), "s": From("s", Nearest())})
    aligned = align_episode(episode(samples, clock), spec)
    assert aligned.data["s"][:, 0].tolist() == [0, 0, 1]
    assert aligned.age_ns["s"].tolist() == [0, 10 * MS, -9 * MS]


def test_quaternions_agree_with_scipy_slerp_whatever_their_signs():
    generator = np.random.default_rng(6)
    times = jittered(50, 4, 7)
    truth = Rotation.from_rotvec(np.cumsum(generator.normal(0, 0.1, (200, 3)), axis=0))
    quaternions = truth.as_quat() * generator.choice([-1.0, 1.0], (200, 1))
    aligned = align_episode(episode(recorded("q", times, quaternions, kind="quaternion_xyzw")), Align(Rate(333)))
    judged = ScipySlerp((times - EPOCH) / 1e9, truth)((aligned.times_ns - EPOCH) / 1e9)
    error = (Rotation.from_quat(aligned.data["q"].numpy()) * judged.inv()).magnitude()
    assert error.max() < 1e-6


def test_streams_of_several_dtypes_keep_theirs_and_integers_stay_out_of_the_fusion():
    times = jittered(100, 2, 8)
    streams = (
        recorded("single", times, np.ones((200, 2), np.float32)),
        recorded("mode", times, np.full((200, 1), 2**53 + 1, np.int64)),
        recorded("double", times, np.ones((200, 3))),
        recorded("on", times, np.ones((200, 1), np.bool_)),
        recorded("raw", times, np.full((200, 1), 65_535, np.uint16)),
    )
    aligned = align_episode(episode(*streams), Align(Rate(10)))
    assert list(aligned.data) == ["single", "mode", "double", "on", "raw"]
    dtypes = {name: data.dtype for name, data in aligned.data.items()}
    assert dtypes == {
        "single": torch.float32, "mode": torch.int64, "double": torch.float64, "on": torch.bool, "raw": torch.int32,
    }  # fmt: skip
    assert aligned.data["mode"].unique().tolist() == [2**53 + 1]
    assert aligned.data["raw"].unique().tolist() == [65_535]
    assert aligned.fused.dtype == torch.float64
    assert aligned.slices == {"single": slice(0, 2), "double": slice(2, 5)}


def test_rows_with_a_nan_are_bridged_and_long_losses_are_not_valid():
    times = EPOCH + np.arange(100) * 10 * MS
    values = np.arange(100, dtype=np.float64)[:, None].copy()
    values[20] = values[50:60] = np.nan
    aligned = align_episode(episode(recorded("s", times, values)), Align(Rate(100)))
    np.testing.assert_allclose(aligned.data["s"][:, 0], np.arange(100), atol=1e-9)
    assert np.flatnonzero(~aligned.valid["s"].numpy()).tolist() == list(range(50, 60))


def test_each_frame_uses_the_scan_nearest_to_it():
    robot = SyntheticRobot(seed=3, duration_s=3.0, lidar_points=64)
    recording = robot.read_episode(0)
    aligned = align_episode(recording, Align(Rate(50)))
    lidar = recording.streams["/lidar.points"]
    distances = np.abs(aligned.times_ns[:, None] - lidar.times_ns[None])
    np.testing.assert_array_equal(aligned.scans["/lidar.points"].scan, distances.argmin(axis=1))
    np.testing.assert_array_equal(np.abs(aligned.age_ns["/lidar.points"]), distances.min(axis=1))
    limit = 3 * median_period_ns(lidar.times_ns) // 2
    np.testing.assert_array_equal(aligned.valid["/lidar.points"], distances.min(axis=1) <= limit)
    scan = int(aligned.scans["/lidar.points"].scan[7])
    want = lidar.values[lidar.offsets[scan] : lidar.offsets[scan + 1]]
    np.testing.assert_array_equal(aligned.scans["/lidar.points"].points(7), want)


def test_the_synthetic_robot_comes_back_near_its_analytic_truth():
    robot = SyntheticRobot(seed=1, duration_s=5.0, lidar_points=8)
    aligned = align_episode(robot.read_episode(0), Align(Rate(50)))
    for name in aligned.data:
        valid = aligned.valid[name].numpy()
        got = aligned.data[name].double().numpy()[valid]
        truth = robot.truth(name, aligned.times_ns[valid])
        assert valid.mean() > 0.85
        if "orientation" in name:
            truth = truth * np.sign((truth * got).sum(axis=1, keepdims=True))
        # The steepest wave is 1.5 at 1 Hz, sampled at 30 Hz: a chord errs by 1.5 * (2 pi)^2 / 8 / 30^2.
        assert np.abs(got - truth).max() < 1.5 * (2 * np.pi) ** 2 / 8 / 30**2 * 2


def test_no_frame_in_the_overlap_gives_empty_results():
    spec = Align(Follow("b"), {"a": From("a"), "b": From("b")})
    short = recorded("a", [EPOCH + MS], np.ones((1, 2)))
    other = recorded("b", [EPOCH, EPOCH + 2 * MS], np.ones((2, 1)))
    aligned = align_episode(episode(short, other), spec)
    assert aligned.data["a"].shape == (0, 2)
    assert aligned.fused.shape == (0, 3)


def test_text_cannot_be_aligned_and_numbers_beyond_int64_are_not_cut():
    times = [EPOCH, EPOCH + MS]
    with pytest.raises(
        DTypeError, match=r"^stream 's' holds <U1, which cannot be aligned: only numbers and bools can$"
    ):
        align_episode(episode(recorded("s", times, np.array([["a"], ["b"]]))), Align(Rate(10)))
    with pytest.raises(DTypeError, match=r"^stream 's' holds 18446744073709551615, beyond the largest int64$"):
        align_episode(episode(recorded("s", times, np.full((2, 1), 2**64 - 1, np.uint64))), Align(Rate(10)))


def test_the_readers_arrays_are_not_written_to_and_may_be_read_only():
    values = np.ones((10, 2))
    values.setflags(write=False)
    aligned = align_episode(episode(recorded("s", EPOCH + np.arange(10) * MS, values)), Align(Rate(1000)))
    aligned.data["s"].zero_()
    assert values.all()


def test_a_backend_that_cannot_run_here_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: the backend can run")
    stream = recorded("s", EPOCH + np.arange(10) * MS, np.ones((10, 2)))
    with pytest.raises(BackendUnavailableError, match="cuda"):
        align_episode(episode(stream), Align(Rate(10)), backend="cuda")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", r"^device is 'cuda:99', but PyTorch sees \d+ CUDA devices; use"),
        ("gpu", r"^device must name one, .* 'gpu'$"),
    ],
)
def test_a_device_that_is_not_there_is_named(device, message):
    stream = recorded("s", EPOCH + np.arange(10) * MS, np.ones((10, 2)))
    with pytest.raises(DeviceError, match=message):
        align_episode(episode(stream), Align(Rate(10)), device=device)


def test_a_policy_of_the_description_wins_over_the_default():
    stream = recorded("s", EPOCH + np.arange(10) * MS, np.tile([1.0, 0, 0, 0], (10, 1)), kind="vector")
    spec = Align(Rate(10), {"s": From("s", Slerp(order="wxyz"))})
    assert plan_alignment(episode(stream), spec).streams[0].policy == Slerp(order="wxyz")
    assert align_episode(episode(stream), spec).policies == {"s": Slerp(order="wxyz")}
