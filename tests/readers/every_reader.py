"""A small recording of every format, for tests that all readers must pass."""

import bz2
import gzip
import zipfile

import h5py
import numpy as np

from robocache.readers import SyntheticRobot, open_recording

from .bag_writing import mcap_messages, write_ros1, write_rosbag2, write_small_mcap  # noqa: TID252 -- not installed
from .image_recordings import WITH_IMAGES  # noqa: TID252
from .test_carmen import log_text  # noqa: TID252
from .test_lerobot import write_dataset  # noqa: TID252
from .test_rlds import episode_features  # noqa: TID252
from .test_rlds import write as write_rlds  # noqa: TID252


def write_hdf5(path, rows=200):
    """Shuffled times, a rate for the rest."""
    numbers = np.random.default_rng(5)
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = 285.714
        file.create_dataset("arm/pos", data=numbers.normal(size=(rows, 3)), chunks=(32, 3), compression="gzip")
        file["arm/time"] = 1.7e9 + numbers.permutation(rows) / 100
        file["imu_acc"] = numbers.normal(size=(rows, 3))
    return path


def write_zarr(path, version, **options):
    """A replay buffer of two episodes by the zarr library, with images and a text."""
    import zarr

    numbers = np.random.default_rng(6)
    root = zarr.open_group(path, mode="w", zarr_format=version)
    arrays = {
        "meta/episode_ends": (np.array([30, 70]), (1,)),
        "data/action": (numbers.normal(size=(70, 7)).astype(np.float32), (16, 4)),
        "data/gripper": (np.where(np.arange(70) < 40, 0, numbers.normal(size=70)), (8,)),
        "data/img": (numbers.integers(0, 255, (70, 6, 8, 3), np.uint8), (4, 6, 8, 3)),
        "data/depth": (numbers.normal(size=(70, 6, 8)), (4, 6, 8)),
    }
    for name, (values, chunks) in arrays.items():
        array = root.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)
        array[:] = values
    return path


def zipped(folder):
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted(folder.rglob("*")):
            if entry.is_file():
                file.write(entry, entry.relative_to(folder).as_posix())
    return path


def _carmen(folder):
    path = folder / "log.clf.bz2"
    path.write_bytes(bz2.compress(log_text().encode()))
    return path


def gzipped(path):
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path


def _ros(write, name):
    return lambda folder: write(folder / name, mcap_messages(write_small_mcap(folder / "source.mcap")))


# Name: what writes it into a folder, and what it is opened with.
FORMATS = {
    "mcap": (lambda folder: write_small_mcap(folder / "a.mcap"), {}),
    "mcap_chunks": (lambda folder: write_small_mcap(folder / "a.mcap", chunk_size=4096), {}),
    "ros1": (_ros(write_ros1, "a.bag"), {}),
    "rosbag2": (_ros(write_rosbag2, "a_bag"), {}),
    "hdf5": (lambda folder: write_hdf5(folder / "a.h5"), {}),
    "lerobot": (lambda folder: write_dataset(folder / "set"), {}),
    "rlds": (
        lambda folder: write_rlds(folder / "a.tfrecord", episode_features(50), episode_features(20, 1)),
        {"rate_hz": 5.0},
    ),
    "rlds_gzip": (lambda folder: gzipped(FORMATS["rlds"][0](folder)), {"rate_hz": 5.0}),
    "zarr_v2": (lambda folder: write_zarr(folder / "a.zarr", 2), {"rate_hz": 10.0}),
    "zarr_v3_zip": (lambda folder: zipped(write_zarr(folder / "a.zarr", 3)), {"rate_hz": 10.0}),
    "carmen": (_carmen, {}),
    "synthetic": (None, {}),
    **WITH_IMAGES,
    "rlds_images_gzip": (lambda folder: gzipped(WITH_IMAGES["rlds_images"][0](folder)), {"rate_hz": 5.0}),
}


def opener(name, folder):
    """A function that opens a new recording of a format."""
    write, options = FORMATS[name]
    if write is None:
        return lambda: SyntheticRobot(duration_s=2.0, lidar_points=20, camera=(24, 32))
    path = write(folder)
    return lambda: open_recording(path, **options)
