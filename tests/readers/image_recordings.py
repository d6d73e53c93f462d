"""A small recording with images of every kind, for tests that all readers must pass."""

import h5py
import numpy as np
import pyarrow.parquet as pq

from .bag_writing import mcap_messages, write_ros1, write_rosbag2  # noqa: TID252 -- tests are not an installed package
from .test_images import PICTURES, encoded, write_cameras  # noqa: TID252
from .test_lerobot import EPISODES, LENGTHS, write_dataset  # noqa: TID252
from .test_rlds import episode_features  # noqa: TID252
from .test_rlds import write as write_rlds  # noqa: TID252
from .test_video import write_video  # noqa: TID252

VIDEO = "observation.images.top"


def write_hdf5_images(path):
    """Pictures at shuffled times, the same as padded JPEGs at a rate."""
    jpegs = [encoded(picture) for picture in PICTURES]
    padded = np.zeros((len(jpegs), max(map(len, jpegs)) + 9), np.uint8)
    for row, data in enumerate(jpegs):
        padded[row, : len(data)] = np.frombuffer(data, np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = 30.0
        file["camera/rgb"] = PICTURES
        file["camera/time"] = 1.7e9 + np.array([3, 0, 1, 2, 6, 5, 4]) / 10
        file["wrist"] = padded
    return path


def write_rlds_images(path):
    pictures = [encoded(picture, form) for picture in PICTURES for form in ("JPEG", "PNG")]
    features = episode_features(len(pictures)) | {"steps/observation/rgb": pictures}
    return write_rlds(path, features, episode_features(20, 1))


def write_lerobot_video(root):
    """Both episodes in one file, one after the other."""
    write_dataset(root, video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4")
    table = pq.read_table(root / EPISODES)
    for part, values in (("chunk_index", [0, 0]), ("file_index", [0, 0]), ("from_timestamp", [0.0, LENGTHS[0] / 30])):
        table = table.append_column(f"videos/{VIDEO}/{part}", [values])
    pq.write_table(table, root / EPISODES)
    path = root / "videos" / VIDEO / "chunk-000/file-000.mp4"
    path.parent.mkdir(parents=True)
    write_video(path, sum(LENGTHS), rate=30)
    return root


def _cameras(write, name):
    return lambda folder: write(folder / name, mcap_messages(write_cameras(folder / "source.mcap")))


# As in `FORMATS` of every_reader.py.
WITH_IMAGES = {
    "mcap_images": (lambda folder: write_cameras(folder / "a.mcap", chunk_size=1000), {}),
    "ros1_images": (_cameras(write_ros1, "a.bag"), {}),
    "rosbag2_images": (_cameras(write_rosbag2, "a_bag"), {}),
    "hdf5_images": (lambda folder: write_hdf5_images(folder / "a.h5"), {}),
    "rlds_images": (lambda folder: write_rlds_images(folder / "a.tfrecord"), {"rate_hz": 5.0}),
    "lerobot_video": (lambda folder: write_lerobot_video(folder / "set"), {}),
}
