"""A small recording with images of every kind, for tests that all readers must pass."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .bag_writing import mcap_messages, write_ros1, write_rosbag2  # noqa: TID252 -- tests are not an installed package
from .test_images import PICTURES, encoded, write_cameras  # noqa: TID252
from .test_lerobot import DATA, EPISODES, LENGTHS, write_dataset  # noqa: TID252
from .test_rlds import episode_features  # noqa: TID252
from .test_rlds import write as write_rlds  # noqa: TID252
from .test_video import write_video  # noqa: TID252

VIDEO = "observation.images.top"
CAMERAS = {"observation.images.top": "PNG", "observation.images.wrist": "JPEG"}
EPISODE_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


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


def embedded(images):
    """A column as Hugging Face's datasets lay it out."""
    rows = [{"bytes": data, "path": f"frame-{row:06d}.png"} for row, data in enumerate(images)]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def write_lerobot_images(root, **options):
    """Both episodes with two cameras in the Parquet file; `options` are pyarrow's."""
    write_dataset(root)
    table = pq.read_table(root / DATA)
    info = json.loads((root / "meta/info.json").read_text())
    for name, form in CAMERAS.items():
        images = [encoded(PICTURES[row % 5], form) for row in range(len(table))]  # some of them twice
        table = table.append_column(name, embedded(images))
        names = ["height", "width", "channels"]
        info["features"][name] = {"dtype": "image", "shape": [*PICTURES.shape[1:]], "names": names}
    pq.write_table(table, root / DATA, **options)
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def as_v21(root, **options):
    """A dataset of two episodes with a Parquet file each, and JSON lines about them."""
    table = pq.read_table(root / DATA)
    (root / DATA).unlink()
    lines = []
    for index, (start, length) in enumerate(((0, LENGTHS[0]), LENGTHS)):
        path = root / EPISODE_PATH.format(episode_chunk=0, episode_index=index)
        pq.write_table(table.slice(start, length), path, **options)
        lines.append(json.dumps({"episode_index": index, "length": length, "tasks": ["pick"]}))
    (root / EPISODES).unlink()
    (root / "meta/episodes.jsonl").write_text("\n".join(lines))
    info = json.loads((root / "meta/info.json").read_text())
    changed = {"codebase_version": "v2.1", "chunks_size": 1000, "data_path": EPISODE_PATH}
    (root / "meta/info.json").write_text(json.dumps(info | changed))
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
    "lerobot_images": (lambda folder: write_lerobot_images(folder / "set", row_group_size=3), {}),
    "lerobot_images_v21": (lambda folder: as_v21(write_lerobot_images(folder / "set"), use_dictionary=False), {}),
}
