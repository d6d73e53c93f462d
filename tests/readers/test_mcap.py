"""MCAP: every number is what the format's own decoder says, however the messages are packed."""

import time

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as RawWriter
from mcap_ros2.decoder import DecoderFactory

from robocache.errors import ClosedError, DamagedRecordingError, RecordingLimitError, UnknownStreamError
from robocache.readers import Limits, Recording, open_recording, stream_statistics

from .conftest import (  # noqa: TID252 -- tests are not an installed package
    JOINT_STATE,
    POINT_CLOUD,
    START_NS,
    WRENCH,
    cloud_message,
    header,
    joint_message,
    recording,
    write_mcap,
)

XYZ, XYZW = "xyz", "xyzw"
PATHS = {
    "/imu/data.orientation": ("orientation", XYZW),
    "/imu/data.angular_velocity": ("angular_velocity", XYZ),
    "/imu/data.linear_acceleration": ("linear_acceleration", XYZ),
    "/husky_velocity_controller/odom.position": ("pose.pose.position", XYZ),
    "/husky_velocity_controller/odom.orientation": ("pose.pose.orientation", XYZW),
    "/husky_velocity_controller/odom.linear_velocity": ("twist.twist.linear", XYZ),
    "/husky_velocity_controller/odom.angular_velocity": ("twist.twist.angular", XYZ),
    "/fix.fix": ("", ("latitude", "longitude", "altitude")),
}


def decoded(path):
    """Messages by topic as (log, publish, message), from the format's own library, in the file's order."""
    topics = {}
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded_message in reader.iter_decoded_messages(log_time_order=False):
            topics.setdefault(channel.topic, []).append((message.log_time, message.publish_time, decoded_message))
    return topics


def at(message, path):
    for name in filter(None, path.split(".")):
        message = getattr(message, name)
    return message


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture(scope="module")
def husky():
    path = recording("husky_mcap") / "husky.mcap"
    with open_recording(path) as opened:
        return opened.read_episode(0), decoded(path)


@pytest.mark.parametrize("name", PATHS)
def test_husky_is_what_the_library_decodes(husky, name):
    episode, messages = husky
    stream = episode.streams[name]
    path, members = PATHS[name]
    rows = sorted(messages[name.rpartition(".")[0]], key=lambda row: stamp_ns(row[2]))
    expected = [[getattr(at(message, path), member) for member in members] for _, _, message in rows]
    np.testing.assert_array_equal(stream.values, np.array(expected))
    np.testing.assert_array_equal(stream.clocks["log"], [row[0] for row in rows])
    np.testing.assert_array_equal(stream.clocks["publish"], [row[1] for row in rows])
    np.testing.assert_array_equal(stream.times_ns, [stamp_ns(row[2]) for row in rows])
    assert stream.clock == "header"
    assert stream.columns == tuple(members)
    assert stream.kind == ("quaternion_xyzw" if members == XYZW else "vector")


def test_husky_streams_and_attributes(husky):
    episode, _ = husky
    assert set(episode.streams) == set(PATHS)
    assert episode.name == "husky"
    assert episode.attributes["profile"] == "ros2"
    assert episode.attributes["skipped"] == {}


def test_husky_imu_header_starts_36_ms_before_its_log_and_drifts(husky):
    statistics = stream_statistics(husky[0].streams["/imu/data.orientation"])
    first, last = statistics.clock_offset_ends_ns["log"]
    assert first == pytest.approx(36e6, abs=0.3e6)
    assert last == pytest.approx(21e6, abs=0.3e6)
    assert statistics.rate_hz == pytest.approx(30.01, abs=0.01)
    assert statistics.duplicates == 0
    assert statistics.gaps == ()


def test_a_folder_around_one_file_is_that_file(husky):
    with open_recording(recording("husky_mcap")) as opened:
        assert isinstance(opened, Recording)
        assert (opened.format, opened.episode_names) == ("mcap", ("husky",))
        assert opened.path.endswith("husky.mcap")


def test_husky_is_read_ten_times_as_fast_as_the_library_does(husky):
    path = recording("husky_mcap") / "husky.mcap"

    def seconds(read):
        start = time.perf_counter()
        read()
        return time.perf_counter() - start

    with open_recording(path) as opened:
        ours = min(seconds(lambda: opened.read_episode(0)) for _ in range(3))
    assert 10 * ours < seconds(lambda: decoded(path))


@pytest.mark.parametrize("chunk_size", [2_000, 2**20], ids=["many_chunks", "one_chunk"])
@pytest.mark.parametrize("compression", list(CompressionType), ids=lambda kind: kind.name)
def test_messages_of_every_size_and_order(tmp_path, compression, chunk_size):
    """Frames of different lengths change every place behind them; missing velocities change the alignment."""
    randomly = np.random.default_rng(1)
    times = START_NS + randomly.permutation(300) * 1_000_000
    messages = [
        (int(time) + 3_000, joint_message(int(time), frame="f" * int(randomly.integers(0, 9)))) for time in times
    ]
    topics = {"/joint_states": ("sensor_msgs/msg/JointState", JOINT_STATE, messages)}
    path = write_mcap(tmp_path / "a.mcap", topics, compression=compression, chunk_size=chunk_size)
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
    rows = sorted(decoded(path)["/joint_states"], key=lambda row: stamp_ns(row[2]))
    assert list(streams) == ["/joint_states.position", "/joint_states.velocity", "/joint_states.effort"]
    for name, stream in streams.items():
        np.testing.assert_array_equal(stream.values, [getattr(row[2], name.rpartition(".")[2]) for row in rows])
        np.testing.assert_array_equal(stream.times_ns, [stamp_ns(row[2]) for row in rows])
        np.testing.assert_array_equal(stream.clocks["log"], [row[0] for row in rows])
        assert stream.columns == ("a", "b", "c")


def test_an_empty_sequence_aligns_nothing(tmp_path):
    messages = [(START_NS, joint_message(START_NS, ("a", "bb"), velocity=False))]
    path = write_mcap(tmp_path / "a.mcap", {"/j": ("sensor_msgs/msg/JointState", JOINT_STATE, messages)})
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
    assert list(streams) == ["/j.position", "/j.effort"]
    np.testing.assert_array_equal(streams["/j.effort"].values, [messages[0][1]["effort"]])


def test_two_publishers_on_one_topic_become_streams_of_their_own(tmp_path):
    times = [START_NS + number * 1_000_000 for number in range(20)]
    names = [("arm_1", "arm_2"), ("gripper",)]
    messages = [(time, joint_message(time, names[number % 2])) for number, time in enumerate(times)]
    path = write_mcap(tmp_path / "a.mcap", {"/joint_states": ("sensor_msgs/msg/JointState", JOINT_STATE, messages)})
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
        again = opened.read_episode(0, ["/joint_states#2.position"]).streams
    arm, gripper = streams["/joint_states.position"], streams["/joint_states#2.position"]
    assert (arm.columns, gripper.columns) == tuple(names)
    np.testing.assert_array_equal(arm.values, [message["position"] for _, message in messages[::2]])
    np.testing.assert_array_equal(gripper.values, [message["position"] for _, message in messages[1::2]])
    np.testing.assert_array_equal(gripper.times_ns, times[1::2])
    assert list(again) == ["/joint_states#2.position"]


def test_without_header_stamps_the_log_clock_is_used(tmp_path):
    messages = [(START_NS + number, joint_message(0)) for number in (3, 1, 2)]
    path = write_mcap(tmp_path / "a.mcap", {"/j": ("sensor_msgs/msg/JointState", JOINT_STATE, messages)})
    with open_recording(path) as opened:
        stream = opened.read_episode(0).streams["/j.position"]
    assert (stream.clock, set(stream.clocks)) == ("log", {"log", "publish"})
    np.testing.assert_array_equal(stream.times_ns, START_NS + np.array([1, 2, 3]))


def test_a_schema_with_defaults_and_short_names(tmp_path):
    wrench = {"force": {"x": 1.0, "y": 2.0, "z": 3.0}, "torque": {"x": 4.0, "y": 5.0, "z": 6.0}}
    messages = [(START_NS, {"header": header(START_NS), "wrench": wrench})]
    path = write_mcap(tmp_path / "a.mcap", {"/ft": ("geometry_msgs/msg/WrenchStamped", WRENCH, messages)})
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
    np.testing.assert_array_equal(streams["/ft.force"].values, [[1, 2, 3]])
    np.testing.assert_array_equal(streams["/ft.torque"].values, [[4, 5, 6]])


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_clouds_of_different_sizes(tmp_path, order):
    randomly = np.random.default_rng(2)
    clouds = [np.c_[randomly.normal(size=(n, 3)).astype(np.float32), randomly.integers(0, 64, n)] for n in (5, 0, 7, 5)]
    times = START_NS + np.array([3, 0, 1, 2]) * 100_000_000
    messages = [
        (int(time) + 1, cloud_message(int(time), cloud, order=order)) for time, cloud in zip(times, clouds, strict=True)
    ]
    path = write_mcap(tmp_path / "a.mcap", {"/points": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, messages)})
    with open_recording(path) as opened:
        stream = opened.read_episode(0).streams["/points.points"]
        assert (stream.kind, stream.columns, stream.values.dtype) == ("points", ("x", "y", "z", "ring"), np.float32)
        np.testing.assert_array_equal(stream.times_ns, np.sort(times))
        for scan, cloud in enumerate([clouds[1], clouds[2], clouds[3], clouds[0]]):
            np.testing.assert_array_equal(stream.values[stream.offsets[scan] : stream.offsets[scan + 1]], cloud)


def test_what_cannot_become_numbers_is_listed(tmp_path, joints_mcap):
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = RawWriter(file)
        writer.start()
        text = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        wide = writer.register_schema("sensor_msgs/msg/Imu", "ros2msg", b"wstring data")
        channels = [
            writer.register_channel("/text", "cdr", text),
            writer.register_channel("/json", "json", text),
            writer.register_channel("/wide", "cdr", wide),
        ]
        for channel in channels:
            writer.add_message(channel, START_NS, b"\0\1\0\0\0\0\0\0", START_NS)
        writer.finish()
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert episode.streams == {}
    skipped = episode.attributes["skipped"]
    assert skipped["/text"] == "std_msgs/msg/String is not a message that becomes numbers"
    assert skipped["/json"] == "json messages with a ros2msg schema"
    assert "wstring" in skipped["/wide"]


def test_only_what_is_asked_for_is_read(joints_mcap):
    with open_recording(joints_mcap) as opened:
        assert list(opened.read_episode(0, ["/joint_states.effort"]).streams) == ["/joint_states.effort"]
        assert opened.read_episode(0, []).streams == {}
        with pytest.raises(UnknownStreamError, match=r"no stream '/joints'; it has /joint_states\.position, /joint"):
            opened.read_episode(0, ["/joints"])
    with pytest.raises(ClosedError):
        opened.read_episode(0)


def test_a_message_shorter_than_its_definition_is_damage(tmp_path):
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = RawWriter(file)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/JointState", "ros2msg", JOINT_STATE.encode())
        channel = writer.register_channel("/j", "cdr", schema)
        writer.add_message(channel, START_NS, b"\0\1\0\0" + bytes(6), START_NS)
        writer.finish()
    with (
        open_recording(path) as opened,
        pytest.raises(DamagedRecordingError, match=r"topic /j: a .* has 10 bytes, but header.stamp.nanosec needs 4"),
    ):
        opened.read_episode(0)


def test_limits_of_an_episode_and_of_a_chunk(joints_mcap):
    for limits, match in [
        (Limits(episode_bytes=1_000), r"the limit is 1000; .*raise Limits\(episode_bytes"),
        (Limits(block_bytes=1_000), "and 1000 are allowed|larger than the limit of 1000"),
    ]:
        with open_recording(joints_mcap, limits=limits) as opened, pytest.raises(RecordingLimitError, match=match):
            opened.read_episode(0)
