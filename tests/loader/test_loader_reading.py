"""Rows of images are read from their files: right, with an error that names the episode, and no page stays behind."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import robocache as rc
from robocache.cache import ShardKey, ShardStore
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.errors import EpisodeError
from robocache.loader.reading import FileRows, RowError, place_of, read_rows, read_rows_by_numpy
from robocache.ops import native_library
from robocache.testing import MemoryDataset

SHAPE = (3, 112, 112)
HOWS = [read_rows_by_numpy, read_rows]

CHILD = """
import sys
from contextlib import ExitStack
import torch
import robocache as rc
from robocache.loader import episodes
sys.path.insert(0, sys.argv[1])
from test_loader_reading import opened

torch.set_num_threads(1)
if sys.argv[4] == "mapped":
    episodes.LEAST_ROW_BYTES = 2**60

def file_bytes():
    kilobytes = {}
    for line in open("/proc/self/smaps_rollup"):
        name, *value = line.split()
        kilobytes[name] = value[0]
    return (int(kilobytes["Rss:"]) - int(kilobytes["Anonymous:"])) * 1024

with ExitStack() as stack:
    dataset = opened(stack, sys.argv[2], int(sys.argv[3]))
    with rc.Loader(dataset, batch_size=16, memory="8MiB") as loader:
        assert loader.statistics().tier == "disk"
        grown, first = [], file_bytes()
        for batch in loader:
            int(batch["image"].sum())
            grown.append(file_bytes() - first)
print(max(grown))
"""


def images(number, frames):
    return np.random.default_rng(number).integers(0, 256, (frames, *SHAPE), np.uint8)


def opened(stack, folder, episodes, frames=128):
    """A dataset whose images lie in shards, which stay open as long as the stack."""
    store, made = ShardStore(folder), []
    for number in range(episodes):
        key = ShardKey(f"{number:064x}")
        shard = stack.enter_context(store.get_or_build(key, lambda number=number: {"image": images(number, frames)}))
        row = np.arange(frames)
        valid, age = {"image": np.ones(frames, bool)}, {"image": np.zeros(frames, np.int64)}
        made.append(EpisodeArrays(np.arange(frames), {"image": shard.arrays["image"]}, valid, age, {"image": row}))
    feature = Feature("image", "image", np.dtype("uint8"), SHAPE)
    return MemoryDataset({"image": feature}, made, fingerprint="shards")


def grown(folder, episodes, how):
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder), str(episodes), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(200)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the judge is Linux's own count")
def test_resident_memory_does_not_grow_with_the_cache(tmp_path):
    """The system's count of resident file pages, over a cache of 77 MB and a budget of 8 MB. Fails when images come
    through a mapping (`place_of` gives None, or `_is_read` False). The control does just that, and grows."""
    assert grown(tmp_path, 16, "read") < 8 * 2**20
    assert grown(tmp_path, 16, "mapped") > 48 * 2**20


@pytest.mark.parametrize("window", [1, 3])
def test_a_loader_reads_what_was_written(tmp_path, window, monkeypatch):
    """Fails when the offset is taken from the file's start instead of the array's, or a window's rows are in another
    order. The arrays that were written judge, with the library and without it."""
    for problem in (native_library.PROBLEM, "left out by the test"):
        monkeypatch.setattr(native_library, "PROBLEM", problem)
        with ExitStack() as stack:
            dataset = opened(stack, tmp_path, 3, frames=40)
            memory = 3 * 8 * window * int(np.prod(SHAPE))
            loader = stack.enter_context(rc.Loader(dataset, batch_size=8, window=window, memory=memory))
            assert loader.statistics().tier == "disk"
            for batch in loader:
                for sample, (episode, frame) in enumerate(zip(batch.episode, batch.frame, strict=True)):
                    expected = images(int(episode), 40)[int(frame) : int(frame) + window]
                    np.testing.assert_array_equal(batch["image"][sample].numpy(), expected)


@pytest.mark.parametrize("how", HOWS)
def test_rows_of_files_and_of_memory_in_one_call(tmp_path, how):
    """Fails when a run's place, its zeros, or whether it is in a file differ."""
    random = np.random.default_rng(0)
    stored, held = random.integers(0, 256, (2, 9, 500), np.uint8)
    (tmp_path / "rows").write_bytes(b"x" * 77 + stored.tobytes())
    with (tmp_path / "rows").open("rb") as file:
        runs = 300
        kind, rows, starts = random.integers(0, 3, runs), random.integers(-1, 9, runs), random.permutation(runs)
        files = np.array([file.fileno(), -1, -1])[kind]
        bases = np.array([77, held.ctypes.data, 0])[kind]
        out = np.full((runs, 500), 99, np.uint8)
        how(FileRows(files, bases, rows, starts), 500, out)
    source = np.stack([stored, held, np.zeros_like(held)])
    expected = np.zeros_like(out)
    expected[starts] = np.where((rows < 0)[:, None], 0, source[kind, rows])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("how", HOWS)
def test_a_row_that_is_not_there_is_an_error(tmp_path, how):
    """Fails when a short read counts as a row, whose bytes are then a former batch's, or the wrong run is named."""
    (tmp_path / "rows").write_bytes(bytes(950))
    with (tmp_path / "rows").open("rb") as file:
        wanted = FileRows(np.full(3, file.fileno()), np.zeros(3, np.int64), np.array([0, 8, 9]))
        with pytest.raises(RowError, match="the file ended before the row") as found:
            how(wanted, 100, np.zeros((3, 100), np.uint8))
    assert found.value.run == 2
    with pytest.raises(RowError, match="Bad file descriptor"):
        how(FileRows(np.array([2**20]), np.zeros(1, np.int64), np.zeros(1, np.int64)), 10, np.zeros(10, "u1"))


def test_a_shard_that_became_shorter_names_its_episode(tmp_path):
    """Fails when an image that cannot be read ends the process, as a mapping does, or the message leaves out where."""
    with ExitStack() as stack:
        dataset = opened(stack, tmp_path, 3, frames=40)
        loader = stack.enter_context(rc.Loader(dataset, batch_size=8, memory="1MiB", shuffle=False))
        path = next(tmp_path.rglob(f"{1:064x}.shard"))
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(EpisodeError, match=r"episode 1: an image of 'image' cannot be read: the file ended"):
            for _ in loader:
                pass


def test_the_descriptor_lives_as_long_as_the_mapping(tmp_path):
    """Fails when `FileMapping` closes its descriptor with the shard instead of with the last array, or never."""
    with ExitStack() as stack:
        dataset = opened(stack, tmp_path, 1, frames=4)
    array = dataset._episodes[0].data["image"]
    descriptor, offset = place_of(array)
    assert os.pread(descriptor, 100, offset) == array.tobytes()[:100]
    assert place_of(np.zeros(3)) is None
    del array, dataset
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
