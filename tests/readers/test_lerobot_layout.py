"""LeRobot datasets as they lie on real disks: in a cache of links, written by another language, with gaps."""

import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from robocache.errors import DamagedRecordingError, UnknownStreamError
from robocache.readers import open_recording

from .image_recordings import (  # noqa: TID252 -- tests are not an installed package
    VIDEO,
    as_v21,
    write_lerobot_images,
    write_lerobot_video,
)
from .test_lerobot import DATA, EPISODES, write_dataset  # noqa: TID252


def as_snapshot(root, folder):
    """The folder of links that `huggingface_hub.snapshot_download` gives, and its blobs beside it."""
    snapshot, blobs = folder / "datasets--a--b/snapshots/0123abcd", folder / "datasets--a--b/blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blobs / f"{number:040x}")
        link.symlink_to(os.path.relpath(blobs / f"{number:040x}", link.parent))
    return snapshot


def test_a_snapshot_of_the_hub_is_read(tmp_path):
    """Fails where a dataset's files must lie below its folder, whoever links them."""
    root = write_lerobot_video(tmp_path / "d")
    with open_recording(root) as direct, open_recording(as_snapshot(root, tmp_path)) as linked:
        for index in range(2):
            expected, found = direct.read_episode(index).streams, linked.read_episode(index).streams
            assert list(found) == list(expected)
            np.testing.assert_array_equal(found["observation.state"].values, expected["observation.state"].values)
            frames = [streams[VIDEO].frames.read(np.array([1])) for streams in (found, expected)]
            np.testing.assert_array_equal(*frames)


def test_a_snapshot_leads_nowhere_else(tmp_path):
    """Fails where any link is followed."""
    snapshot = as_snapshot(write_dataset(tmp_path / "d"), tmp_path)
    file = next(snapshot.glob("data/*/*"))
    shutil.copyfile(file, tmp_path / "x.parquet")
    file.unlink()
    file.symlink_to(tmp_path / "x.parquet")
    with open_recording(snapshot) as opened, pytest.raises(DamagedRecordingError, match="leads out of the dataset"):
        opened.read_episode(0)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_a_task_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path, mark):
    """JSON need not escape them, and LeRobot's writer does not. Fails with `splitlines`."""
    root = as_v21(write_lerobot_images(tmp_path / "d"))
    path = root / "meta/episodes.jsonl"
    rows = [json.loads(line) | {"tasks": [f"pick{mark}up"]} for line in path.read_text("utf-8").split("\n") if line]
    escaped = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\r\n".join(escaped) + "\r\n", "utf-8", newline="")
    with open_recording(root) as opened:
        assert opened.read_episode(1).attributes["task"] == f"pick{mark}up"


def test_a_video_that_is_said_to_be_nowhere_is_left_out(tmp_path):
    """Fails where such an episode gets the first frames of a file, which are another episode's."""
    root = write_lerobot_video(tmp_path / "d")
    table = pq.read_table(root / EPISODES)
    for name in (name for name in table.column_names if name.startswith("videos/")):
        values = [table[name][0].as_py(), None]
        table = table.set_column(table.column_names.index(name), name, [values])
    pq.write_table(table, root / EPISODES)
    with open_recording(root) as opened:
        assert VIDEO in opened.read_episode(0).streams
        episode = opened.read_episode(1)
        assert VIDEO not in episode.streams
        assert episode.attributes["skipped"][VIDEO] == "meta/episodes does not say where it is"
        with pytest.raises(UnknownStreamError, match="does not say where it is"):
            opened.read_episode(1, [VIDEO])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_episodes_that_meta_lost_are_missed(tmp_path, version):
    """A list cut between two lines, a file of it that was not downloaded. Fails where the shorter list is believed."""
    root = write_dataset(tmp_path / "d", total_episodes=2)
    if version == "v2.1":
        as_v21(root)
        path = root / "meta/episodes.jsonl"
        path.write_text(path.read_text().split("\n")[0] + "\n")
    else:
        pq.write_table(pq.read_table(root / EPISODES).slice(0, 1), root / EPISODES)
    with pytest.raises(DamagedRecordingError, match=r"total_episodes is 2, but 1 are described"):
        open_recording(root)


def test_a_parquet_file_that_was_cut_says_where(tmp_path):
    """Fails where that is left to pyarrow, which names no byte."""
    root = write_dataset(tmp_path / "d")
    whole = (root / DATA).read_bytes()
    for size, at, message in (
        (len(whole) // 2, len(whole) // 2 - 4, "does not end with the signature"),
        (2, 0, "does not end with the signature"),
        (0, 0, "is empty"),
    ):
        (root / DATA).write_bytes(whole[:size])
        with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match=message) as caught:
            opened.read_episode(0)
        assert caught.value.offset == at
    (root / DATA).write_bytes(whole[:-8] + b"\xff\xff\xff\x7fPAR1")
    with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match=r"footer of 2147483647 bytes"):
        opened.read_episode(0)
