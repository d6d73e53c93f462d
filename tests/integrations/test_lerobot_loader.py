"""RoboCache's loader over a LeRobot dataset: its batches are the items, which other tests hold against LeRobot's."""

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import CAMERA, FPS, LENGTHS  # noqa: TID252 -- tests are not an installed package

SIZE = (64, 96)  # large enough that the frames of all episodes do not fit the smaller memory below
CHUNK = [step / FPS for step in range(4)]


def cached(root, folder, **arguments):
    return LeRobotDataset("x", root=root, cache=folder, size=SIZE, return_uint8=True, **arguments)


@pytest.mark.parametrize(("memory", "tier"), [("300KB", "disk"), ("64MiB", "ram")])
def test_batches_are_the_items(small, tmp_path, memory, tier):
    """Fails when a batch takes a frame, a row of a horizon or a column of another row, or a padded row is valid."""
    dataset = cached(small, tmp_path / "cache", delta_timestamps={"action": CHUNK})
    starts, seen = np.cumsum(LENGTHS) - LENGTHS, []
    with rc.Loader(dataset.aligned(), batch_size=3, device="cpu", memory=memory, seed=1) as loader:
        assert loader.statistics().tier == tier
        for batch in loader:
            rows = torch.from_numpy(starts[batch.episode.numpy()]) + batch.frame
            items = dataset.batch(rows)
            for name in (CAMERA, "observation.state", "observation.wide", "observation.counts"):
                assert torch.equal(batch[name][:, 0], items[name]), name
            assert torch.equal(batch["action"][..., 0], items["action"])
            assert torch.equal(batch.valid["action"], ~items["action_is_pad"])
            seen += rows.tolist()
    assert sorted(seen) == list(range(sum(LENGTHS)))


def test_a_window_is_what_deltas_before_the_frame_are(small, tmp_path):
    """Fails when a window ends at another frame than the item that looks back."""
    back = [-2 / FPS, -1 / FPS, 0.0]
    deltas = {"observation.state": back, CAMERA: back, "action": CHUNK}
    dataset = cached(small, tmp_path / "cache", delta_timestamps={"action": CHUNK})
    items = cached(small, tmp_path / "cache", delta_timestamps=deltas)
    starts = np.cumsum(LENGTHS) - LENGTHS
    with rc.Loader(dataset.aligned(), batch_size=4, window=3, device="cpu", seed=1) as loader:
        assert len(loader) == -(-sum(length - 2 for length in LENGTHS) // 4)
        for batch in loader:
            expected = items.batch(torch.from_numpy(starts[batch.episode.numpy()]) + batch.frame + 2)
            for name in (CAMERA, "observation.state"):
                assert torch.equal(batch[name], expected[name]), name
                assert not expected[f"{name}_is_pad"].any()
            assert torch.equal(batch["action"][..., 0], expected["action"])


def test_aligned_episodes_hold_the_same(small, tmp_path):
    """Fails when the alignment at the dataset's own rate takes another frame or row than the item."""
    spec = rc.Align(
        rc.Rate(FPS),
        {
            "observation.state": rc.From("observation.state"),
            CAMERA: rc.From(CAMERA, then=rc.Resize(*SIZE)),
        },
    )
    dataset = cached(small, tmp_path / "cache")
    aligned = rc.open(small, spec, cache=tmp_path / "aligned")
    starts = np.cumsum(LENGTHS) - LENGTHS
    with rc.Loader(aligned, batch_size=4, device="cpu", seed=1) as loader:
        for batch in loader:
            items = dataset.batch(torch.from_numpy(starts[batch.episode.numpy()]) + batch.frame)
            assert torch.equal(batch[CAMERA][:, 0], items[CAMERA])
            torch.testing.assert_close(batch["observation.state"][:, 0], items["observation.state"])


def test_the_loader_takes_the_dataset_itself(small, tmp_path):
    """Fails when `aligned` is not asked: the features of the dataset then are none that the loader knows."""
    dataset = cached(small, tmp_path / "cache")
    with (
        rc.Loader(dataset, batch_size=4, seed=1) as loader,
        rc.Loader(dataset.aligned(), batch_size=4, seed=1) as other,
    ):
        loader.load_state_dict(other.state_dict())
        for batch, expected in zip(loader, other, strict=True):
            assert torch.equal(batch["action"], expected["action"])
            assert torch.equal(batch[CAMERA], expected[CAMERA])
