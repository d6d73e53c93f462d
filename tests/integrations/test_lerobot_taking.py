"""The columns of a batch in one call, beside numpy's indexing."""

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robocache.integrations import lerobot_cached_frames
from robocache.integrations.lerobot import LeRobotDataset
from robocache.ops import native_library

from .conftest import CAMERA, FPS, LENGTHS  # noqa: TID252 -- tests are not an installed package

# Runs of rows that follow one another, gaps, the same row twice, descending ones, beyond both edges.
OFFSETS = [-9, -2, -1, 0, 0, 1, 2, 5, 4, 3, 8]
WINDOWED = ("action", "observation.wide", "next.done", "observation.counts")


@pytest.fixture(params=["native", "torch"])
def backend(request, monkeypatch):
    """The compiled library, and what stands in for it."""
    if request.param == "torch":
        monkeypatch.setattr(native_library, "PROBLEM", "left out by a test")
    elif native_library.PROBLEM is not None:
        pytest.skip(native_library.PROBLEM)


def windowed(root, names=WINDOWED):
    return LeRobotDataset("x", root=root, delta_timestamps={name: [k / FPS for k in OFFSETS] for name in names})


@pytest.mark.usefixtures("backend")
def test_windows_and_rows_are_numpys(small):
    """Fails when a run is copied beyond its episode, a pad is a neighbour's, or a width is another column's."""
    dataset = windowed(small)
    columns = {name: column.numpy() for name, column in dataset.columns.numbers.items()}
    index = np.random.default_rng(0).permutation(np.arange(-24, 24))
    batch = dataset.batch(index.tolist())
    rows = index % 24
    ends = np.repeat(np.cumsum(LENGTHS), LENGTHS)[rows]
    starts = np.repeat(np.cumsum(LENGTHS) - LENGTHS, LENGTHS)[rows]
    wanted = rows[:, None] + np.array(OFFSETS)
    held = np.clip(wanted, starts[:, None], ends[:, None] - 1)
    for name, column in columns.items():
        expected = column[held] if name in WINDOWED else column[rows]
        np.testing.assert_array_equal(batch[name].numpy(), expected, name)
        assert batch[name].dtype == torch.from_numpy(column).dtype
    for name in WINDOWED:
        np.testing.assert_array_equal(batch[f"{name}_is_pad"].numpy(), wanted != held)


@pytest.mark.usefixtures("backend")
def test_a_batch_is_the_readers_own_and_errors_write_nothing(small):
    """Fails when tensors share memory with the columns, an index is changed, or one beyond the dataset is read."""
    dataset = windowed(small)
    index = torch.tensor([5, -1, 3])
    first = dataset.batch(index)
    assert index.tolist() == [5, -1, 3]
    before = {name: column.clone() for name, column in dataset.columns.numbers.items()}
    for value in first.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert all(torch.equal(before[name], column) for name, column in dataset.columns.numbers.items())
    for wrong in ([0, 24], [-25], [2**62, 0]):
        with pytest.raises(IndexError, match=f"indices must be -24 to 23, got {min(wrong)} to {max(wrong)}"):
            dataset.batch(wrong)
    assert dataset.batch([])["observation.wide"].shape == (
        0,
        len(OFFSETS),
        *dataset.columns.numbers["observation.wide"].shape[1:],
    )


@pytest.mark.usefixtures("backend")
def test_a_pickled_dataset_takes_its_own_columns(small):
    """Fails when addresses travel to another process: there, they are those of anything."""
    dataset = windowed(small)
    expected = dataset.batch(range(24))
    pickled = pickle.dumps(dataset)
    for column in dataset.columns.numbers.values():
        column.zero_()
    found = pickle.loads(pickled).batch(range(24))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value


@pytest.mark.usefixtures("backend")
def test_columns_may_move(small):
    """Fails when addresses are kept: PyTorch moves the tensors that it sends to a spawned process to shared memory."""
    dataset = windowed(small)
    expected = dataset.batch(range(24))
    for column in dataset.columns.numbers.values():
        column.share_memory_()
    found = dataset.batch(range(24))
    assert all(torch.equal(found[name], expected[name]) for name in dataset.columns.numbers)


def test_a_shard_stays_mapped_while_it_is_copied(small, tmp_path, monkeypatch):
    """Fails when what another thread closes meanwhile is unmapped: copying from there ends the process."""
    monkeypatch.setattr(lerobot_cached_frames, "MAX_OPEN_SHARDS", 1)
    dataset = LeRobotDataset("x", root=small, cache=tmp_path / "cache", size=(16, 24), return_uint8=True)
    expected = dataset.batch([1, 2])[CAMERA]
    original, are_mapped = lerobot_cached_frames.gather, []

    def interrupted(runs, *arguments, **named):
        dataset.frames.episode(CAMERA, 1)
        gc.collect()
        are_mapped.append(is_mapped(int(runs.bases[0])))
        if are_mapped[-1]:
            original(runs, *arguments, **named)

    monkeypatch.setattr(lerobot_cached_frames, "gather", interrupted)
    found = dataset.batch([1, 2])[CAMERA]
    assert list(dataset.frames._shards) == [(CAMERA, 1)]
    assert are_mapped == [True]
    assert torch.equal(found, expected)


def is_mapped(address):
    spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(int(start, 16) <= address < int(end, 16) for start, end in spans)
