"""Messages of plain numbers that robots publish beside the stamped ones, written by the rosbags library."""

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from robocache.readers import open_recording

from .conftest import START_NS  # noqa: TID252 -- tests are not an installed package

XYZ, XYZW = ("x", "y", "z"), ("x", "y", "z", "w")
INTEGERS = [f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)]
ROWS = 6


class Messages:
    """Makes messages of both kinds of ROS, of numbers that tell every field from the others."""

    def __init__(self, kind):
        self.is_ros1 = kind == "ros1"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.is_ros1 else Stores.ROS2_HUMBLE)

    def __call__(self, name, *fields):
        package, _, message = name.partition("/")
        return self.store.types[f"{package}/msg/{message}"](*fields)

    def header(self, row):
        stamp = self("builtin_interfaces/Time", (START_NS // 10**9) + row, 5)
        return self("std_msgs/Header", *([row] if self.is_ros1 else []), stamp, "base")

    def vector(self, row, first, name="Vector3"):
        return self(f"geometry_msgs/{name}", *(float(row + first + axis) for axis in range(3)))

    def quaternion(self, row):
        return self("geometry_msgs/Quaternion", *(float(row + axis) for axis in range(4)))

    def pose(self, row):
        return self("geometry_msgs/Pose", self.vector(row, 1, "Point"), self.quaternion(row))

    def twist(self, row):
        return self("geometry_msgs/Twist", self.vector(row, 1), self.vector(row, 5))

    def array(self, row, dtype):
        return self("std_msgs/MultiArrayLayout", [], 0), np.array([1, 2, row], dtype)


def _three(row, first):
    return [row + first, row + first + 1, row + first + 2]


# By type: how a message is made, and by stream its columns and the numbers of a row.
COVARIANCE = np.zeros(36)
EXPECTED = {
    "geometry_msgs/Vector3": (lambda m, row: m.vector(row, 1), {"vector": (XYZ, lambda row: _three(row, 1))}),
    "geometry_msgs/Point": (lambda m, row: m.vector(row, 1, "Point"), {"point": (XYZ, lambda row: _three(row, 1))}),
    "geometry_msgs/Quaternion": (
        lambda m, row: m.quaternion(row),
        {"quaternion": (XYZW, lambda row: [*_three(row, 0), row + 3])},
    ),
    "geometry_msgs/Pose2D": (
        lambda m, row: m("geometry_msgs/Pose2D", 1.0, 2.0, float(row)),
        {"pose": (("x", "y", "theta"), lambda row: [1, 2, row])},
    ),
    "geometry_msgs/Wrench": (
        lambda m, row: m("geometry_msgs/Wrench", m.vector(row, 1), m.vector(row, 5)),
        {"force": (XYZ, lambda row: _three(row, 1)), "torque": (XYZ, lambda row: _three(row, 5))},
    ),
    "geometry_msgs/Accel": (
        lambda m, row: m("geometry_msgs/Accel", m.vector(row, 1), m.vector(row, 5)),
        {
            "linear_acceleration": (XYZ, lambda row: _three(row, 1)),
            "angular_acceleration": (XYZ, lambda row: _three(row, 5)),
        },
    ),
    "geometry_msgs/Transform": (
        lambda m, row: m("geometry_msgs/Transform", m.vector(row, 1), m.quaternion(row)),
        {
            "translation": (XYZ, lambda row: _three(row, 1)),
            "rotation": (XYZW, lambda row: [*_three(row, 0), row + 3]),
        },
    ),
    "geometry_msgs/PoseWithCovariance": (
        lambda m, row: m("geometry_msgs/PoseWithCovariance", m.pose(row), COVARIANCE),
        {
            "position": (XYZ, lambda row: _three(row, 1)),
            "orientation": (XYZW, lambda row: [*_three(row, 0), row + 3]),
        },
    ),
    "geometry_msgs/TwistWithCovariance": (
        lambda m, row: m("geometry_msgs/TwistWithCovariance", m.twist(row), COVARIANCE),
        {
            "linear_velocity": (XYZ, lambda row: _three(row, 1)),
            "angular_velocity": (XYZ, lambda row: _three(row, 5)),
        },
    ),
    "sensor_msgs/Joy": (
        lambda m, row: m(
            "sensor_msgs/Joy", m.header(row), np.array([0.5, row], np.float32), np.array([1, 0, row], np.int32)
        ),
        {"axes": (("0", "1"), lambda row: [0.5, row]), "buttons": (("0", "1", "2"), lambda row: [1, 0, row])},
    ),
    **{
        f"std_msgs/{number}": (
            lambda m, row, number=number: m(f"std_msgs/{number}", row),
            {"data": (("data",), lambda row: [row])},
        )
        for number in INTEGERS
    },
    **{
        f"std_msgs/{number}MultiArray": (
            lambda m, row, number=number: m(f"std_msgs/{number}MultiArray", *m.array(row, number.lower())),
            {"data": (("0", "1", "2"), lambda row: [1, 2, row])},
        )
        for number in INTEGERS
        if not number.endswith("nt8")
    },
}


def write(path, kind):
    messages = Messages(kind)
    plugin = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}.get(kind)
    writer = Writer1(path) if messages.is_ros1 else Writer2(path, version=8, storage_plugin=plugin)
    to_bytes = messages.store.serialize_ros1 if messages.is_ros1 else messages.store.serialize_cdr
    with writer:
        for name, (make, _) in EXPECTED.items():
            type_name = name.replace("/", "/msg/")
            connection = writer.add_connection(f"/{name}", type_name, typestore=messages.store)
            for row in range(ROWS):
                writer.write(connection, START_NS + row, to_bytes(make(messages, row), type_name))
    return path


@pytest.mark.parametrize("kind", ["ros1", "sqlite3", "mcap"])
def test_plain_messages_become_their_numbers(tmp_path, kind):
    """Fails where such a topic is "not a message that becomes numbers", or a column is another field's."""
    with open_recording(write(tmp_path / "run.bag", kind)) as opened:
        episode = opened.read_episode(0)
    assert episode.attributes["skipped"] == {}
    found = dict(episode.streams)
    for name, (_, parts) in EXPECTED.items():
        for suffix, (columns, numbers) in parts.items():
            stream = found.pop(f"/{name}.{suffix}")
            assert stream.columns == columns
            np.testing.assert_array_equal(stream.values, [numbers(row) for row in range(ROWS)])
            assert stream.clock == ("header" if name == "sensor_msgs/Joy" else "log")
            assert (stream.kind == "quaternion_xyzw") == (columns == XYZW)
            if name.removeprefix("std_msgs/") in INTEGERS:
                assert stream.values.dtype == np.dtype(name.removeprefix("std_msgs/").lower())
    assert not found
