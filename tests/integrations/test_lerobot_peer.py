"""Items beside LeRobot's own, made by the Python that ROBOCACHE_LEROBOT_PYTHON names."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import robocache
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import CAMERA, recording  # noqa: TID252 -- tests are not an installed package

CHUNK = [frame / 30 for frame in range(50)]
G1_CAMERA = "observation.images.cam_high"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    python = os.environ.get("ROBOCACHE_LEROBOT_PYTHON")
    if not python:
        pytest.skip("ROBOCACHE_LEROBOT_PYTHON names no Python that has lerobot 0.4.4")

    def dump(root, indices, ours=False, **arguments):
        folder = tmp_path_factory.mktemp("theirs")
        request = {"arguments": {"root": str(root), "tolerance_s": 1e-3, **arguments}, "indices": indices, "ours": ours}
        (folder / "request.json").write_text(json.dumps(request))
        script = Path(__file__).with_name("lerobot_dump.py")
        command = [python, script, folder / "request.json", folder / "items.npz"]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        environment |= {"PYTHONPATH": str(Path(robocache.__file__).parents[1])} if ours else {}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
        assert run.returncode == 0, run.stderr[-3000:]
        with np.load(folder / "items.npz") as stored:
            return dict(stored)

    return dump


def check(theirs, ours, indices):
    assert theirs["length"].tolist() == [len(ours), ours.num_episodes]
    batch = ours.__getitems__(list(indices))
    for place, index in enumerate(indices):
        item = ours[index]
        assert list(item) == theirs[f"{index}/keys"].tolist()
        for key, value in item.items():
            if f"{index}/frames/{key}" in theirs:
                assert value.dtype == torch.float32
                assert torch.equal(value, torch.from_numpy(theirs[f"{index}/frames/{key}"]) / 255.0), (index, key)
            else:
                expected = theirs[f"{index}/value/{key}"]
                found = value.numpy() if isinstance(value, torch.Tensor) else np.array(value)
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape), key
                assert found.tobytes() == expected.tobytes(), (index, key)
            same = value == batch[place][key]
            assert bool(same.all() if isinstance(same, torch.Tensor) else same), key
    for key, statistics in (ours.meta.stats or {}).items():
        for name, value in statistics.items():
            np.testing.assert_array_equal(value, theirs[f"stats/{key}/{name}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"delta_timestamps": {"action": CHUNK}},
        {"delta_timestamps": {"observation.state": [-0.1, -1 / 30, 0], G1_CAMERA: [-1 / 30, 0], "action": CHUNK}},
        {"episodes": [5, 2], "delta_timestamps": {"action": [-1.0, 0.0], G1_CAMERA: [0.0]}},
    ],
    ids=["plain", "chunk", "history", "episodes"],
)
def test_items_of_a_real_recording_are_theirs(theirs, arguments):
    """Fails when a key, dtype, shape, edge or bit of an item differs: a window not held at an episode's end, a frame
    off by one, float64 kept, pads in another order."""
    root = recording("g1_lerobot_v30")
    ours = LeRobotDataset("local/set", root=root, tolerance_s=1e-3, **arguments)
    last = len(ours) - 1
    indices = [0, 1, 219, 220, 221, 222, 277, 400, 497, last - 60, last - 1, last]
    check(theirs(root, indices, **arguments), ours, indices)


@pytest.mark.slow
def test_every_kind_of_column_is_theirs(theirs, small):
    """Fails when integers keep their width, one number a row gets an axis, or rows of two axes are flattened."""
    deltas = {"action": [-0.1, 0.0], "observation.counts": [0.0], "next.done": [0.0, 1 / 30], CAMERA: [0.0, 2 / 30]}
    ours = LeRobotDataset("local/set", root=small, tolerance_s=1e-3, delta_timestamps=deltas)
    check(theirs(small, None, delta_timestamps=deltas), ours, range(len(ours)))


@pytest.mark.slow
def test_ours_runs_in_the_python_of_lerobot(theirs, small):
    """LeRobot 0.4.4 pins PyAV below 16 and PyTorch below 2.11, and who trains with its policies has both packages.
    Fails when frames are converted with an argument that only PyAV 17 has."""
    arguments = {"delta_timestamps": {CAMERA: [-1 / 30, 0.0]}}
    ours = LeRobotDataset("local/set", root=small, tolerance_s=1e-3, **arguments)
    check(theirs(small, None, ours=True, **arguments), ours, range(len(ours)))
