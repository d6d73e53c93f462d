"""The folder that the documents speak of: run.mcap, runs/, data/pick. All of it comes from the simulated robot."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from mcap_ros2.writer import Writer
from rosbags.typesys import Stores, get_typestore

import robocache as rc
from robocache.align.lerobot import LeRobotWriter
from robocache.readers import SyntheticRobot
from robocache.records import Episode, RecordedStream

SECONDS = 4.0
PICTURES = 40


class Sweep:
    """A bar that moves to the right, in VGA."""

    shape = (480, 640, 3)

    def __len__(self):
        return PICTURES

    def read(self, numbers, *, size=None):
        height, width = size or self.shape[:2]
        columns = np.arange(width) * PICTURES // width
        bars = np.where(columns == np.asarray(numbers)[:, None], 220, 40).astype(np.uint8)
        return np.broadcast_to(bars[:, None, :, None], (len(bars), height, width, 3)).copy()


def make_world(folder):
    """Write every recording that a document opens."""
    write_mcap(folder / "run.mcap", seed=0)
    (folder / "runs").mkdir()
    for seed in (1, 2):
        write_mcap(folder / "runs" / f"{seed}.mcap", seed=seed)
    write_lerobot(folder / "data" / "pick")


def write_mcap(path, seed):
    """An arm, an IMU, odometry and a small camera, by the libraries of the formats' own makers."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with SyntheticRobot(seed, duration_s=SECONDS, has_gaps=False, lidar_points=1) as robot, path.open("wb") as file:
        streams = robot.read_episode(0).streams
        writer = Writer(file)
        for topic, kind, message, source in TOPICS:
            definition, _ = store.generate_msgdef(f"{kind}", ros_version=2)
            schema = writer.register_msgdef(kind, definition)
            stream = streams[source]
            for row, stamp in enumerate(stream.times_ns.tolist()):
                header = {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": "base"}
                log_ns = int(stream.clocks["log"][row])
                writer.write_message(topic, schema, {"header": header} | message(streams, row), log_ns, log_ns, row)
        writer.finish()


def _xyz(values):
    return dict(zip("xyzw", values.tolist(), strict=False))


def _joints(streams, row):
    stream = streams["/joint_states.position"]
    values = stream.values[row].tolist()
    return {"name": list(stream.columns), "position": values, "velocity": [], "effort": []}


def _imu(streams, row):
    rates, forces = streams["/imu.angular_velocity"], streams["/imu.linear_acceleration"]
    turned = np.searchsorted(streams["/arm/hand.orientation"].times_ns, rates.times_ns[row]).clip(1) - 1
    none = [0.0] * 9
    return {
        "orientation": _xyz(streams["/arm/hand.orientation"].values[turned]), "orientation_covariance": none,
        "angular_velocity": _xyz(rates.values[row]), "angular_velocity_covariance": none,
        "linear_acceleration": _xyz(forces.values[row]), "linear_acceleration_covariance": none,
    }  # fmt: skip


def _odometry(streams, row):
    values = streams["/camera.features"].values[row].astype(float)
    pose = {"position": _xyz(values[:3]), "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}}
    twist = {"linear": _xyz(values[3:6]), "angular": _xyz(values[6:9])}
    none = [0.0] * 36
    return {
        "child_frame_id": "base",
        "pose": {"pose": pose, "covariance": none},
        "twist": {"twist": twist, "covariance": none},
    }


def _image(_, row):
    picture = np.full((32, 48, 3), row % 256, np.uint8)
    return {"height": 32, "width": 48, "encoding": "rgb8", "is_bigendian": 0, "step": 144, "data": picture.tobytes()}


TOPICS = (
    ("/joint_states", "sensor_msgs/msg/JointState", _joints, "/joint_states.position"),
    ("/imu/data", "sensor_msgs/msg/Imu", _imu, "/imu.angular_velocity"),
    ("/odom", "nav_msgs/msg/Odometry", _odometry, "/camera.features"),
    ("/camera/image", "sensor_msgs/msg/Image", _image, "/camera.features"),
)


def write_lerobot(root):
    """Two episodes with a camera of 480 x 640, at 30 frames a second."""
    root.mkdir(parents=True)
    times = np.round(np.arange(PICTURES) * 1e9 / 30).astype(np.int64)
    top = RecordedStream(
        "top", np.arange(PICTURES)[:, None], times, {"log": times}, "log", kind="image", frames=Sweep()
    )
    size = rc.Resize(*Sweep.shape[:2])
    spec = rc.Align(rc.Rate(30), {"observation.images.top": rc.From("top", then=size)} | {
        name: rc.From(name) for name in ("observation.state", "action")
    })  # fmt: skip
    with LeRobotWriter(root, Fraction(30)) as writer:
        for seed in range(2):
            waves = np.sin(np.arange(PICTURES)[:, None] / (5 + np.arange(7)) + seed).astype(np.float32)
            columns = {
                name: RecordedStream(name, waves * scale, times, {"log": times}, "log")
                for name, scale in (("observation.state", 1), ("action", 2))
            }
            writer.add(rc.align_episode(Episode(f"e{seed}", {"top": top} | columns, "pick"), spec), task="pick")
