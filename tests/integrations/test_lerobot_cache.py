"""Frames decoded once into shards, and the loader's view of a dataset."""

import multiprocessing
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from robocache.cache import ShardStore
from robocache.errors import ArgumentError
from robocache.integrations import lerobot_cached_frames, lerobot_frames
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import CAMERA, FPS, LENGTHS  # noqa: TID252 -- tests are not an installed package

SIZE = (16, 24)


def cached(root, folder, **arguments):
    return LeRobotDataset("x", root=root, cache=folder, size=SIZE, **arguments)


def resized(root):
    with av.open(str(root / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float()
    return torch.nn.functional.interpolate(pixels, SIZE, mode="bilinear", antialias=True)


def test_cached_frames_are_those_decoded_and_resized(small, tmp_path):
    """Fails when a shard holds another episode's frames, or uint8 and float frames differ by more than the division."""
    dataset = cached(small, tmp_path / "cache", return_uint8=True)
    order = [20, 3, 3, 6, 7, 19, 0, 23]
    found = dataset.batch(order)[CAMERA]
    assert found.dtype == torch.uint8
    assert (found.float() - resized(small)[order]).abs().max() <= 1
    floats = cached(small, tmp_path / "cache").batch(order)[CAMERA]
    assert torch.equal(floats, found / 255.0)
    assert torch.equal(LeRobotDataset("x", root=small, size=SIZE).batch(order)[CAMERA], floats)


def test_a_second_epoch_decodes_nothing(small, tmp_path, monkeypatch):
    """Fails when an episode is decoded twice, here or in a later process."""
    decoded = []
    original = lerobot_frames.DecodedFrames.read
    monkeypatch.setattr(lerobot_frames.DecodedFrames, "read", lambda *a: decoded.append(len(a[3])) or original(*a))
    dataset = cached(small, tmp_path / "cache")
    for _ in range(2):
        for row in (23, 0, 8, 22, 1, 9):
            dataset[row]
    assert sorted(decoded) == sorted(LENGTHS)
    cached(small, tmp_path / "cache").batch(range(24))
    assert len(decoded) == 3
    assert len(ShardStore(tmp_path / "cache").ls()) == 3


def test_open_shards_are_bounded(small, tmp_path, monkeypatch):
    """Fails when every episode ever touched stays open."""
    monkeypatch.setattr(lerobot_cached_frames, "MAX_OPEN_SHARDS", 1)
    dataset = cached(small, tmp_path / "cache")
    expected = dataset.batch(range(24))[CAMERA]
    assert len(dataset.frames._shards) == 1
    assert torch.equal(dataset.batch(range(24))[CAMERA], expected)


def test_mapped_frames_do_not_pile_up(small, tmp_path, monkeypatch):
    """Fails when pages are never let go of, or frames read after that are wrong."""
    dataset = cached(small, tmp_path / "cache")
    expected = dataset.batch(range(24))[CAMERA]
    place = (CAMERA, 1)
    mapping = dataset.frames.episode(*place).base
    assert _resident_bytes(mapping) > 0
    monkeypatch.setattr(lerobot_cached_frames, "MAX_RESIDENT_BYTES", 1)
    dataset[0]
    assert _resident_bytes(mapping) == 0
    assert torch.equal(dataset.batch(range(24))[CAMERA], expected)


def _resident_bytes(mapping):
    """Of this process's memory, how much a mapping holds, as the system counts it."""
    address = np.frombuffer(mapping, np.uint8).ctypes.data
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            return 1024 * next(int(entry.split()[1]) for entry in lines if entry.startswith("Rss:"))
    raise AssertionError("there is no such mapping")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_one_cache(small, tmp_path, method):
    """Fails when workers decode the same episode at once, or inherit shards that they cannot use."""
    dataset = cached(small, tmp_path / "cache")
    dataset[0]
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method, timeout=120)
    found = torch.cat([batch[CAMERA] for batch in loader])
    assert torch.equal(found, dataset.batch(range(24))[CAMERA])
    assert not multiprocessing.active_children()


def test_the_loaders_view(small, tmp_path):
    """Fails when an episode's arrays are another's, a horizon is lost, or the fingerprint ignores the content."""
    deltas = {"action": [k / FPS for k in range(4)]}
    dataset = cached(small, tmp_path / "cache", delta_timestamps=deltas)
    aligned = dataset.aligned()
    assert aligned.lengths.tolist() == list(LENGTHS)
    assert aligned.features["action"].horizon == 4
    assert aligned.features["observation.state"].columns == ("a", "b")
    assert aligned.features[CAMERA].shape == (3, *SIZE)
    whole = cached(small, tmp_path / "cache", return_uint8=True).batch(range(24))
    first = 0
    for number, length in enumerate(LENGTHS):
        with aligned.open_episode(number) as episode:
            rows = slice(first, first + length)
            np.testing.assert_array_equal(episode.data["observation.wide"], whole["observation.wide"][rows])
            np.testing.assert_array_equal(episode.data["action"][:, 0], whole["action"][rows])
            np.testing.assert_array_equal(episode.data[CAMERA][episode.row[CAMERA]], whole[CAMERA][rows])
            assert episode.times_ns.tolist() == [round(k * 1e9 / FPS) for k in range(length)]
        first += length
    assert aligned.fingerprint == cached(small, tmp_path / "cache").aligned().fingerprint
    assert aligned.fingerprint != cached(small, tmp_path / "cache", episodes=[0, 1]).aligned().fingerprint
    before = aligned.fingerprint
    dataset.columns.numbers["action"][3] += 1
    assert aligned.fingerprint != before


def test_what_the_loader_cannot_give_is_refused(small, tmp_path):
    with pytest.raises(ArgumentError, match="give LeRobotDataset cache= and size="):
        LeRobotDataset("x", root=small).aligned()
    before = cached(small, tmp_path / "cache", delta_timestamps={"action": [-1 / FPS, 0.0]})
    with pytest.raises(ArgumentError, match="ask the loader for a window"):
        before.aligned()
