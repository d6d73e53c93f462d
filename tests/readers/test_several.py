"""Many recordings as one: which, in which order, under which names, and how many of them open."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from robocache.errors import ArgumentError, ClosedError, DamagedRecordingError, RecordingNotFoundError
from robocache.readers import open_recording, open_recordings
from robocache.readers.several import MAX_OPEN

from .conftest import POINT_CLOUD, START_NS, cloud_message, write_mcap  # noqa: TID252 -- tests are not installed
from .every_reader import write_hdf5  # noqa: TID252 -- tests are not an installed package
from .image_recordings import write_lerobot_video  # noqa: TID252
from .test_lerobot import LENGTHS, write_dataset  # noqa: TID252
from .test_rlds import episode_features  # noqa: TID252
from .test_rlds import write as write_rlds  # noqa: TID252


@pytest.fixture
def runs(tmp_path):
    """run1 to run12, in an order that no file system gives by chance."""
    for number in (10, 2, 12, 1, 3, 4, 5, 11, 6, 7, 8, 9):
        write_hdf5(tmp_path / f"run{number}.h5", rows=number + 40)
    return tmp_path


def open_files(folder):
    links = Path("/proc/self/fd").iterdir()
    return sum(str(folder) in str(link.readlink()) for link in links if link.is_symlink())


@pytest.mark.parametrize("how", ["folder", "pattern", "list", "deep"])
def test_episodes_are_those_of_the_files_in_natural_order(runs, how):
    """Catches text order (run10 before run2), a file opened twice, files that stay open beyond the cap."""
    files = [runs / f"run{number}.h5" for number in range(1, 13)]
    where = {"folder": runs, "pattern": f"{runs}/run*.h5", "list": files, "deep": f"{runs}/**/run*.h5"}[how]
    with open_recordings(where) as opened:
        assert opened.episode_names == tuple(f"run{number}/run{number}" for number in range(1, 13))
        assert opened.format == "hdf5"
        for index in (*range(12), 0, 11):
            episode = opened.read_episode(index, ["imu_acc"], end_ns=20_000_000)
            with open_recording(files[index]) as alone:
                expected = alone.read_episode(0, ["imu_acc"], end_ns=20_000_000).streams["imu_acc"]
            np.testing.assert_array_equal(episode.streams["imu_acc"].values, expected.values)
            assert episode.name == opened.episode_names[index]
            assert open_files(runs) <= MAX_OPEN
    assert open_files(runs) == 0
    with pytest.raises(ClosedError):
        opened.read_episode(0)


def test_names_are_unique(runs):
    (runs / "other").mkdir()
    shutil.copy(runs / "run1.h5", runs / "other" / "run1.h5")
    with open_recordings([runs / "run1.h5", runs / "other"]) as opened:
        assert opened.episode_names == (f"{runs.name}/run1/run1", "other/run1/run1")


def test_the_outer_folder_of_an_rlds_data_set_and_formats_side_by_side(tmp_path):
    inner = tmp_path / "set" / "bridge" / "1.0.0"
    inner.mkdir(parents=True)
    write_rlds(inner / "a.tfrecord", episode_features(4), episode_features(5))
    with open_recordings(tmp_path / "set", rate_hz=5) as opened:
        assert opened.episode_names == ("episode_000000", "episode_000001")  # one recording, however deep
    write_dataset(tmp_path / "both" / "lerobot")
    write_hdf5(tmp_path / "both" / "a.h5")
    with open_recordings(tmp_path / "both") as opened:
        assert opened.episode_names == ("a/a", "lerobot/episode_000000", "lerobot/episode_000001")
        assert opened.format == "hdf5, lerobot-v3.0"


@pytest.mark.parametrize("threads", [1, 4])
def test_images_outlive_the_turn_of_their_file(tmp_path, threads):
    """Catches images that die with the ninth file, that come from another file, and a file closed under a reader."""
    for number in range(MAX_OPEN):
        with h5py.File(tmp_path / f"run{number}.h5", "w") as file:
            file.attrs["sampling_rate"] = 10.0
            file["camera"] = np.full((5, 4, 6, 3), number, np.uint8)
    for number in (MAX_OPEN, MAX_OPEN + 1):
        write_lerobot_video(tmp_path / f"run{number}")
    with open_recordings(tmp_path) as opened:
        assert len(opened.episode_names) == MAX_OPEN + 2 * 2
        episodes = [opened.read_episode(index) for index in range(len(opened.episode_names))]
        streams = [next(stream for stream in episode.streams.values() if stream.frames) for episode in episodes]

        def read(turn):
            stream = streams[turn % len(streams)]
            return stream.frames.read(stream.values[::-1, 0])

        with ThreadPoolExecutor(threads) as pool:
            for turn, images in enumerate(pool.map(read, range(3 * len(streams)))):
                number = turn % len(streams)
                if number < MAX_OPEN:
                    np.testing.assert_array_equal(images, np.full((5, 4, 6, 3), number))
                else:
                    # Frame k of the file has the grey 5 * k; the second episode begins at frame 3.
                    expected = np.arange(LENGTHS[0])[::-1] if number % 2 == 0 else 3 + np.arange(LENGTHS[1])[::-1]
                    np.testing.assert_allclose(images.mean((1, 2, 3)), 5 * expected, atol=3)
        assert open_files(tmp_path) <= MAX_OPEN
    assert open_files(tmp_path) == 0
    with pytest.raises(ClosedError):
        streams[0].frames.read(np.array([0]))


@pytest.mark.parametrize("threads", [1, 4])
def test_points_outlive_the_turn_of_their_file(tmp_path, threads):
    """Catches clouds that die with the ninth file, that come from another file, and one that changed meanwhile."""
    counts = range(1, MAX_OPEN + 3)
    for count in counts:
        clouds = [
            (time, cloud_message(time, np.full((count, 4), float(time % 7)))) for time in (START_NS, START_NS + 9)
        ]
        topics = {"/points": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, clouds)}
        write_mcap(tmp_path / f"run{count}.mcap", topics)
    with open_recordings(tmp_path) as opened:
        episodes = [opened.read_episode(index, start_ns=START_NS + 1) for index in range(len(counts))]
        streams = [episode.streams["/points.points"] for episode in episodes]
        with ThreadPoolExecutor(threads) as pool:
            for turn, points in enumerate(pool.map(lambda turn: streams[turn % len(counts)].values[:], range(30))):
                np.testing.assert_array_equal(points, np.full((counts[turn % len(counts)], 4), (START_NS + 9) % 7))
        assert open_files(tmp_path) <= MAX_OPEN
        for stream in streams[-MAX_OPEN:]:
            stream.values[:]
        (tmp_path / "run2.mcap").replace(tmp_path / "run1.mcap")
        with pytest.raises(DamagedRecordingError, match="changed while it was read"):
            streams[0].values[:]
    with pytest.raises(ClosedError):
        streams[1].values[:1]


def test_one_recording_is_itself(runs):
    with open_recordings(runs / "run3.h5") as opened:
        assert opened.episode_names == ("run3",)


def test_what_cannot_be(runs):
    with pytest.raises(RecordingNotFoundError, match=r"\*\.bag: nothing fits this pattern"):
        open_recordings(f"{runs}/*.bag")
    with pytest.raises(RecordingNotFoundError, match="no such file"):
        open_recordings(runs / "missing")
    with pytest.raises(ArgumentError, match="an empty list"):
        open_recordings([])
    with pytest.raises(ArgumentError, match=r"run1\.h5 twice"):
        open_recordings([runs, runs / "run1.h5"])
    (runs / "run7.h5").write_bytes((runs / "run7.h5").read_bytes()[:1000])
    with pytest.raises(DamagedRecordingError, match=r"run7\.h5"):
        open_recordings(runs)
    assert open_files(runs) == 0
