"""Datasets for the drop-in tests: real ones where they are, a small one with a video everywhere."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

RECORDINGS = Path(
    os.environ.get("ROBOCACHE_RECORDINGS", Path(__file__).resolve().parents[2].parent / "shared" / "recordings")
)
CAMERA = "observation.images.top"
LENGTHS = (7, 10, 7)
FPS = 30


def recording(name):
    """Path of a real recording; skips the test where there is none."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set ROBOCACHE_RECORDINGS to the folder with the real recordings")
    return path


def write_video(path, count, start=0):
    """Frames whose brightness says which they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, "yuv420p", 4
        for number in range(start, start + count):
            grey = np.full((32, 48, 3), 20 + 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))


def write_columns(root, features, columns):
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    book = {
        "timestamp": (frames / FPS).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.repeat(np.arange(len(LENGTHS)), LENGTHS),
        "index": np.arange(len(frames)),
        "task_index": np.repeat([1, 0, 1], LENGTHS),
    }
    pq.write_table(pa.table({**columns, **book}), root / "data/chunk-000/file-000.parquet")
    for name in book:
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    ends = np.cumsum(LENGTHS)
    starts = ends - LENGTHS
    episodes = {
        "episode_index": np.arange(len(LENGTHS)),
        "length": LENGTHS,
        "tasks": [["push"], ["pick"], ["push"]],
        "data/chunk_index": [0] * 3,
        "data/file_index": [0] * 3,
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        f"videos/{CAMERA}/chunk_index": [0] * 3,
        f"videos/{CAMERA}/file_index": [0] * 3,
        f"videos/{CAMERA}/from_timestamp": starts / FPS,
        f"videos/{CAMERA}/to_timestamp": ends / FPS,
    }
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    pd.DataFrame({"task_index": [0, 1]}, index=["pick", "push"]).to_parquet(root / "meta/tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "robot_type": "test",
        "fps": FPS,
        "total_episodes": len(LENGTHS),
        "total_frames": len(frames),
        "total_tasks": 2,
        "chunks_size": 1000,
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text(json.dumps({"action": {"mean": [0.5], "std": [1.0]}}))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A v3.0 dataset of three episodes in one file, with every kind of column and a video."""
    root = tmp_path_factory.mktemp("small") / "set"
    rows = sum(LENGTHS)
    random = np.random.default_rng(3)
    wide = random.normal(size=(rows, 2, 3)).astype(np.float32)
    columns = {
        "observation.state": pa.array(list(random.normal(size=(rows, 2)).astype(np.float32)), pa.list_(pa.float32())),
        "action": random.normal(size=rows),  # float64, and one number a row
        "observation.counts": pa.array(list(random.integers(0, 99, (rows, 3), np.int32)), pa.list_(pa.int32())),
        "observation.wide": pa.array(wide.tolist(), pa.list_(pa.list_(pa.float32()))),
        "next.done": random.random(rows) < 0.5,
    }
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
        "action": {"dtype": "float64", "shape": [1], "names": None},
        "observation.counts": {"dtype": "int32", "shape": [3], "names": None},
        "observation.wide": {"dtype": "float32", "shape": [2, 3], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        CAMERA: {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"], "info": None},
    }
    write_columns(root, features, columns)
    write_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", rows)
    return root
