"""Recordings for the reader tests: real ones where they are, generated ones everywhere."""

import dataclasses
import os
import pickle
import random
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from mcap_ros2.writer import Writer

from robocache.errors import RecordingError
from robocache.readers import open_recording

RECORDINGS = Path(
    os.environ.get("ROBOCACHE_RECORDINGS", Path(__file__).resolve().parents[2].parent / "shared" / "recordings")
)
IS_NIGHTLY = os.environ.get("ROBOCACHE_NIGHTLY") == "1"
SEEDS = range(25) if IS_NIGHTLY else range(0, 25, 3)  # what `damaged` is asked for
START_NS = 1_700_000_000_000_000_000
STAMP = "builtin_interfaces/Time stamp\nstring frame_id\n"
TIME = "int32 sec\nuint32 nanosec\n"
SEPARATOR = "=" * 80
HEADER_PARTS = f"{SEPARATOR}\nMSG: std_msgs/Header\n{STAMP}{SEPARATOR}\nMSG: builtin_interfaces/Time\n{TIME}"
JOINT_STATE = (
    f"std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n{HEADER_PARTS}"
)
POINT_CLOUD = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nPointField[] fields\nbool is_bigendian\n"
    "uint32 point_step\nuint32 row_step\nuint8[] data\nbool is_dense\n"
    f"{SEPARATOR}\nMSG: sensor_msgs/PointField\nuint8 INT8=1\nuint8 FLOAT32=7 # a comment\n"
    f"string name\nuint32 offset\nuint8 datatype\nuint32 count\n{HEADER_PARTS}"
)
WRENCH = (
    f"std_msgs/Header header\nWrench wrench\n{SEPARATOR}\nMSG: geometry_msgs/Wrench\nVector3 force\nVector3 torque\n"
    f"{SEPARATOR}\nMSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z 0.0\n{HEADER_PARTS}"
)


def recording(name):
    """Path of a real recording; skips the test where there is none."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set ROBOCACHE_RECORDINGS to the folder with the real recordings")
    return path


def header(time_ns, frame="base"):
    return {"stamp": {"sec": time_ns // 10**9, "nanosec": time_ns % 10**9}, "frame_id": frame}


def write_mcap(path, topics, **options):
    """Write topics {name: (type, schema text, [(log_ns, message), ...])} with the format's own library."""
    with path.open("wb") as file:
        writer = Writer(file, **options)
        for name, (type_name, text, messages) in topics.items():
            schema = writer.register_msgdef(type_name, text)
            for number, (log_ns, message) in enumerate(messages):
                writer.write_message(name, schema, message, log_ns, log_ns - 7, number)
        writer.finish()
    return path


def joint_message(time_ns, names=("a", "b", "c"), *, frame="base", velocity=True, seed=0):
    numbers = np.random.default_rng([seed, time_ns % 2**31]).normal(size=(3, len(names)))
    return {
        "header": header(time_ns, frame),
        "name": list(names),
        "position": numbers[0].tolist(),
        "velocity": numbers[1].tolist() if velocity else [],
        "effort": numbers[2].tolist(),
    }


def cloud_message(time_ns, points, *, order="<", padding=0):
    dtype = np.dtype({"names": ["x", "y", "z", "ring"], "formats": [order + code for code in ("f4", "f4", "f4", "u2")],
                      "offsets": [0, 4, 8, 16], "itemsize": 20})  # fmt: skip
    packed = np.zeros(len(points), dtype)
    for column, name in enumerate(dtype.names):
        packed[name] = points[:, column]
    fields = [
        {"name": name, "offset": offset, "datatype": code, "count": 1}
        for name, offset, code in zip(dtype.names, (0, 4, 8, 16), (7, 7, 7, 4), strict=True)
    ]
    return {
        "header": header(time_ns), "height": 1, "width": len(points), "fields": fields,
        "is_bigendian": order == ">", "point_step": 20, "row_step": len(points) * 20,
        "data": list(packed.tobytes()) + [0] * padding, "is_dense": True,
    }  # fmt: skip


SECONDS, PEAK_BYTES = 2, 200 * 2**20


def read_and_raise(path, **options):
    """Every stream of every episode, and an image of each, read within the limits of processor time and memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with open_recording(path, **options) as opened:
            episodes = [opened.read_episode(index) for index in range(len(opened.episode_names))]
            streams = [stream for episode in episodes for stream in episode.streams.values()]
            for stream in streams:
                if stream.frames is not None:
                    stream.frames.read(stream.values[-1:, 0])
            return [dataclasses.replace(stream, values=np.asarray(stream.values)) for stream in streams]
    finally:
        took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took < SECONDS
        assert peak < PEAK_BYTES


def open_files():
    """Each descriptor with what it stands for, less the one that lists them."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add((descriptor.name, descriptor.readlink()))
    return found


def read_all(path, **options):
    """The streams, or the one error that is allowed: one line, with the file and a remedy, that can be pickled.

    No file is left open, also while the error and its traceback are kept.
    """
    before = open_files()
    try:
        return read_and_raise(path, **options)
    except RecordingError as caught:
        error = caught
    finally:
        assert open_files() <= before  # what an earlier test left to the garbage collector may be closed meanwhile
    text = str(error)
    assert str(path) in text
    assert "; " in text
    assert "\n" not in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    return error


def errors_in(results):
    return [result for result in results if isinstance(result, RecordingError)]


def damaged(data, kind, seed):
    chooser = random.Random(seed)
    data = bytearray(data)
    if kind == "truncated":
        return data[: len(data) * seed // 25]
    if kind == "sizes":
        at = chooser.randrange(len(data) - 8)
        data[at : at + 8] = chooser.choice([b"\xff" * 8, (2**60).to_bytes(8, "little"), bytes(8)])
        return data
    # Half of the flips go where the structure is.
    for _ in range(chooser.choice([1, 1, 4])):
        at = chooser.randrange(len(data) if chooser.random() < 0.5 else min(len(data), 4096))
        data[at] ^= 1 << chooser.randrange(8)
    return data


@pytest.fixture
def joints_mcap(tmp_path):
    """200 joint states, the log 5 ms after the header."""
    times = START_NS + np.arange(200) * 2_000_000
    messages = [(int(time) + 5_000_000, joint_message(int(time))) for time in times]
    return write_mcap(
        tmp_path / "joints.mcap", {"/joint_states": ("sensor_msgs/msg/JointState", JOINT_STATE, messages)}
    )


@pytest.fixture
def plain_hdf5(tmp_path):
    """Groups with their own times, a dataset with the file's rate, a text, an image."""
    path = tmp_path / "plain.h5"
    numbers = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = 100.0
        file.attrs["info"] = "a test"
        arm = file.create_group("arm")
        arm["pos"] = numbers.normal(size=(50, 3))
        arm.create_dataset("quat", data=numbers.normal(size=(50, 4)), compression="gzip")
        arm["time"] = 1.7e9 + np.arange(50) / 10
        file.create_dataset("imu_acc", data=numbers.normal(size=(60, 3)), fletcher32=True, chunks=(20, 3))
        file["names"] = ["a", "b"]
        file["image"] = np.zeros((60, 2, 2), np.uint8)
    return path
