"""The synthetic robot: its truth is true, its faults are where it says, and it is the same every time."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robocache.errors import ArgumentError, ClosedError, UnknownStreamError
from robocache.readers import Recording, SyntheticRobot
from robocache.readers.synthetic import START_NS
from robocache.readers.synthetic_camera import Camera

SCENE = "/scene.image"

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


@pytest.fixture(scope="module")
def filmed():
    return SyntheticRobot(seed=3, duration_s=10, episodes=2, camera=(72, 96))


def test_a_camera_changes_nothing_else(filmed, episode):
    """Fails when the signals or stamps of the other streams depend on the camera."""
    with_camera = filmed.read_episode(0)
    assert list(with_camera.streams) == [*episode.streams, SCENE]
    for name, stream in episode.streams.items():
        assert stream.values.tobytes() == with_camera.streams[name].values.tobytes()
        assert stream.times_ns.tobytes() == with_camera.streams[name].times_ns.tobytes()


def test_pictures_show_their_header_stamp_and_the_arm(filmed):
    """Fails when a picture is of another moment or episode, or the arm is not where complex numbers put it."""
    for index in (0, 1):
        stream = filmed.read_episode(index, [SCENE]).streams[SCENE]
        assert np.median(np.diff(stream.times_ns)) == pytest.approx(1e9 / 15, rel=0.03)
        late = stream.clocks["log"] - stream.clocks["header"]
        assert late.min() >= filmed.true_offset_ns(SCENE) == 60_000_000
        pictures = stream.frames.read(stream.values[::10, 0])
        assert pictures.shape == (len(stream.times_ns[::10]), 72, 96, 3)
        bits = (pictures[:, 68, 3::6, 1] > 128) @ (1 << np.arange(16)[::-1])
        np.testing.assert_array_equal(bits, (stream.times_ns[::10] - START_NS) // 10**6 % 2**16)
        joints = filmed.truth("/joint_states.position", stream.times_ns[::10], episode=index)
        hand = (48 + 63j) + (0.9 * 64 / 7) * (-1j * np.exp(0.5j * np.cumsum(joints, axis=1))).sum(axis=1)
        for picture, place in zip(pictures, hand, strict=True):
            row, column = int(np.clip(place.imag.round(), 0, 63)), int(np.clip(place.real.round(), 0, 95))
            assert picture[row, column].tolist() == [240, 240, 240]


def test_one_picture_is_drawn_when_it_is_asked_for(filmed, monkeypatch):
    """Fails when reading an episode draws its pictures."""
    drawn = []
    monkeypatch.setattr(
        Camera, "picture", lambda camera, since_ns: drawn.append(since_ns) or np.zeros((72, 96, 3), "u1")
    )
    stream = filmed.read_episode(0, [SCENE]).streams[SCENE]
    assert drawn == []
    stream.frames.read(np.array([5, 5]))
    assert drawn == [stream.times_ns[5] - START_NS]


def test_pictures_of_a_closed_robot_and_of_none_are_refused(robot):
    with SyntheticRobot(duration_s=1, camera=(24, 32)) as filmed:
        frames = filmed.read_episode(0).streams[SCENE].frames
    with pytest.raises(ClosedError):
        frames.read(np.array([0]))
    with pytest.raises(UnknownStreamError, match=r"no stream '/scene\.image'"):
        robot.picture(START_NS)
    with pytest.raises(ArgumentError, match=r"use picture\(time_ns\)"):
        SyntheticRobot(camera=(24, 32)).truth(SCENE, np.zeros(1, np.int64))


@pytest.mark.parametrize("camera", [(24, 31), (23, 32), (24.0, 32.0), (24, 32, 3), (5000, 32)])
def test_cameras_that_cannot_be(camera):
    with pytest.raises(ArgumentError, match="camera must be"):
        SyntheticRobot(camera=camera)


def test_another_camera_is_another_source():
    """Fails when a cache would serve pictures of another size for these."""
    made = [SyntheticRobot(camera=camera).episode_sources(0) for camera in (None, (24, 32), (32, 24 + 8), (24, 40))]
    assert len({str(sources) for sources in made}) == 4
