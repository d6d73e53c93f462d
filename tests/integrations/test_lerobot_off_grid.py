"""Times between two frames, judged by numpy.interp and by searching the nearest stamp."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from robocache.errors import ArgumentError
from robocache.integrations.lerobot import LeRobotDataset
from robocache.policies import Linear, Previous

from .conftest import CAMERA, FPS, LENGTHS  # noqa: TID252 -- tests are not an installed package

DELTAS = [-0.05, -1 / FPS, 0.0, 0.011, 0.3]


def judged(root, name):
    """Rows of each episode and, for every frame and delta, the time asked for."""
    table = pq.read_table(root / "data/chunk-000/file-000.parquet").to_pydict()
    values, episodes = np.array(table[name]), np.array(table["episode_index"])
    for episode, length in enumerate(LENGTHS):
        times = np.arange(length) / FPS
        yield values[episodes == episode], times, times[:, None] + np.array(DELTAS)


def test_floats_between_frames_are_interpolated(small):
    """Fails when a weight is that of the other neighbour, an edge is not held, or an exact delta is blended."""
    dataset = LeRobotDataset("x", root=small, delta_timestamps={"observation.state": DELTAS, "action": DELTAS})
    batch = dataset.batch(range(len(dataset)))
    for name in ("observation.state", "action"):
        rows = 0
        for values, times, targets in judged(small, name):
            columns = values.reshape(len(times), -1)
            expected = np.stack([np.interp(targets, times, column) for column in columns.T], axis=-1)
            found = batch[name][rows : rows + len(times)].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found[1:, 1], columns[:-1].astype(np.float32))
            outside = (targets < -1e-6) | (targets > times[-1] + 1e-6)
            np.testing.assert_array_equal(batch[f"{name}_is_pad"][rows : rows + len(times)], outside)
            rows += len(times)
        assert torch.equal(batch[name][:, 2], dataset.columns.numbers[name])


def test_images_and_integers_take_the_nearest(small):
    """Fails when an image between two frames is blended, or the farther one is taken."""
    deltas = {"observation.counts": DELTAS, CAMERA: DELTAS}
    dataset = LeRobotDataset("x", root=small, delta_timestamps=deltas)
    everything = LeRobotDataset("x", root=small).batch(range(len(dataset)))
    batch = dataset.batch(range(len(dataset)))
    rows = 0
    for values, times, targets in judged(small, "observation.counts"):
        distance = np.abs(targets[:, :, None] - times)
        # -0.05 s at 30 Hz lies half way between two frames: the earlier one holds, at every frame alike.
        nearest = (distance + 1e-6 * np.arange(len(times))).argmin(axis=-1)
        part = slice(rows, rows + len(times))
        np.testing.assert_array_equal(batch["observation.counts"][part], values[nearest])
        assert torch.equal(batch[CAMERA][part], everything[CAMERA][part][torch.from_numpy(nearest)])
        rows += len(times)


def test_a_policy_of_ones_own(small):
    """Fails when `policies` is not asked, or a gap does not become padding."""
    deltas = {"action": [0.011]}
    held = LeRobotDataset("x", root=small, delta_timestamps=deltas, policies={"action": Previous()})
    plain = LeRobotDataset("x", root=small).batch(range(24))
    assert torch.equal(held.batch(range(24))["action"][:, 0], plain["action"])
    strict = LeRobotDataset("x", root=small, delta_timestamps=deltas, policies={"action": Linear(max_gap="1ms")})
    assert strict.batch(range(24))["action_is_pad"].all()
    with pytest.raises(ArgumentError, match="only Nearest or Previous"):
        LeRobotDataset("x", root=small, delta_timestamps={CAMERA: [0.01]}, policies={CAMERA: Linear()})
    with pytest.raises(ArgumentError, match="policies names 'nothing'"):
        LeRobotDataset("x", root=small, policies={"nothing": Linear()})
