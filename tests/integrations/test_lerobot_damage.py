"""Metadata that fit nothing: the drop-in dataset refuses them with one error that names the file."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robocache.errors import DamagedRecordingError, RecordingError
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import CAMERA  # noqa: TID252 -- tests are not an installed package
from .test_lerobot_stills import write_stills  # noqa: TID252


def read(root):
    dataset = LeRobotDataset("local/set", root=root)
    return dataset.batch([0, len(dataset) - 1])


def set_info(root, name, **fields):
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][name] = {**info["features"][name], **fields} if fields else None
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("timestamp", {}),
        ("timestamp", {"shape": None}),
        ("timestamp", {"shape": [None]}),
        ("timestamp", {"shape": [1.5]}),
        ("frame_index", {"shape": [float("inf")]}),
        ("frame_index", {"shape": []}),
        ("task_index", {"dtype": "string"}),
        ("observation.state", {"dtype": "int64", "shape": ["a", "b"]}),
        ("observation.wide", {"shape": [2**31 - 1, 2**31 - 1, 4]}),
        (CAMERA, {"dtype": 5}),
    ],
    ids=str,
)
def test_features_that_are_no_features(small, tmp_path, name, fields):
    """Catches a shape or dtype of info.json that is taken for what it should be."""
    root = shutil.copytree(small, tmp_path / "set")
    set_info(root, name, **fields)
    with pytest.raises(DamagedRecordingError, match=str(tmp_path)):
        read(root)


@pytest.mark.parametrize("length", [-1, 2**60, 2**70, 10**400, "7", None], ids=lambda length: str(length)[:9])
def test_lengths_that_no_episode_has(tmp_path, length):
    """Catches room made for as many rows as an episode says to have, and sums that leave 64 bits."""
    root = write_stills(tmp_path / "set", "v2.1")
    episodes = root / "meta/episodes.jsonl"
    lines = episodes.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"length": length})
    episodes.write_text("\n".join(lines))
    with pytest.raises(DamagedRecordingError, match="line 2"):
        read(root)


def test_a_length_that_is_only_too_large(small, tmp_path):
    root = shutil.copytree(small, tmp_path / "set")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("length")
    pq.write_table(table.set_column(column, "length", [[7, 2**39, 7]]), path)
    with pytest.raises(DamagedRecordingError, match="does not hold the rows that meta/ lists"):
        read(root)


def test_a_video_whose_place_is_not_known(small, tmp_path):
    """Catches the first frames of the first file, which are another episode's, where the place is not said."""
    root = shutil.copytree(small, tmp_path / "set")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select([name for name in table.column_names if not name.startswith("videos/")]), path)
    with pytest.raises(DamagedRecordingError, match=f"does not say where the video {CAMERA} of episode 0 is"):
        read(root)


def test_a_task_without_a_text(small, tmp_path):
    """Catches a KeyError from the number of a task that the table of tasks does not have."""
    root = shutil.copytree(small, tmp_path / "set")
    pq.write_table(pa.table({"task_index": [0, 7], "task": ["pick", "push"]}), root / "meta/tasks.parquet")
    with pytest.raises(DamagedRecordingError, match="column task_index: has the number 1 in a row, and no text for it"):
        read(root)


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": ["x"]}, {"mean": {}}, {"mean": [1, [2]]}, {"count": []}, {"mean": [1, 2, 3]}, {"std": [10**400]}, 5,
    ],
    ids=str,
)  # fmt: skip
def test_statistics_that_are_no_numbers(tmp_path, changed):
    """Catches statistics of two episodes that are added, whatever they are."""
    root = write_stills(tmp_path / "set", "v2.1")
    (root / "meta/stats.json").unlink()
    good = {key: [1, 2] for key in ("mean", "std", "min", "max", "count")}
    stats = [good, good | changed if isinstance(changed, dict) else changed]
    lines = [json.dumps({"episode_index": row, "stats": {"action": part}}) for row, part in enumerate(stats)]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(lines))
    with pytest.raises(RecordingError, match=r"episodes_stats\.jsonl"):
        read(root)
