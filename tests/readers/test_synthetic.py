"""The synthetic robot: its truth is true, its faults are where it says, and it is the same every time."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robocache.errors import ArgumentError, ClosedError, UnknownStreamError
from robocache.readers import Recording, SyntheticRobot

RATES = {
    "/joint_states.position": 500,
    "/arm/hand.orientation": 500,
    "/imu.angular_velocity": 200,
    "/imu.linear_acceleration": 200,
    "/camera.features": 30,
    "/lidar.points": 10,
}
VECTORS = [name for name in RATES if name not in ("/lidar.points", "/arm/hand.orientation")]


@pytest.fixture(scope="module")
def robot():
    return SyntheticRobot(seed=3, duration_s=10)


@pytest.fixture(scope="module")
def episode(robot):
    return robot.read_episode(0)


def test_it_is_a_recording(robot):
    assert isinstance(robot, Recording)
    assert robot.format == "synthetic"
    assert robot.episode_names == ("episode_000000",)


def test_streams_run_at_their_rates(episode):
    for name, rate_hz in RATES.items():
        intervals = np.diff(episode.streams[name].times_ns)
        assert np.all(intervals > 0)
        assert np.median(intervals) == pytest.approx(1e9 / rate_hz, rel=0.03)


@pytest.mark.parametrize("name", VECTORS)
def test_recorded_values_are_the_truth_at_the_header_stamp(robot, episode, name):
    stream = episode.streams[name]
    truth = robot.truth(name, stream.clocks["header"])
    np.testing.assert_array_equal(stream.values, truth.astype(stream.values.dtype))
    assert np.ptp(truth, axis=0).min() > 0.05  # a signal that stands still would prove nothing


@pytest.mark.parametrize("name", VECTORS)
def test_truth_is_smooth_enough_for_numpy_to_interpolate_it(robot, name):
    start_ns = robot.read_episode(0, [name]).start_ns
    coarse = start_ns + np.arange(0, 5_000_000_000, 1_000_000)
    fine = coarse[:-1] + 500_000
    known, wanted = robot.truth(name, coarse), robot.truth(name, fine)
    for column in range(known.shape[1]):
        guess = np.interp(fine - start_ns, coarse - start_ns, known[:, column])
        assert np.abs(guess - wanted[:, column]).max() < 1e-5


def test_orientation_is_a_turning_unit_quaternion_whose_sign_jumps(robot, episode):
    values = episode.streams["/arm/hand.orientation"].values
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-12)
    steps = Rotation.from_quat(values[:-1]).inv() * Rotation.from_quat(values[1:])
    assert steps.magnitude().max() < np.deg2rad(15)  # never a jump of the rotation itself
    assert np.sum(values[1:] * values[:-1], axis=1).min() < -0.9  # but one of the numbers


def test_orientation_is_yaw_pitch_roll_as_scipy_composes_them(robot):
    from robocache.readers.synthetic_signals import Motion

    motion = Motion.from_seed(np.random.default_rng(5))
    seconds = np.linspace(0, 10, 500)
    angles = motion.angles.at(seconds) * [6.0, 0.8, 1.2]
    expected = Rotation.from_euler("ZYX", angles)
    apart = (expected.inv() * Rotation.from_quat(motion.orientation(seconds))).magnitude()
    assert apart.max() < 1e-6


@pytest.mark.parametrize("name", RATES)
def test_log_is_later_than_header_by_the_true_offset(robot, episode, name):
    stream = episode.streams[name]
    late = stream.clocks["log"] - stream.clocks["header"]
    period_ns = 1e9 / RATES[name]
    assert late.min() >= robot.true_offset_ns(name)
    assert np.median(late) - robot.true_offset_ns(name) < 0.05 * period_ns
    assert np.all(np.diff(stream.clocks["log"]) >= 0)


@pytest.mark.parametrize("name", ["/joint_states.position", "/camera.features"])
def test_nothing_is_recorded_in_a_gap(robot, episode, name):
    times_ns = episode.streams[name].times_ns
    first, last = robot.gap_ns(name)
    assert not np.any((times_ns >= first) & (times_ns <= last))
    widest = np.argmax(np.diff(times_ns))
    assert times_ns[widest] < first
    assert times_ns[widest + 1] > last
    whole = SyntheticRobot(seed=3, duration_s=10, has_gaps=False)
    assert whole.gap_ns(name) is None
    assert len(whole.read_episode(0, [name]).streams[name].times_ns) == 10 * RATES[name] + 1


def test_scans_are_on_the_walls_and_lose_every_tenth_ray(robot, episode):
    stream = episode.streams["/lidar.points"]
    counts = np.diff(stream.offsets)
    assert len(counts) == len(stream.times_ns)
    assert counts.sum() == len(stream.values)
    assert 0.85 < counts.mean() / 2048 < 0.95
    first = stream.values[: stream.offsets[1]].astype(np.float64)
    whole = robot.scan(int(stream.times_ns[0]))
    distance = np.linalg.norm(first[:, None, :] - whole[None], axis=2).min(axis=1)
    assert distance.max() < 1e-5
    # Seen from the lidar, opposite walls of a 9 x 7 x 3 room are that far apart.
    np.testing.assert_allclose(np.ptp(whole, axis=0), [9, 7, 3], atol=1e-9)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(episode):
    again = SyntheticRobot(seed=3, duration_s=10).read_episode(0)
    other = SyntheticRobot(seed=4, duration_s=10).read_episode(0)
    for name, stream in episode.streams.items():
        assert stream.values.tobytes() == again.streams[name].values.tobytes()
        assert stream.times_ns.tobytes() == again.streams[name].times_ns.tobytes()
        assert stream.values.tobytes() != other.streams[name].values.tobytes()


def test_one_stream_alone_is_the_same_as_among_all(robot, episode):
    alone = robot.read_episode(0, ["/imu.angular_velocity"])
    assert list(alone.streams) == ["/imu.angular_velocity"]
    np.testing.assert_array_equal(
        alone.streams["/imu.angular_velocity"].values, episode.streams["/imu.angular_velocity"].values
    )


def test_episodes_differ_and_each_has_its_truth():
    robot = SyntheticRobot(seed=1, duration_s=2, episodes=2)
    first, second = (robot.read_episode(index, ["/camera.features"]).streams["/camera.features"] for index in (0, 1))
    assert not np.array_equal(first.values, second.values)
    truth = robot.truth("/camera.features", second.times_ns, episode=1)
    np.testing.assert_array_equal(second.values, truth.astype(np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"duration_s": 0.0}, "duration_s must be greater than 0"),
        ({"duration_s": float("nan")}, "duration_s must be greater than 0"),
        ({"episodes": 0}, "episodes must be 1 or more, got 0"),
        ({"lidar_points": 0}, "lidar_points must be 1 or more, got 0"),
        ({"jitter": 0.4}, "jitter must be 0 to 0.3"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        SyntheticRobot(**arguments)


def test_wrong_requests_are_named(robot):
    with pytest.raises(UnknownStreamError, match=r"no stream '/imu'; it has /joint_states\.position, "):
        robot.read_episode(0, ["/imu"])
    with pytest.raises(UnknownStreamError, match="no stream '/imu'"):
        robot.truth("/imu", np.zeros(1, np.int64))
    with pytest.raises(ArgumentError, match=r"points.*scan\(time_ns\)"):
        robot.truth("/lidar.points", np.zeros(1, np.int64))
    with pytest.raises(ArgumentError, match="index must be 0 to 0"):
        robot.read_episode(1)
    with pytest.raises(ArgumentError, match=r"write \['/lidar\.points'\]"):
        robot.read_episode(0, "/lidar.points")


def test_reading_after_close_is_refused():
    with SyntheticRobot(duration_s=1) as robot:
        robot.close()
    with pytest.raises(ClosedError, match="is closed"):
        robot.read_episode(0)
