"""For every test of this room: whoever starts a thread ends it. And datasets, and the batches they must give."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.testing import MemoryDataset

BOX = {"grid_min": (0.0, 0.0, 0.0), "voxel_size": 0.5, "grid_size": (4, 4, 4), "mode": "count"}
FEATURES = {
    "state": Feature("state", "numbers", np.dtype("float32"), (3,), columns=("x", "y", "z")),
    "wide": Feature("wide", "numbers", np.dtype("float64"), (2,)),
    "flag": Feature("flag", "numbers", np.dtype("int64"), (1,)),
    "imu": Feature("imu", "numbers", np.dtype("float32"), (4, 6)),
    "action": Feature("action", "numbers", np.dtype("float32"), (2,), horizon=5),
    "image": Feature("image", "image", np.dtype("uint8"), (3, 5, 4)),
    "cloud": Feature("cloud", "points", np.dtype("float32"), (4,)),
    "voxels": Feature("voxels", "points", np.dtype("float32"), (3,), grid=BOX),
}


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        must = os.environ.get("ROBOCACHE_REQUIRE_GPU") == "1"
        (pytest.fail if must else pytest.skip)("needs a GPU, and PyTorch sees none")


@pytest.fixture(scope="session")
def ranks():
    """Runs a program as so many ranks, processes of their own; gives what rank 0 printed, as JSON."""
    command = [sys.executable, str(Path(__file__).with_name("ranks.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:

        def run(program, folder, job):
            meeting = folder / f"meeting-{len(list(folder.iterdir()))}"
            process.stdin.write(json.dumps(job | {"program": program, "meeting": str(meeting)}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == [0] * job["world_size"]
            return json.loads(Path(f"{meeting}.0").read_text())

        yield run
        process.stdin.close()
        with suppress(ProcessLookupError):  # a rank that hangs
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _every_thread_is_joined():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def make_episode(frames, names, random):
    parts = {"data": {}, "valid": {}, "age_ns": {}, "row": {}, "offsets": {}}
    for name in names:
        feature = FEATURES[name]
        rows = (frames,)
        if feature.kind != "numbers":
            distinct = frames // 2 + 1
            parts["row"][name] = np.sort(random.integers(0, distinct, frames))
            rows = (distinct,)
        if feature.kind == "points":
            parts["offsets"][name] = np.concatenate([[0], np.cumsum(random.integers(0, 6, distinct))])
            rows = (int(parts["offsets"][name][-1]),)
        values = random.uniform(0, 100 if feature.dtype.kind in "ui" else 2, (*rows, *feature.shape))
        parts["data"][name] = values.astype(feature.dtype)
        samples = feature.shape[:1] if len(feature.shape) == 2 else ()
        parts["valid"][name] = random.random((frames, *samples)) < 0.7
        parts["age_ns"][name] = random.integers(0, 10**9, (frames, *samples))
    return EpisodeArrays(np.cumsum(random.integers(1, 10**7, frames)), **parts)


@pytest.fixture
def make_dataset():
    """A dataset of random content; by default with every kind of feature."""

    def make(lengths=(9, 3, 12, 1, 7), names=tuple(FEATURES), seed=0, **rest):
        random = np.random.default_rng(seed)
        episodes = [make_episode(frames, names, random) for frames in lengths]
        dataset = MemoryDataset({name: FEATURES[name] for name in names}, episodes, **rest)
        dataset.episodes = episodes
        return dataset

    return make


def expected_rows(feature, frame, window, frames):
    if feature.horizon == 1:
        return list(range(frame, frame + window)), [True] * window
    rows = [frame + window - 1 + step for step in range(feature.horizon)]
    return [min(row, frames - 1) for row in rows], [row < frames for row in rows]


def check_batch(batch, datasets, window):
    """A loop over samples, features and frames, in plain numpy, that shares nothing with the loader."""
    for sample in range(len(batch.frame)):
        dataset = datasets[int(batch.dataset[sample])]
        episode, frame = dataset.episodes[int(batch.episode[sample])], int(batch.frame[sample])
        frames = len(episode.times_ns)
        assert batch.times_ns[sample].tolist() == episode.times_ns[frame : frame + window].tolist()
        for name in batch.valid:
            if name not in dataset.features:
                assert not batch.valid[name][sample].any()
                if name in batch:
                    assert not batch[name][sample].any()
                continue
            feature = dataset.features[name]
            rows, inside = expected_rows(feature, frame, window, frames)
            for place, (row, is_inside) in enumerate(zip(rows, inside, strict=True)):
                valid = episode.valid[name][row] & is_inside
                np.testing.assert_array_equal(batch.valid[name][sample, place].cpu().numpy(), valid)
                np.testing.assert_array_equal(batch.age[name][sample, place].cpu().numpy(), episode.age_ns[name][row])
                check_value(batch, name, episode, (sample, place, row, len(rows)))


def check_value(batch, name, episode, where):
    sample, place, row, per = where
    feature = FEATURES[name]
    values = episode.data[name]
    if feature.kind == "numbers":
        expected = values[row]
    elif feature.kind == "image":
        expected = values[episode.row[name][row]]
    else:
        scan = episode.row[name][row]
        expected = values[episode.offsets[name][scan] : episode.offsets[name][scan + 1]]
    if name in batch.points:
        cloud = batch.points[name]
        start, stop = cloud.offsets[sample * per + place : sample * per + place + 2].tolist()
        np.testing.assert_array_equal(cloud.points[start:stop].cpu().numpy(), expected)
        return
    if feature.kind == "points":
        expected = np.histogramdd(expected, bins=(4, 4, 4), range=[(0, 2)] * 3)[0].astype(np.int32)
    np.testing.assert_array_equal(batch[name][sample, place].cpu().numpy(), expected)


@pytest.fixture
def check():
    """Compares a batch with a plain loop."""
    return check_batch
