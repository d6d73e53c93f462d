"""MCAP files of ROS 1 messages, which `mcap convert` and Foxglove's bridge for ROS 1 write, beside the bag itself."""

import pytest
from mcap.writer import Writer
from rosbags.rosbag1 import Reader

from robocache.readers import open_recording

from .bag_writing import (  # noqa: TID252 -- tests are not an installed package
    assert_same_streams,
    mcap_messages,
    write_ros1,
)
from .conftest import JOINT_STATE, START_NS, joint_message, write_mcap  # noqa: TID252
from .test_images import write_cameras  # noqa: TID252


def as_mcap(bag, path, **options):
    """The messages of a bag with their bytes and definitions as they are, as rosbags hands them out."""
    with Reader(bag) as reader, path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start(profile="ros1")
        channels = {}
        for connection, log_ns, data in reader.messages():
            if connection.topic not in channels:
                name = connection.msgtype.replace("/msg/", "/")
                schema = writer.register_schema(name, "ros1msg", connection.msgdef.data.encode())
                channels[connection.topic] = writer.register_channel(connection.topic, "ros1", schema)
            writer.add_message(channels[connection.topic], log_ns, data, log_ns)
        writer.finish()
    return path


@pytest.mark.parametrize("chunk_size", [200, 2**20])
def test_joints_and_images_are_those_of_the_bag(tmp_path, chunk_size):
    """Fails where ROS 1 messages are left out of MCAP files, or are read as CDR, with a header and gaps."""
    joints = {"/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, [])}
    for row in range(20):
        joints["/joints"][2].append((START_NS + row, joint_message(START_NS + row, frame="b" * (row % 3))))
    for name, source in (
        ("joints", write_mcap(tmp_path / "joints.mcap", joints)),
        ("images", write_cameras(tmp_path / "images.mcap")),
    ):
        bag = write_ros1(tmp_path / f"{name}.bag", mcap_messages(source))
        converted = as_mcap(bag, tmp_path / f"{name}1.mcap", chunk_size=chunk_size)
        assert_same_streams(bag, converted)
        with open_recording(converted) as opened, open_recording(source) as original:
            found, expected = opened.read_episode(0), original.read_episode(0)
            assert found.streams
            assert found.attributes["skipped"] == {}
            assert found.attributes["profile"] == "ros1"
            for stream_name, stream in found.streams.items():
                assert stream.values.tobytes() == expected.streams[stream_name].values.tobytes()
                if stream.frames is not None:
                    rows = stream.values[:3, 0]
                    read = [one.frames.read(rows).tobytes() for one in (stream, expected.streams[stream_name])]
                    assert read[0] == read[1]


def test_one_topic_of_both_kinds_keeps_the_first(tmp_path):
    """Fails where bytes of ROS 1 are read as CDR: where the definitions of a topic are not compared."""
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for number, (encoding, data) in enumerate((("cdr", b"\0\1\0\0" + bytes(7) + b"\x40"), ("ros1", bytes(8)))):
            schema = writer.register_schema("std_msgs/Float64", f"ros{2 - number}msg", b"float64 data")
            writer.add_message(writer.register_channel("/x", encoding, schema), START_NS, data, START_NS)
        writer.finish()
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert episode.streams["/x.data"].values.tolist() == [[2.0]]
    assert "by another definition than its first ones" in episode.attributes["skipped"]["/x"]
