"""Frames of several episodes on their way into the cache at once."""

import threading

import pytest
import torch

from robocache.cache import ShardStore
from robocache.integrations import lerobot_cached_frames
from robocache.integrations.lerobot import LeRobotDataset
from robocache.integrations.lerobot_frames import DecodedFrames

from .conftest import CAMERA, LENGTHS  # noqa: TID252 -- tests are not an installed package

SIZE = (16, 24)


def cached(root, folder):
    return LeRobotDataset("x", root=root, cache=folder, size=SIZE, return_uint8=True)


def frame_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("robocache-frames")]


def test_the_episodes_of_a_batch_are_decoded_side_by_side(small, tmp_path, monkeypatch):
    """Fails when they are decoded one after the other: with a pool of one thread, the first waits for the second."""
    one_by_one = cached(small, tmp_path / "one")
    expected = torch.stack([one_by_one[row][CAMERA] for row in range(24)])
    monkeypatch.setattr(lerobot_cached_frames.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    together = threading.Barrier(len(LENGTHS), timeout=30)
    original = lerobot_cached_frames.CachedFrames._build
    monkeypatch.setattr(
        lerobot_cached_frames.CachedFrames, "_build", lambda *a: (together.wait() and None) or original(*a)
    )
    assert torch.equal(cached(small, tmp_path / "cache").batch(range(24))[CAMERA], expected)
    assert not frame_threads()
    names = [
        [info.digest for info in sorted(ShardStore(tmp_path / folder).ls(), key=lambda info: info.digest)]
        for folder in ("one", "cache")
    ]
    assert names[0] == names[1]


def test_episodes_decoded_at_once_are_bounded(small, tmp_path, monkeypatch):
    """Fails when every processor of a large machine decodes an episode."""
    monkeypatch.setattr(lerobot_cached_frames.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(lerobot_cached_frames, "MAX_BUILDERS", 1)
    busy = threading.Lock()
    original = DecodedFrames.read

    def alone(*arguments):
        assert busy.acquire(blocking=False)
        try:
            return original(*arguments)
        finally:
            busy.release()

    monkeypatch.setattr(DecodedFrames, "read", alone)
    cached(small, tmp_path / "cache").batch(range(24))
    assert len(ShardStore(tmp_path / "cache").ls()) == len(LENGTHS)


def test_pieces_of_an_episode_are_the_episode(small, tmp_path, monkeypatch):
    """Fails when a piece is written twice, or in another's place."""
    cached(small, tmp_path / "whole").batch(range(24))
    monkeypatch.setattr(lerobot_cached_frames, "PIECE_BYTES", 3 * 3 * SIZE[0] * SIZE[1])
    lengths, original = [], DecodedFrames.read
    monkeypatch.setattr(DecodedFrames, "read", lambda *a: lengths.append(len(a[3])) or original(*a))
    cached(small, tmp_path / "pieces").batch(range(24))
    assert sorted(lengths) == [1] * 3 + [3] * 7
    files = [sorted((tmp_path / folder / "shards").iterdir()) for folder in ("whole", "pieces")]
    assert len(files[0]) == len(LENGTHS)
    for one, other in zip(*files, strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_an_episode_that_fails_leaves_no_thread_and_can_be_asked_for_again(small, tmp_path, monkeypatch):
    """Fails when an error in a thread is lost, or the others are not waited for."""
    monkeypatch.setattr(lerobot_cached_frames.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    original = lerobot_cached_frames.CachedFrames._build

    def failing(self, camera, episode):
        if episode == 1:
            raise OSError(5, "the disk is broken")
        return original(self, camera, episode)

    dataset = cached(small, tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(lerobot_cached_frames.CachedFrames, "_build", failing)
        with pytest.raises(OSError, match="the disk is broken"):
            dataset.batch(range(24))
    assert not frame_threads()
    expected = cached(small, tmp_path / "other").batch(range(24))[CAMERA]
    assert torch.equal(dataset.batch(range(24))[CAMERA], expected)
