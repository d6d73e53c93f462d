"""The dataset as pandas, pyarrow and our own reader see it; statistics judged by numpy on all frames."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from robocache.align import Align, From, Rate, align_episode
from robocache.align.lerobot import LeRobotWriter, feature_name
from robocache.align.lerobot_statistics import FeatureStatistics
from robocache.errors import ArgumentError, ShapeError
from robocache.policies import Window
from robocache.readers import SyntheticRobot, open_recording
from robocache.records import Episode, RecordedStream


def test_statistics_of_numbers_near_the_largest_float_warn_of_nothing():
    huge = FeatureStatistics.of(np.full((3, 1), 1e308))
    lists = FeatureStatistics.together([huge, huge]).as_lists()
    assert (lists["max"], lists["mean"]) == ([1e308], [np.inf])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    episodes = []
    with (
        SyntheticRobot(seed=5, duration_s=3.0, episodes=3, lidar_points=16) as robot,
        LeRobotWriter(folder, Fraction(50), extra={"source": robot.path}) as writer,
    ):
        for index in range(3):
            episodes.append(align_episode(robot.read_episode(index), Align(Rate(50))))
            writer.add(episodes[-1], task=("reach", "reach", "grasp")[index])
    return folder, episodes


def single(name="s", values=None, source="run.mcap"):
    values = np.ones((3, 2), np.float32) if values is None else values
    times = np.arange(len(values), dtype=np.int64) * 10**8
    stream = RecordedStream(name, values, times, {"log": times}, "log")
    return Episode("e", {name: stream}, source)


def test_our_own_reader_gives_back_every_value(dataset):
    folder, episodes = dataset
    with open_recording(folder) as recording:
        assert recording.format == "lerobot-v3.0"
        assert len(recording.episode_names) == 3
        for index, aligned in enumerate(episodes):
            read = recording.read_episode(index)
            for stream, data in aligned.data.items():
                name = feature_name(stream)
                np.testing.assert_array_equal(read.streams[name].values, data)
                np.testing.assert_array_equal(read.streams[f"valid.{name}"].values[:, 0], aligned.valid[stream])
                np.testing.assert_array_equal(read.streams[f"age_ns.{name}"].values[:, 0], aligned.age_ns[stream])
                if aligned.columns[stream]:
                    assert read.streams[name].columns == aligned.columns[stream]
            np.testing.assert_array_equal(read.streams["time_ns"].values[:, 0], aligned.times_ns)
            scan = read.streams[feature_name("/lidar.points")].values[:, 0]
            np.testing.assert_array_equal(scan, aligned.scans["/lidar.points"].scan)


def test_the_bookkeeping_is_lerobots(dataset):
    folder, episodes = dataset
    table = pd.read_parquet(folder / "data/chunk-000/file-000.parquet")
    frames = [len(aligned.times_ns) for aligned in episodes]
    assert table["index"].tolist() == list(range(sum(frames)))
    assert table["frame_index"].tolist() == [frame for count in frames for frame in range(count)]
    assert table["episode_index"].tolist() == np.repeat([0, 1, 2], frames).tolist()
    assert table["task_index"].tolist() == np.repeat([0, 0, 1], frames).tolist()
    assert table["timestamp"].dtype == np.float32
    np.testing.assert_array_equal(table["timestamp"], (table["frame_index"] / 50).astype(np.float32))
    tasks = pd.read_parquet(folder / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["reach", "grasp"]
    assert tasks["task_index"].tolist() == [0, 1]
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in rows] == frames
    assert [row["dataset_to_index"] for row in rows] == np.cumsum(frames).tolist()
    assert [row["tasks"] for row in rows] == [["reach"], ["reach"], ["grasp"]]
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["fps"], info["total_frames"], info["total_episodes"]) == (50, sum(frames), 3)
    assert (info["total_tasks"], info["splits"]) == (2, {"train": "0:3"})
    assert info["robocache"] == {"source": "synthetic:seed=5"}
    described = info["features"]["observation.joint_states.position"]
    assert described["dtype"] == "float64"
    assert described["shape"] == [7]
    assert set(table.columns) == set(info["features"])


def test_the_same_layout_as_a_dataset_that_lerobot_wrote(dataset, recordings):
    folder, _ = dataset
    real = recordings / "g1_lerobot_v30"
    theirs, mine = (json.loads((root / "meta/info.json").read_text()) for root in (real, folder))
    assert set(theirs) - set(mine) == set()
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert {key: theirs["features"][name][key] for key in ("dtype", "shape", "names")} == {
            key: mine["features"][name][key] for key in ("dtype", "shape", "names")
        }
    for path in ("data/chunk-000/file-000.parquet", "meta/tasks.parquet"):
        theirs, mine = (pq.read_schema(root / path) for root in (real, folder))
        shared = [name for name in theirs.names if name in mine.names]
        assert {"task_index"} <= set(shared)
        for name in shared:
            assert str(mine.field(name).type).replace("large_", "") == str(theirs.field(name).type).replace(
                "large_", ""
            )
    theirs, mine = (pq.read_schema(root / "meta/episodes/chunk-000/file-000.parquet") for root in (real, folder))
    expected = [name for name in theirs.names if "observation" not in name and "action" not in name]
    assert set(expected) <= set(mine.names)
    assert {name: str(mine.field(name).type) for name in expected} == {
        name: str(theirs.field(name).type) for name in expected
    }


def test_statistics_are_those_of_all_frames(dataset):
    folder, episodes = dataset
    statistics = json.loads((folder / "meta/stats.json").read_text())
    for stream in ("/joint_states.position", "/camera.features"):
        values = torch.cat([aligned.data[stream] for aligned in episodes]).double().numpy()
        stored = statistics[feature_name(stream)]
        for name, want in {
            "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
        }.items():  # fmt: skip
            np.testing.assert_allclose(stored[name], want, rtol=1e-9, atol=1e-12)
        assert stored["count"] == [len(values)]
    stamps = np.concatenate([aligned.times_ns for aligned in episodes])
    assert statistics["time_ns"]["min"] == [int(stamps.min())]
    assert statistics["time_ns"]["max"] == [int(stamps.max())]
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    second = episodes[1].data["/joint_states.position"].numpy()
    np.testing.assert_allclose(rows[1]["stats/observation.joint_states.position/std"], second.std(0))


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_statistics_leave_out_what_is_nan():
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(rows, 4)) for rows in (5, 1, 30)]
    parts[0][:, 0] = parts[2][3:9, 1] = parts[1][:, 2] = np.nan
    for part in parts:
        part[:, 3] = np.nan
    whole = np.concatenate(parts)
    measured = FeatureStatistics.together([FeatureStatistics.of(part) for part in parts]).as_lists()
    for name, judge in {"min": np.nanmin, "max": np.nanmax, "mean": np.nanmean, "std": np.nanstd}.items():
        np.testing.assert_allclose(measured[name], judge(whole, axis=0), rtol=1e-12)


def test_feature_names_have_no_slash_and_say_what_they_are():
    names = ["/imu/data.orientation", "observation.state", "action", "action.gripper", "opt_pos", "actions"]
    assert feature_name("/a\0b") == "observation.a_b"  # a cloud's voxels lie in a folder of that name
    assert [feature_name(name) for name in names] == [
        "observation.imu_data.orientation",
        "observation.state",
        "action",
        "action.gripper",
        "observation.opt_pos",
        "observation.actions",
    ]


def test_episodes_with_other_features_are_refused_by_name(tmp_path):
    writer = LeRobotWriter(tmp_path, Fraction(10))
    writer.add(align_episode(single(), Align(Rate(10))))
    other = align_episode(single(values=np.ones((3, 5), np.float32)), Align(Rate(10)))
    with pytest.raises(ShapeError, match=r"^run\.mcap: e differs from the episodes before it in observation\.s; align"):
        writer.add(other)
    writer.close()


def test_streams_that_would_share_a_feature_are_refused(tmp_path):
    first, second = single("/a/b").streams["/a/b"], single("/a_b").streams["/a_b"]
    aligned = align_episode(Episode("e", {"/a/b": first, "/a_b": second}, "run.mcap"), Align(Rate(10)))
    with pytest.raises(ArgumentError, match=r"two streams would be the feature 'observation\.a_b', one of them '/a_b'"):
        LeRobotWriter(tmp_path, Fraction(10)).add(aligned)


def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="without episodes"):
        LeRobotWriter(tmp_path, Fraction(10)).close()


def test_half_precision_becomes_single_and_a_long_dataset_is_cut_into_files(tmp_path, monkeypatch):
    monkeypatch.setattr("robocache.align.lerobot.FILE_BYTES", 1)
    values = np.arange(6, dtype=np.float16).reshape(3, 2)
    with LeRobotWriter(tmp_path, Fraction(10)) as writer:
        for _ in range(2):
            writer.add(align_episode(single(values=values), Align(Rate(10))))
    assert sorted(path.name for path in (tmp_path / "data/chunk-000").iterdir()) == [
        "file-000.parquet",
        "file-001.parquet",
    ]
    assert pd.read_parquet(tmp_path / "meta/tasks.parquet").index.tolist() == ["no task given"]
    with open_recording(tmp_path) as recording:
        read = recording.read_episode(1).streams["observation.s"]
    assert read.values.dtype == np.float32
    np.testing.assert_array_equal(read.values, values)


def test_a_windows_samples_stand_side_by_side(tmp_path):
    """Fails when a window is cut, turned round, or named from the wrong end."""
    times = np.arange(6, dtype=np.int64) * 10**8
    imu = RecordedStream("imu", np.arange(12.0).reshape(6, 2), times, {"log": times}, "log", columns=("x", "y"))
    spec = Align(Rate(10), {"imu": From("imu", Window("250ms", 3))})
    with LeRobotWriter(tmp_path, Fraction(10)) as writer:
        writer.add(align_episode(Episode("e", {"imu": imu}, "run.mcap"), spec))
    table = pd.read_parquet(tmp_path / "data/chunk-000/file-000.parquet")
    assert np.stack(table["observation.imu"])[2:].tolist() == [list(range(2 * k, 2 * k + 6)) for k in range(4)]
    assert np.stack(table["valid.observation.imu"]).sum(axis=1).tolist() == [1, 2, 3, 3, 3, 3]
    feature = json.loads((tmp_path / "meta/info.json").read_text())["features"]["observation.imu"]
    assert feature["names"] == ["x[-2]", "y[-2]", "x[-1]", "y[-1]", "x[0]", "y[0]"]
