"""LeRobot: every number is what pyarrow says, every time exactly frame / fps."""

import json
import shutil

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robocache.errors import (
    ArgumentError,
    ClosedError,
    DamagedRecordingError,
    RecordingLimitError,
    RecordingNotFoundError,
    UnknownFormatError,
    UnknownStreamError,
)
from robocache.readers import Limits, Recording, open_recording

from .conftest import recording  # noqa: TID252 -- tests are not an installed package

LENGTHS = (3, 5)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def write_dataset(root, **info):
    """A v3.0 dataset of two episodes with a state of two joints, a text and a video."""
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    state = np.arange(2 * len(frames), dtype=np.float32).reshape(-1, 2)
    table = pa.table(
        {
            "observation.state": pa.array(list(state), pa.list_(pa.float32())),
            "timestamp": (frames / 30).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.repeat([0, 1], LENGTHS),
        }
    )
    pq.write_table(table, root / DATA)
    episodes = {"episode_index": [0, 1], "length": LENGTHS, "tasks": [["pick"], ["pick", "place"]]}
    pq.write_table(pa.table({**episodes, "data/chunk_index": [0, 0], "data/file_index": [0, 0]}), root / EPISODES)
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "observation.images.top": {"dtype": "video", "shape": [4, 4, 3], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    described = {
        "codebase_version": "v3.0",
        "fps": 30,
        "robot_type": "test",
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        **info,
    }
    (root / "meta/info.json").write_text(json.dumps(described))
    return root


def test_a_rate_for_what_has_times_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="d: has times of its own; leave out rate_hz"):
        open_recording(write_dataset(tmp_path / "d"), rate_hz=30)


def test_v30_is_what_pyarrow_reads():
    root = recording("g1_lerobot_v30")
    table = pq.read_table(root / DATA).to_pandas()
    with open_recording(root) as opened:
        assert isinstance(opened, Recording)
        assert opened.format == "lerobot-v3.0"
        assert opened.episode_names == tuple(f"episode_{index:06d}" for index in range(7))
        for index in range(7):
            episode = opened.read_episode(index)
            rows = table[table.episode_index == index]
            assert list(episode.streams) == ["observation.state", "action", "observation.images.cam_high"]
            for name in ("observation.state", "action"):
                stream = episode.streams[name]
                np.testing.assert_array_equal(stream.values, np.stack(rows[name]))
                assert stream.values.dtype == np.float32
                assert stream.clock == "frame_index / fps"
                exact = [(2 * int(frame) * 10**9 + 30) // 60 for frame in rows.frame_index]
                assert stream.times_ns.tolist() == exact
                assert np.abs(stream.clocks["timestamp"] - stream.times_ns).max() < 1_000
    assert episode.streams["action"].columns[:2] == ("kLeftShoulderPitch", "kLeftShoulderRoll")
    assert episode.attributes["task"] == "Pick up the yellow bottle on the table."
    assert episode.attributes["skipped"] == {}


def test_v21_holds_the_same_episodes_as_v30():
    with open_recording(recording("g1_lerobot_v21")) as old, open_recording(recording("g1_lerobot_v30")) as new:
        assert old.format == "lerobot-v2.1"
        assert old.episode_names == ("episode_000000", "episode_000001")
        for index in range(2):
            before, after = old.read_episode(index), new.read_episode(index)
            assert before.attributes["task"] == after.attributes["task"]
            for name, stream in before.streams.items():
                np.testing.assert_array_equal(stream.values, after.streams[name].values)
                np.testing.assert_array_equal(stream.times_ns, after.streams[name].times_ns)


def test_a_generated_dataset(tmp_path):
    with open_recording(write_dataset(tmp_path / "d")) as opened:
        first, second = (opened.read_episode(index) for index in range(2))
        with pytest.raises(UnknownStreamError, match=r"no stream 'x'; it has observation\.state"):
            opened.read_episode(0, ["x"])
    assert first.streams["observation.state"].values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second.streams["observation.state"].times_ns.tolist() == [0, 33333333, 66666667, 100000000, 133333333]
    assert second.attributes["task"] == "pick; place"
    assert first.streams["observation.state"].columns == ("a", "b")
    with pytest.raises(ClosedError):
        opened.read_episode(0)


@given(fps=st.sampled_from([1, 10, 30, 29.97, 50, 59.94, 1000 / 3]), frame=st.integers(0, 2**31))
def test_frame_times_are_exact_however_late(fps, frame):
    from fractions import Fraction

    from robocache.readers.lerobot_meta import Dataset

    dataset = Dataset(None, "v3.0", fps, "", "", {}, {}, ())
    exact = Fraction(frame) * 10**9 / Fraction(fps).limit_denominator(1_000_000)
    assert abs(int(dataset.frame_times_ns(np.array([frame]))[0]) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("info", "kind", "message"),
    [
        ({"codebase_version": "v1.0"}, UnknownFormatError, "is of version 'v1.0'; RoboCache reads v3.0, v2.1, v2.0"),
        ({"fps": 0}, DamagedRecordingError, "fps is '0', not between"),
        ({"fps": True}, DamagedRecordingError, "fps is 'True'"),
        ({"fps": 10**400}, DamagedRecordingError, "fps is '1000"),
        ({"features": {"x": {"dtype": ["float32"], "shape": [2]}}}, DamagedRecordingError, "'x' has the dtype"),
        ({"fps": "30"}, DamagedRecordingError, "fps is '30'"),
        ({"features": []}, DamagedRecordingError, r"features is '\[\]'"),
        ({"features": {"x": 3}}, DamagedRecordingError, "feature 'x' is '3'"),
        ({"features": {"x": {"dtype": "float32", "shape": [2**60]}}}, DamagedRecordingError, "has the shape"),
        ({"data_path": 3}, DamagedRecordingError, "data_path is '3'"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_metadata_that_cannot_be(tmp_path, info, kind, message):
    with pytest.raises(kind, match=message):
        open_recording(write_dataset(tmp_path / "d", **info))


def test_a_damaged_file_is_closed_while_its_error_is_still_held(tmp_path):
    """Fails when pyarrow opens the file: it closes it only with the error's frames."""
    root = write_dataset(tmp_path / "d")
    with open_recording(root) as opened:
        (root / DATA).write_bytes(b"PAR1" + bytes(100))
        before = psutil.Process().num_fds()
        with pytest.raises(DamagedRecordingError) as error:
            opened.read_episode(0)
        assert psutil.Process().num_fds() == before, error


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("../../{chunk_index}/secret.parquet", "leads out of the dataset"),
        ("/etc/passwd", "leads out of the dataset"),
        ("data/link/x.parquet", "leads out of the dataset"),
        ("data/{nothing}.parquet", "cannot be filled in"),
        ("data/{chunk_index:999999999999d}", "cannot be filled in"),
        ("data/{chunk_index:999999d}", "cannot be filled in"),
        ("data/{chunk_index.__class__}/x.parquet", "cannot be filled in"),
        ("data/{chunk_index!r}/x.parquet", "cannot be filled in"),
        ("data/{chunk_index:{file_index}}/x.parquet", "cannot be filled in"),
        ("data\0/x", "cannot be filled in"),
    ],
    ids=["parent", "absolute", "symlink", "unknown", "wide", "too-wide", "attribute", "conversion", "nested", "zero"],
)
def test_paths_stay_inside_the_dataset(tmp_path, template, message):
    root = write_dataset(tmp_path / "d", data_path=template)
    (root / "data/link").symlink_to(tmp_path)
    (tmp_path / "x.parquet").write_bytes((root / DATA).read_bytes())
    with (
        open_recording(root) as opened,
        pytest.raises((DamagedRecordingError, RecordingNotFoundError), match=message),
    ):
        opened.read_episode(0)


def replace_column(root, name, values):
    table = pq.read_table(root / DATA)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), root / DATA)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("observation.state", pa.array(["x"] * 8), "column observation.state: holds string"),
        ("observation.state", pa.array([[1, 2]] * 8), "is int64, but meta/info.json says float32"),
        ("observation.state", pa.array([[1.0, 2.0]] * 7 + [[1.0]], pa.list_(pa.float32())), "has 1 numbers in row 4"),
        ("observation.state", pa.array([[1.0, None]] * 8, pa.list_(pa.float32())), "with .* missing"),
        ("observation.state", pa.array([None] * 8, pa.list_(pa.float32())), "misses whole rows"),
        ("observation.state", pa.array([[[1.0]]] * 8), "column observation.state"),
        ("frame_index", pa.array([-1] * 8), "frame_index is not a count"),
        ("frame_index", pa.array(["x"] * 8), "column frame_index: holds string"),
        ("timestamp", pa.array([float("nan")] * 8), "timestamp holds values that are not seconds"),
        ("episode_index", pa.array([0, 1] * 4), "rows of other episodes inside episode 1"),
        ("episode_index", pa.array([0] * 8), "has no row of episode 1"),
        ("episode_index", pa.array([0] * 4 + [1] * 4), "has 4 rows of episode 1, but meta/ says 5"),
    ],
)  # fmt: skip
def test_columns_of_the_wrong_kind(tmp_path, name, values, message):
    root = write_dataset(tmp_path / "d")
    replace_column(root, name, values)
    with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match=message):
        opened.read_episode(1)


def test_a_missing_column_and_missing_files(tmp_path):
    root = write_dataset(tmp_path / "d")
    pq.write_table(pq.read_table(root / DATA).drop_columns(["observation.state"]), root / DATA)
    with open_recording(root) as opened:
        with pytest.raises(DamagedRecordingError, match=r"has no column 'observation\.state'; it has timestamp"):
            opened.read_episode(0)
        (root / DATA).unlink()
        with pytest.raises(RecordingNotFoundError, match=r"file-000\.parquet: is missing from the dataset"):
            opened.read_episode(0)
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(DamagedRecordingError, match="meta/episodes: holds no chunk"):
        open_recording(root)


def test_a_frame_whose_time_leaves_int64_is_refused(tmp_path):
    root = write_dataset(tmp_path / "d", fps=0.001)
    table = pq.read_table(root / DATA)
    place = table.column_names.index("frame_index")
    frames = np.array([0, 1, 2**31, 0, 1, 2, 3, 4])
    pq.write_table(table.set_column(place, "frame_index", pa.array(frames)), root / DATA)
    with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match="frame 2147483648 at "):
        opened.read_episode(0)


def test_without_frame_index_the_timestamp_is_the_clock(tmp_path):
    root = write_dataset(tmp_path / "d")
    pq.write_table(pq.read_table(root / DATA).drop_columns(["frame_index"]), root / DATA)
    with open_recording(root) as opened:
        stream = opened.read_episode(1).streams["observation.state"]
    assert stream.clock == "timestamp"
    np.testing.assert_array_equal(stream.times_ns, np.rint((np.arange(5) / 30).astype(np.float32).astype(float) * 1e9))


def test_a_column_that_expands_beyond_the_limits_is_refused(tmp_path):
    root = write_dataset(tmp_path / "d")
    with pytest.raises(RecordingLimitError, match=r"file-000\.parquet: declares 474 decompressed bytes, and 100 are"):
        open_recording(root, limits=Limits(episode_bytes=100))
    with open_recording(root) as opened:
        opened._limits = Limits(episode_bytes=60)
        with pytest.raises(RecordingLimitError, match=r"file-000\.parquet: declares \d+ (decompressed|stored) bytes"):
            opened.read_episode(0)
