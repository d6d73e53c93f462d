"""Topics of real robots that do not look like their definition's best case: what they cost, and what they do not."""

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from robocache.errors import DamagedRecordingError, UnknownStreamError
from robocache.readers import open_recording

from .conftest import (  # noqa: TID252 -- tests are not an installed package
    HEADER_PARTS,
    JOINT_STATE,
    POINT_CLOUD,
    START_NS,
    cloud_message,
    header,
    joint_message,
    write_mcap,
)

SCAN = f"std_msgs/Header header\nfloat32[] ranges\n{HEADER_PARTS}"
POSE = (
    f"std_msgs/Header header\nPoint point\n{'=' * 80}\nMSG: geometry_msgs/Point\nfloat64 x\nfloat64 y\nfloat64 z\n"
    f"{HEADER_PARTS}"
)


def messages(make, count):
    return [(START_NS + row, make(row)) for row in range(count)]


def test_a_topic_of_ever_changing_width_leaves_the_others_readable(tmp_path):
    """A lidar without angle compensation. Fails where the columns of its scans are an error of the whole file."""
    path = write_mcap(
        tmp_path / "a.mcap",
        {
            "/scan": (
                "sensor_msgs/msg/LaserScan",
                SCAN,
                messages(lambda row: {"header": header(START_NS + row), "ranges": [0.0] * (100 + row)}, 40),
            ),
            "/joints": (
                "sensor_msgs/msg/JointState",
                JOINT_STATE,
                messages(lambda row: joint_message(START_NS + row), 40),
            ),
        },
    )
    with open_recording(path) as opened:
        for span in ({}, {"start_ns": START_NS + 30}):
            episode = opened.read_episode(0, **span)
            assert list(episode.streams) == ["/joints.position", "/joints.velocity", "/joints.effort"]
            assert episode.attributes["skipped"] == {
                "/scan": "its messages have more than 16 different sets of columns"
            }
            with pytest.raises(UnknownStreamError, match=r"'/scan\.ranges' \(/scan: its messages have more than 16"):
                opened.read_episode(0, ["/scan.ranges"], **span)


def test_a_topic_of_ever_changing_fields_leaves_the_others_readable(tmp_path):
    """Fails where the fields of clouds are an error of the whole file."""

    def renamed(row):
        cloud = cloud_message(START_NS + row, np.zeros((3, 4)))
        cloud["fields"][3]["name"] = f"f{row}"
        return cloud

    topics = {"/points": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, messages(renamed, 20))}
    with open_recording(write_mcap(tmp_path / "a.mcap", topics)) as opened:
        for span in ({}, {"start_ns": START_NS + 10}):
            episode = opened.read_episode(0, **span)
            assert not episode.streams
            assert episode.attributes["skipped"] == {
                "/points": "its clouds have more than 16 different sets of columns"
            }


def test_clouds_without_xyz_leave_the_others_readable(tmp_path):
    """A radar's ranges and angles. Fails where they are an error of the whole file, or hide such a change later on."""

    def polar(row):
        cloud = cloud_message(START_NS + row, np.zeros((3, 4)))
        for field, name in zip(cloud["fields"], ("range", "azimuth", "elevation", "power"), strict=True):
            field["name"] = name
        return cloud

    def usual(row):
        return cloud_message(START_NS + row, np.zeros((3, 4)))

    radar = ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, messages(polar, 5))
    joints = ("sensor_msgs/msg/JointState", JOINT_STATE, messages(lambda row: joint_message(START_NS + row), 5))
    with open_recording(write_mcap(tmp_path / "a.mcap", {"/radar": radar, "/joints": joints})) as opened:
        for span in ({}, {"start_ns": START_NS + 2}):
            episode = opened.read_episode(0, **span)
            assert list(episode.streams) == ["/joints.position", "/joints.velocity", "/joints.effort"]
            reason = "its first cloud has the point fields range, azimuth, elevation, power, not x, y, z once each"
            assert episode.attributes["skipped"] == {"/radar": reason}
    changed = ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, [*messages(usual, 2), *radar[2][2:]])
    path = write_mcap(tmp_path / "b.mcap", {"/radar": changed})
    with open_recording(path) as opened, pytest.raises(DamagedRecordingError, match=r"topic /radar: .* range, az"):
        opened.read_episode(0)


def test_joints_without_names_are_numbered(tmp_path):
    """As some drivers publish them. Fails where as many names as positions are asked for."""

    def nameless(row):
        return {**joint_message(START_NS + row), "name": []}

    topics = {"/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, messages(nameless, 5))}
    with open_recording(write_mcap(tmp_path / "a.mcap", topics)) as opened:
        stream = opened.read_episode(0).streams["/joints.position"]
    assert stream.columns == ("0", "1", "2")
    np.testing.assert_array_equal(stream.values, [nameless(row)["position"] for row in range(5)])


def test_numbers_that_are_not_one_a_joint_are_numbered(tmp_path):
    """An effort of the gripper alone. Fails where it is an error of the whole file, or gets the first joint's name."""

    def odd(row):
        return {**joint_message(START_NS + row), "effort": [float(row)]}

    topics = {"/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, messages(odd, 5))}
    with open_recording(write_mcap(tmp_path / "a.mcap", topics)) as opened:
        streams = opened.read_episode(0).streams
    assert [stream.columns for stream in streams.values()] == [("a", "b", "c"), ("a", "b", "c"), ("0",)]
    assert streams["/joints.effort"].values.tolist() == [[0], [1], [2], [3], [4]]
    np.testing.assert_array_equal(streams["/joints.position"].values, [odd(row)["position"] for row in range(5)])


def test_a_message_without_numbers_is_no_stream(tmp_path):
    """Joints before the first of them is known. Fails where such a message takes the topic's name from the others."""
    empty = {"header": header(START_NS), "name": [], "position": [], "velocity": [], "effort": []}
    rows = [(START_NS, empty), *messages(lambda row: joint_message(START_NS + row), 5)]
    topics = {"/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, rows)}
    with open_recording(write_mcap(tmp_path / "a.mcap", topics)) as opened:
        for span in ({}, {"start_ns": START_NS + 1}):
            streams = opened.read_episode(0, ["/joints.position", "/joints.effort"], **span).streams
            assert list(streams) == ["/joints.position", "/joints.effort"]
        assert len(opened.read_episode(0).streams) == 3


def test_a_topic_may_have_a_number_sign(tmp_path):
    """As no topic of ROS has, but those of MCAP may. Fails where all before the sign is taken for the topic."""
    topics = {"/arm#2": ("sensor_msgs/msg/JointState", JOINT_STATE, messages(lambda row: joint_message(row + 1), 5))}
    with open_recording(write_mcap(tmp_path / "a.mcap", topics)) as opened:
        assert list(opened.read_episode(0, ["/arm#2.position"]).streams) == ["/arm#2.position"]


def test_equal_stamps_keep_the_order_of_the_file(tmp_path):
    """Of two rows with one stamp the last one counts, so it must be the one recorded last, whatever its size is.

    Fails where messages stay sorted by their sizes, as they are decoded.
    """
    frames = ["map_of_the_house", "odom", "base", "b"]

    def make(row):
        stamp = header(START_NS + row // 8, frames[row % 4])
        return {"header": stamp, "point": {"x": float(row), "y": 0.0, "z": 0.0}}

    path = write_mcap(tmp_path / "a.mcap", {"/point": ("geometry_msgs/msg/PointStamped", POSE, messages(make, 400))})
    with path.open("rb") as file:
        decoded = make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages(log_time_order=False)
        expected = [ros.point.x for _, _, _, ros in decoded]
    with open_recording(path) as opened:
        stream = opened.read_episode(0).streams["/point.point"]
    np.testing.assert_array_equal(stream.values[:, 0], expected)
    np.testing.assert_array_equal(stream.clocks["log"], START_NS + np.arange(400))
