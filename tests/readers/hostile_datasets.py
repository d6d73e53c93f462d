"""LeRobot datasets that ask for the impossible: what writes each, and what is said of it."""

import pickle
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .hostile_files import write_lerobot_v21  # noqa: TID252 -- tests are not an installed package
from .image_recordings import VIDEO, write_lerobot_video  # noqa: TID252
from .test_lerobot import DATA, EPISODES, write_dataset  # noqa: TID252
from .test_zarr import changed  # noqa: TID252


def lerobot(change, write_it=write_dataset):
    def written(folder):
        root = write_it(folder / "set")
        change(root)
        return root

    return written


def info(**fields):
    return lerobot(lambda root: changed(root, "meta/info.json", **fields))


def column(name, values, file=DATA):
    def change(root):
        table = pq.read_table(root / file)
        made = values(len(table)) if callable(values) else values
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, made), root / file)

    return lerobot(change)


def _rows_of_nothing(root):
    table = pa.table({
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * 2**24, np.float32)), 2),
        "frame_index": pa.array(np.zeros(2**24, np.int64)), "episode_index": pa.array(np.zeros(2**24, np.int64)),
        "timestamp": pa.array(np.zeros(2**24, np.float32)),
    })  # fmt: skip
    pq.write_table(table, root / DATA, compression="zstd")


def mp4(tag, at, new, write_it=write_lerobot_video):
    """The video with some bytes behind a box's name replaced."""

    def change(root):
        for path in root.glob("videos/**/*.mp4"):
            data = bytearray(path.read_bytes())
            place = data.index(tag) + len(tag) + at
            data[place : place + len(new)] = new
            path.write_bytes(data)

    return lerobot(change, write_it)


def _nested_boxes(root):
    data = b""
    for _ in range(3000):
        data = struct.pack(">I4s", len(data) + 8, b"moov") + data
    path = root / "videos" / VIDEO / "chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes() + data)


FILE = "file-000.parquet"


def of(value):
    """As many of the value as there are rows."""
    return lambda rows: pa.array([value] * rows)


def video_path(root):
    changed(root, "meta/info.json", video_path="../{video_key}")


def text_of(name, text, write_it=write_dataset):
    return lerobot(lambda root: (root / "meta" / name).write_text(text), write_it)


MANY = {f"f{number}": {"dtype": "float32", "shape": [10**6]} for number in range(2000)}
WIDE = {"x": {"dtype": "float32", "shape": [2**60]}}
LATE = '{"episode_index": 1e999, "length": 3}\n'


LEROBOT = {
    "path_up": (info(data_path="../../../../etc/passwd"), "leads out of the dataset"),
    "path_absolute": (info(data_path="/etc/passwd"), "leads out of the dataset"),
    "path_wide": (info(data_path="{chunk_index:>999999999}"), "cannot be filled in"),
    "path_attribute": (info(data_path="{chunk_index.__class__}"), "cannot be filled in"),
    "path_folder": (info(data_path="data"), "set"),
    "video_path_up": (lerobot(video_path, write_lerobot_video), "leads out"),
    "fps": (info(fps=1e400), "fps is 'inf'"),
    "width": (info(features=WIDE), "has the shape"),
    "features": (info(features=MANY), "has no column"),
    "json_deep": (text_of("info.json", "[" * 10**6), "is not JSON"),
    "json_digits": (text_of("info.json", '{"fps": ' + "9" * 10**6 + "}"), "is not JSON"),
    "json_lines": (text_of("episodes.jsonl", LATE, write_lerobot_v21), "line 1"),
    "texts_for_numbers": (column("observation.state", of("x")), FILE),
    "maps_for_numbers": (column("observation.state", of({"a": 1})), FILE),
    "lists_of_lists": (column("observation.state", of([[1.0], [2.0]])), FILE),
    "binary_for_numbers": (column("observation.state", of(pickle.dumps(1))), FILE),
    "texts_for_frames": (column("frame_index", of("1")), FILE),
    "nothing_for_times": (column("timestamp", lambda rows: pa.nulls(rows)), FILE),
    "episodes_2_60": (column("length", of(2**60), EPISODES), FILE),
    "chunks_2_60": (column("data/chunk_index", of(2**60), EPISODES), FILE),
    "texts_for_lengths": (column("length", of("1"), EPISODES), FILE),
    "dictionary_for_tasks": (column("tasks", lambda rows: pa.array(["x"] * rows).dictionary_encode(), EPISODES), FILE),
    "rows_of_nothing": (lerobot(_rows_of_nothing), FILE),
    "mp4_dimensions": (mp4(b"mp4v", 24, struct.pack(">HH", 65535, 65535)), None),
    "mp4_text": (mp4(b"ftyp", 0, bytes([128] * 4)), None),
    "mp4_samples": (mp4(b"stsz", 4, struct.pack(">II", 1, 2**31)), "the table stsz declares"),
    "mp4_box": (mp4(b"mdat", -8, struct.pack(">I", 2**31)), "declares 2147483648 bytes"),
    "mp4_times": (mp4(b"stts", 8, struct.pack(">II", 1, 2**31)), "file-000.mp4"),
    "mp4_timescale": (mp4(b"mdhd", 12, bytes(4)), "file-000.mp4"),
    "mp4_nested": (lerobot(_nested_boxes, write_lerobot_video), None),
}  # fmt: skip
