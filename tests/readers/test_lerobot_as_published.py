"""LeRobot datasets as their authors published them: other versions, widths and names than LeRobot 0.4 writes."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from robocache.integrations.lerobot import LeRobotDataset
from robocache.readers import open_recording

from .image_recordings import as_v21, write_lerobot_images  # noqa: TID252 -- tests are not an installed package
from .test_lerobot import DATA, LENGTHS, replace_column, write_dataset  # noqa: TID252


def change_info(root, **changed):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_v20_is_v21_with_the_statistics_of_all_episodes(tmp_path):
    """GR00T's and many Open X conversions are of v2.0. Fails where that version is refused."""
    new, old = (as_v21(write_lerobot_images(tmp_path / name)) for name in ("new", "old"))
    change_info(old, codebase_version="v2.0")
    (old / "meta/stats.json").write_text(json.dumps({"observation.state": {"mean": [1.0, 2.0], "std": [3.0, 4.0]}}))
    with open_recording(new) as expected, open_recording(old) as found:
        assert found.format == "lerobot-v2.0"
        for index in range(len(LENGTHS)):
            first, second = expected.read_episode(index), found.read_episode(index)
            assert list(second.streams) == list(first.streams)
            assert second.attributes == first.attributes
            for name, stream in second.streams.items():
                np.testing.assert_array_equal(stream.values, first.streams[name].values)
                np.testing.assert_array_equal(stream.times_ns, first.streams[name].times_ns)
    assert LeRobotDataset("a/b", root=old).meta.stats["observation.state"]["std"].tolist() == [3, 4]


def test_v20_videos_are_found(tmp_path):
    """One file an episode, as in v2.1. Fails where only v2.1's are said to be somewhere."""
    root = as_v21(write_dataset(tmp_path / "d"))
    change_info(root, codebase_version="v2.0", video_path="videos/{video_key}/episode_{episode_index:06d}.mp4")
    with open_recording(root) as opened:
        reason = opened.read_episode(1).attributes["skipped"]["observation.images.top"]
    assert reason.endswith("episode_000001.mp4 is not there")


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_floats_have_the_declared_width(tmp_path, kind):
    """pandas writes Python's floats as float64. Fails where another width than the declared one is called damage."""
    root = write_dataset(tmp_path / "d")
    numbers = np.random.default_rng(0).normal(size=(sum(LENGTHS), 2)).astype(kind)
    numbers[0, 0] = np.finfo(kind).max  # infinite as float32, without a warning
    replace_column(root, "observation.state", pa.array(list(numbers), pa.list_(pa.from_numpy_dtype(kind))))
    with open_recording(root) as opened:
        values = opened.read_episode(1).streams["observation.state"].values
    stored = pd.read_parquet(root / DATA)["observation.state"].iloc[LENGTHS[0] :]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.stack(stored).astype(np.float32))
    with open_recording(root) as opened:
        first = opened.read_episode(0).streams["observation.state"].values[0, 0]
    assert np.isinf(first) == (kind is np.float64)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ({"delta_x": 0, "gripper": 1}, ("delta_x", "gripper")),
        ({"gripper": 1, "delta_x": 0}, ("delta_x", "gripper")),
        ({"delta_x": 0, "gripper": 0}, ()),
        ({"delta_x": 0, "gripper": "1"}, ()),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"0": "a", "1": "b"}, ("a", "b")),
        (None, ()),
    ],
)
def test_names_of_columns(tmp_path, names, columns):
    """LeRobot's gamepads and gym_hil name them by their places. Fails without that, or in another order."""
    root = write_dataset(tmp_path / "d")
    features = {"observation.state": {"dtype": "float32", "shape": [2], "names": names}}
    change_info(root, features=features)
    with open_recording(root) as opened:
        assert opened.read_episode(0).streams["observation.state"].columns == columns
