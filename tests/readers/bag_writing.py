"""Bags written by the rosbags library, which is not ours, from messages that an MCAP file holds."""

import numpy as np
from mcap.reader import make_reader
from rosbags.convert.converter import migrate_bytes
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from robocache.readers import open_recording

from .conftest import (  # noqa: TID252 -- tests are not an installed package
    HEADER_PARTS,
    JOINT_STATE,
    POINT_CLOUD,
    SEPARATOR,
    START_NS,
    cloud_message,
    header,
    joint_message,
    write_mcap,
)


def mcap_messages(path):
    """Every message of an MCAP file as (topic, type, log time, CDR bytes), in the file's order."""
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages(log_time_order=False):
            yield channel.topic, schema.name, message.log_time, message.data


def write_ros1(path, messages, compression=None, chunk_bytes=2**20):
    """A ROS 1 bag with the messages converted by the library."""
    source, store, cache = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC), {}
    writer, connections = Writer1(path), {}
    writer.chunk_threshold = chunk_bytes
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        for topic, type_name, log_ns, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=store)
            data = migrate_bytes(source, store, type_name, type_name, cache, data, src_is2=True, dst_is2=False)
            writer.write(connections[topic], log_ns, data)
    return path


def assert_same_streams(path, mcap):
    """The streams of a bag are those of the MCAP file, but for the clock "publish", which bags do not have."""
    with open_recording(path) as opened, open_recording(mcap) as original:
        found, expected = opened.read_episode(0).streams, original.read_episode(0).streams
        assert list(found) == list(expected)
        for name, stream in found.items():
            other = expected[name]
            assert (stream.columns, stream.kind, stream.clock) == (other.columns, other.kind, other.clock)
            assert stream.values.dtype == other.values.dtype
            assert np.asarray(stream.values).tobytes() == np.asarray(other.values).tobytes()
            assert list(stream.clocks) == [clock for clock in other.clocks if clock != "publish"]
            for clock, times in stream.clocks.items():
                np.testing.assert_array_equal(times, other.clocks[clock])
            if other.offsets is not None:
                np.testing.assert_array_equal(stream.offsets, other.offsets)


VECTOR3 = f"{SEPARATOR}\nMSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"
TWIST = f"Vector3 linear\nVector3 angular\n{VECTOR3}"
IMAGE = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n"
    f"uint8[] data\n{HEADER_PARTS}"
)


def write_small_mcap(path, rows=60, **options):
    """Joints by two publishers, clouds of changing size, twists without a header, images; stamps out of order."""
    randomly = np.random.default_rng(3)
    times = [int(time) for time in START_NS + randomly.permutation(rows) * 10_000_000]
    logs = [START_NS + row * 10_000_000 + 3_000 for row in range(rows)]
    vector = {"x": 1.0, "y": -2.0, "z": float("nan")}
    joints = [joint_message(time, "ab" if row % 4 == 0 else "abc", frame="f" * (row % 5)) for row, time in
              enumerate(times)]  # fmt: skip
    clouds = [cloud_message(time, randomly.normal(size=(5 + row % 3, 4)).clip(0)) for row, time in enumerate(times)]
    image = {"header": header(START_NS), "height": 1, "width": 2, "encoding": "mono8", "is_bigendian": 0, "step": 2,
             "data": [1, 2]}  # fmt: skip
    return write_mcap(
        path,
        {
            "/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, list(zip(logs, joints, strict=True))),
            "/points": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, list(zip(logs, clouds, strict=True))),
            "/cmd": ("geometry_msgs/msg/Twist", TWIST, [(log, {"linear": vector, "angular": vector}) for log in logs]),
            "/camera": ("sensor_msgs/msg/Image", IMAGE, [(logs[0], image)]),
        },
        **options,
    )


def write_rosbag2(path, messages, *, compression=None, **options):
    """A rosbag2 folder with one file, by the library."""
    store, writer, connections = get_typestore(Stores.ROS2_HUMBLE), Writer2(path, version=9, **options), {}
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for topic, type_name, log_ns, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=store)
            writer.write(connections[topic], log_ns, data)
    return path
