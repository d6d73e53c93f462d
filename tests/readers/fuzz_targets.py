"""What is fuzzed: the parsers of our own, and the bytes that each begins with."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from robocache.errors import RoboCacheError
from robocache.readers import Limits, open_recording
from robocache.readers.images import ImageError, decoded
from robocache.readers.ros2_layout import LayoutError, find_layout
from robocache.readers.ros2_points import point_format, points
from robocache.readers.ros2_schema import SchemaError, parse_definitions
from robocache.readers.tf_example import ExampleError, read_features

from .bag_writing import mcap_messages, write_small_mcap  # noqa: TID252 -- tests are not an installed package
from .conftest import JOINT_STATE, POINT_CLOUD, WRENCH  # noqa: TID252
from .every_reader import FORMATS, write_zarr, zipped  # noqa: TID252
from .fuzz_contract import Run, Target  # noqa: TID252
from .hostile_files import SWEPT  # noqa: TID252
from .hostile_parquet import write_whole  # noqa: TID252
from .image_recordings import write_lerobot_images  # noqa: TID252
from .test_carmen import log_text  # noqa: TID252
from .test_images import PICTURES, encoded, write_cameras  # noqa: TID252

FOLDER = Path(tempfile.gettempdir())
LIMITS = Limits(image_pixels=2**16)
TYPES = {"sensor_msgs/JointState": JOINT_STATE, "sensor_msgs/PointCloud2": POINT_CLOUD, "geometry_msgs/Wrench": WRENCH}


def _read(path: Path, options: dict[str, float]) -> bool:
    try:
        with open_recording(path, limits=LIMITS, **options) as recording:
            for index in range(min(len(recording.episode_names), 3)):
                for stream in recording.read_episode(index).streams.values():
                    if stream.frames is not None and len(stream.values):
                        stream.frames.read(stream.values[-1:, 0])
    except RoboCacheError:
        return False
    return True


def _drop_in(path: Path, options: dict[str, float]) -> bool:
    from robocache.integrations.lerobot import LeRobotDataset

    try:
        dataset = LeRobotDataset("local/set", path, limits=LIMITS, **options)
        dataset.batch([0, len(dataset) - 1])
    except RoboCacheError:
        return False
    return True


def recording(write, victim=None, needs=(), read=_read, **options) -> Target:
    """One file of a recording is replaced by the bytes, and all of it is read.

    Args:
        write: Writes the recording into a folder, and says where it is.
        victim: A pattern of the file, where the recording is a folder.
        needs: Packages without which it cannot be read.
        read: How.
        options: What it is opened with.
    """

    def file_of(path):
        return path if victim is None else sorted(path.rglob(victim))[0]

    @contextmanager
    def opened() -> Iterator[Run]:
        with tempfile.TemporaryDirectory(prefix="robocache-fuzz-", dir=FOLDER) as folder:
            path = write(Path(folder))
            file = file_of(path)

            def run(data):
                file.write_bytes(data)
                return read(path, options)

            yield run

    return Target(opened, lambda folder: [file_of(write(folder)).read_bytes()], needs)


def function(parse, seeds, needs=()) -> Target:
    """A function of bytes, which says whether it accepts them."""

    @contextmanager
    def opened() -> Iterator[Run]:
        yield parse

    return Target(opened, seeds, needs)


def known(name, victim=None, needs=()) -> Target:
    """A recording that other tests read and damage."""
    write, options = SWEPT[name]
    return recording(write, victim, needs, **options)


def _definitions(data):
    text, accepted = data.decode("utf-8", "replace"), 0
    for package, is_ros1 in itertools.product(("sensor_msgs", "geometry_msgs"), (False, True)):
        with suppress(SchemaError):
            parse_definitions(f"{package}/msg/Any", text, ros1=is_ros1)
            accepted += 1
    return accepted > 0


def _messages(data):
    """Every message as each of some types, with the header of ROS 2 and without; a cloud is looked into."""
    accepted, message = 0, np.frombuffer(data, np.uint8)[None]
    for (name, text), cdr in itertools.product(TYPES.items(), (True, False)):
        with suppress(LayoutError):
            layout = find_layout(parse_definitions(name, text), name, data, cdr=cdr)
            accepted += 1
            if name == "sensor_msgs/PointCloud2":
                points(point_format(layout, message), layout, message)
    return accepted > 0


def _payloads(folder):
    found = {}
    for message in mcap_messages(write_small_mcap(folder / "a.mcap", rows=4)):
        for part in message:
            if isinstance(part, bytes) and len(part) > 8:
                found.setdefault(len(part), part)
    return list(found.values())


def _features(data):
    try:
        return bool(read_features(data))
    except ExampleError:
        return False


def _example(folder):
    data = FORMATS["rlds"][0](folder).read_bytes()
    return [data[12 : 12 + int.from_bytes(data[:8], "little")]]


def _image(data):
    try:
        return decoded(data, LIMITS).size > 0
    except ImageError:
        return False


def _images(_):
    kinds = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})]
    return [encoded(PICTURES[0], form, **options) for form, options in kinds]


def _log(folder):
    path = folder / "a.log"
    path.write_text("".join(log_text().splitlines(keepends=True)[:40]))
    return path


def _small_zarr(version):
    return lambda folder: write_zarr(folder / "a.zarr", version)


def _with_tasks(folder):
    return write_whole(folder / "set")


def _with_images(folder):
    return write_lerobot_images(folder / "set", compression="none")


RATE = {"rate_hz": 10.0}
EPISODES, DATA = "episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
TARGETS = {
    "mcap": recording(lambda folder: write_small_mcap(folder / "a.mcap", rows=4), needs=("mcap",)),
    "mcap_chunks": recording(lambda folder: write_small_mcap(folder / "a.mcap", rows=8, chunk_size=1024)),
    "mcap_images": recording(lambda folder: write_cameras(folder / "a.mcap")),
    "ros1": known("ros1", needs=("rosbags",)),
    "rosbag2_sqlite": known("rosbag2", "*.db3", needs=("rosbags",)),
    "rosbag2_yaml": known("rosbag2", "metadata.yaml", needs=("rosbags",)),
    "definitions": function(_definitions, lambda _: [text.encode() for text in TYPES.values()]),
    "messages": function(_messages, _payloads, needs=("rosbags",)),
    "carmen": recording(_log),
    "tfrecord": known("rlds"),
    "tf_example": function(_features, _example),
    "hdf5": known("hdf5", needs=("h5py",)),
    "hdf5_images": known("hdf5_images", needs=("h5py",)),
    "zarr_zip": recording(lambda folder: zipped(write_zarr(folder / "a.zarr", 3)), needs=("zarr",), **RATE),
    "zarr_v2": recording(_small_zarr(2), "action/.zarray", needs=("zarr",), **RATE),
    "zarr_v3": recording(_small_zarr(3), "action/zarr.json", needs=("zarr",), **RATE),
    "lerobot_info": recording(_with_tasks, "info.json", read=_drop_in),
    "lerobot_tasks": recording(_with_tasks, "tasks.parquet", read=_drop_in),
    "lerobot_episodes": recording(_with_tasks, EPISODES, read=_drop_in),
    "lerobot_data": recording(_with_tasks, DATA, read=_drop_in),
    "lerobot_images": recording(_with_images, DATA),
    "lerobot_lines": known("lerobot_v21", "episodes.jsonl"),
    "video": known("lerobot_video", "*.mp4", needs=("av",)),
    "image": function(_image, _images, needs=("PIL",)),
}
