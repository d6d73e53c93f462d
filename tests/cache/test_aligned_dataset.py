"""The data set over a cache: the same numbers as `align_episode`, lazily, after eviction, damage, pickle and fork."""

from __future__ import annotations

import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import robocache
from robocache.align import Align, From, Rate, align_episode
from robocache.cache import Pieces, ShardStore
from robocache.cache.aligned import episode_arrays, episode_contents
from robocache.cache.description import described
from robocache.cache.manifest import shard_names
from robocache.errors import ArgumentError, BuildError
from robocache.policies import Linear, Nearest
from robocache.readers import SyntheticRobot, open_recording
from robocache.readers.recording import OpenRecording
from robocache.readers.sources import EpisodeSources
from robocache.records import Episode, RecordedStream

ROBOT = partial(SyntheticRobot, 3, duration_s=1.0, episodes=3, lidar_points=64)
SPEC = Align(Rate(50))
RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "recordings"
REAL = {"g1": "g1_lerobot_v30", "husky": "husky_mcap/husky.mcap", "broad": "broad/24_disturbed_tapping_A.hdf5"}


def assert_same(arrays, aligned):
    """Compared with what `align_episode` gives, frame by frame for clouds."""
    np.testing.assert_array_equal(arrays.times_ns, aligned.times_ns)
    assert list(arrays.valid) == list(aligned.valid)
    for name, valid in aligned.valid.items():
        np.testing.assert_array_equal(arrays.valid[name], valid.numpy())
        np.testing.assert_array_equal(arrays.age_ns[name], aligned.age_ns[name])
    for name, data in aligned.data.items():
        np.testing.assert_array_equal(arrays.data[name], data.numpy())
    for name, scans in aligned.scans.items():
        assert len(arrays.offsets[name]) - 1 == len(set(scans.scan.tolist()))
        for frame in (0, len(aligned.times_ns) // 2, len(aligned.times_ns) - 1):
            start, end = arrays.offsets[name][arrays.row[name][frame] :][:2]
            np.testing.assert_array_equal(arrays.data[name][start:end], scans.points(frame).astype(np.float32))


@pytest.fixture
def dataset(tmp_path):
    return robocache.open(ROBOT, SPEC, cache=tmp_path / "cache", workers=1)


def shards(dataset):
    return sorted(dataset._folder.shards.iterdir())


def test_episodes_are_built_when_they_are_asked_for(dataset):
    """Fails when an array is another than `align_episode` gives, or more is built than was asked for."""
    assert dataset.lengths.tolist() == [len(align_episode(ROBOT().read_episode(k), SPEC).times_ns) for k in range(3)]
    assert shards(dataset) == []
    with dataset.open_episode(1) as arrays:
        assert_same(arrays, align_episode(ROBOT().read_episode(1), SPEC))
        assert not arrays.data["/camera.features"].flags.writeable
    assert len(shards(dataset)) == 1
    lidar = dataset.features["/lidar.points"]
    assert (lidar.kind, lidar.dtype, lidar.shape, lidar.columns) == ("points", np.float32, (3,), ("x", "y", "z"))
    with pytest.raises(ArgumentError, match="index must be 0 to 2"), dataset.open_episode(3):
        pass


@pytest.mark.parametrize("name", REAL)
def test_real_recordings_are_what_align_episode_gives(tmp_path, name):
    """Fails when a real recording comes out of the cache with any other number. G1, Husky, BROAD."""
    path = Path(os.environ.get("ROBOCACHE_RECORDINGS", RECORDINGS)) / REAL[name]
    if not path.exists():
        pytest.skip(f"{path} is absent; set ROBOCACHE_RECORDINGS")
    dataset = robocache.open(path, SPEC, cache=tmp_path / "cache", workers=1)
    assert dataset.build().episodes == len(dataset.episode_names)
    with open_recording(path) as recording:
        for index in {0, len(recording.episode_names) - 1}:
            with dataset.open_episode(index) as arrays:
                assert_same(arrays, align_episode(recording.read_episode(index), SPEC))


def test_scans_that_no_frame_uses_are_left_out(tmp_path):
    """Fails when a frame's row counts recorded scans instead of those that are kept. Seen to fail with that edit."""
    slow = Align(Rate(3))
    dataset = robocache.open(partial(SyntheticRobot, 3, duration_s=3.0), slow, cache=tmp_path / "cache")
    with dataset.open_episode(0) as arrays:
        assert_same(arrays, align_episode(SyntheticRobot(3, duration_s=3.0).read_episode(0), slow))
        assert len(arrays.offsets["/lidar.points"]) - 1 < 10


def test_what_is_known_is_not_read_again(dataset, tmp_path, monkeypatch):
    """Fails when lengths or features of a data set that was built once need its recording or its shards again."""
    dataset.build()
    lengths = dataset.lengths.tolist()
    shutil.rmtree(dataset._folder.shards)
    monkeypatch.setattr(SyntheticRobot, "read_episode", lambda *_: pytest.fail("read"))
    again = robocache.open(ROBOT, SPEC, cache=tmp_path / "cache")
    assert again.lengths.tolist() == lengths
    assert again.features == dataset.features
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("damage", [b"", b"00000000\n{}\n", b"\xff" * 50])
def test_a_damaged_manifest_is_made_anew(dataset, tmp_path, damage):
    """Fails when a manifest is believed without its checksum, or a bad one ends the opening."""
    lengths = dataset.lengths.tolist()
    (manifest,) = dataset._folder.manifests.iterdir()
    whole = manifest.read_bytes()
    manifest.write_bytes(damage)
    assert robocache.open(ROBOT, SPEC, cache=tmp_path / "cache").lengths.tolist() == lengths
    assert manifest.read_bytes() == whole


def test_an_evicted_or_damaged_shard_is_built_anew(dataset):
    """Fails when an open episode is evicted, an evicted one stays away, or a damaged one is served."""
    dataset.build()
    with dataset.open_episode(0) as arrays:
        evicted = ShardStore(dataset._folder.root).gc(0).evicted
        assert len(evicted) == 2
        assert_same(arrays, align_episode(ROBOT().read_episode(0), SPEC))
    with dataset.open_episode(1) as arrays:
        assert_same(arrays, align_episode(ROBOT().read_episode(1), SPEC))
    del arrays
    path = dataset._folder.shard_path(dataset._units[1].key.digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    again = robocache.open(ROBOT, SPEC, cache=dataset._folder.root)
    with pytest.warns(RuntimeWarning, match="built anew"), again.open_episode(1) as arrays:
        assert_same(arrays, align_episode(ROBOT().read_episode(1), SPEC))


def test_it_travels_and_holds_nothing_when_idle(dataset):
    """Fails when a data set keeps a file open, or cannot be pickled or used in a forked process."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with dataset.open_episode(0) as arrays:
        times_ns = arrays.times_ns.tolist()
    del arrays
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    again = pickle.loads(pickle.dumps(dataset))
    with again.open_episode(0) as arrays:
        assert arrays.times_ns.tolist() == times_ns
    child = os.fork()
    if child == 0:
        with dataset.open_episode(0) as arrays:
            os._exit(0 if arrays.times_ns.tolist() == times_ns else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_keys_depend_on_what_matters(tmp_path):
    """Fails when a key forgets a field of the alignment, or sees a difference where there is none."""
    base = Align(Rate(50), {"x": From("y", Linear(max_gap="50ms"))})
    same = Align(Rate(50.0), {"x": From("y", Linear(max_gap=50_000_000))})
    assert described(base) == described(same)
    others = [
        Align(Rate(51), base.streams),
        Align(Rate(50), base.streams, span="union"),
        Align(Rate(50), {"x": From("y", Nearest(max_gap="50ms"))}),
        Align(Rate(50), {"x": From("y", Linear(max_gap="50ms"), latency="1ms")}),
        Align(Rate(50), {"z": From("y", Linear(max_gap="50ms"))}),
    ]
    assert described(base) not in [described(other) for other in others]
    opened = partial(robocache.open, cache=tmp_path / "cache")
    few, more = opened(ROBOT, SPEC), opened(partial(ROBOT.func, *ROBOT.args, **ROBOT.keywords | {"episodes": 4}), SPEC)
    assert [unit.key for unit in more._units][:3] == [unit.key for unit in few._units]
    assert few.fingerprint != more.fingerprint
    assert shard_names(tmp_path / "cache")[few._units[2].key.digest] == ("synthetic:seed=3", "episode_000002")


class CountedFrames:
    """Images whose every pixel is the number of the image; notes which are asked for."""

    shape = (1200, 1600, 3)

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 100

    def read(self, numbers, *, size=None):
        self.asked.append((numbers.tolist(), size))
        height, width = size
        images = np.zeros((len(numbers), height, width, 3), np.uint8)
        images[:] = numbers[:, None, None, None]
        images[..., 2] = 255
        return images


class Camera(OpenRecording):
    """One image stream at 10 Hz and a number at 50 Hz; the second episode has a wider number."""

    format = "camera"

    def __init__(self):
        super().__init__("camera", ("a", "b"))
        self.frames = CountedFrames()

    def episode_sources(self, index):
        return EpisodeSources((), {"episode": index})

    def _read(self, index, streams, span):
        times_ns = np.arange(100, dtype=np.int64) * 100_000_000
        top = RecordedStream("top", np.arange(100)[:, None], times_ns, {}, "log", kind="image", frames=self.frames)
        fast_ns = np.arange(100, dtype=np.int64) * 20_000_000
        values = np.zeros((100, 2 + index))
        return Episode(
            self.episode_names[index], {"top": top, "x": RecordedStream("x", values, fast_ns, {}, "log")}, "c"
        )


def test_distinct_images_are_decoded_once_in_chunks_at_training_size():
    """Fails when an image is decoded twice, at full size, all at once, or lands on the wrong frame or axis.

    Seen to fail with a `step` of all images.
    """
    episode = Camera().read_episode(0)
    frames = episode.streams["top"].frames
    aligned = align_episode(episode, SPEC)
    numbers = episode.streams["top"].values[aligned.images["top"].row, 0]
    contents = episode_contents(aligned)
    assert frames.asked == []
    arrays = {
        name: np.concatenate([part.copy() for part in array.make()]) if isinstance(array, Pieces) else array
        for name, array in contents.arrays.items()
    }
    used = sorted(set(numbers.tolist()))
    assert [number for asked, _ in frames.asked for number in asked] == used
    assert {size for _, size in frames.asked} == {(224, 224)}
    assert max(len(asked) for asked, _ in frames.asked) * 1200 * 1600 * 3 <= 32 * 2**20
    assert arrays["data/top"].shape == (len(used), 3, 224, 224)
    np.testing.assert_array_equal(arrays["data/top"][arrays["row/top"], 0, 5, 7], numbers)
    assert (arrays["data/top"][:, 2] == 255).all()
    assert contents.description["features"][0]["shape"] == [3, 224, 224]


def test_images_go_through_the_cache_and_other_features_are_refused(tmp_path):
    """Fails when an image stream is stored as numbers, or episodes with other features are mixed."""
    dataset = robocache.open(Camera, SPEC, cache=tmp_path / "cache", workers=1)
    with dataset.open_episode(0) as arrays:
        assert arrays.data["top"].dtype == np.uint8
        assert episode_arrays({"times_ns": arrays.times_ns}, {}).data == {}
    assert dataset.features["top"].kind == "image"
    with pytest.raises(BuildError, match=r"camera, b: .*x is numbers float64\[3\], and numbers float64\[2\] there"):
        dataset.build()


def test_open_without_a_description_gives_the_recording(tmp_path, monkeypatch):
    """Fails when the default cache is not the documented one, or a limit is not read as people write it."""
    with robocache.open(ROBOT) as recording:
        assert recording.episode_names == ROBOT().episode_names
    monkeypatch.setenv("ROBOCACHE_CACHE", str(tmp_path / "named"))
    dataset = robocache.open(ROBOT, SPEC, cache_limit="1 MiB")
    assert (dataset._folder.root, dataset._checked_store.limit_bytes) == (tmp_path / "named", 2**20)
    monkeypatch.delenv("ROBOCACHE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert robocache.open(ROBOT, SPEC)._folder.root == tmp_path / "user" / "robocache"
    with pytest.raises(ArgumentError, match="cache_limit must be a size such as 20GB"):
        robocache.open(ROBOT, SPEC, cache_limit="much")
    with pytest.raises(ArgumentError, match="spec must be an Align"):
        robocache.open(ROBOT, 50)
