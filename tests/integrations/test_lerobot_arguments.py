"""Wrong arguments of the drop-in dataset, named before a frame is read; what LeRobot's class has and ours has not."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

from robocache.errors import ArgumentError
from robocache.integrations.lerobot import LeRobotDataset
from robocache.policies import Linear


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta_timestamps": ["action"]}, "delta_timestamps must be a dictionary"),
        ({"delta_timestamps": {"action": 0.5}}, "delta_timestamps['action'] must be a list of seconds"),
        ({"delta_timestamps": {"action": ["a"]}}, "delta_timestamps['action'] must be a list of seconds"),
        ({"delta_timestamps": {"action": "01"}}, "delta_timestamps['action'] must be a list of seconds"),
        ({"policies": 5}, "policies must be a dictionary"),
        ({"policies": {"action": "linear"}}, "policies['action'] must be a policy"),
        ({"tolerance_s": float("nan")}, "tolerance_s must be 0 or more seconds"),
        ({"tolerance_s": -1}, "tolerance_s must be 0 or more seconds"),
        ({"tolerance_s": "1e-4"}, "tolerance_s must be 0 or more seconds"),
        ({"image_transforms": 5}, "image_transforms must be a function"),
        ({"return_uint8": "no"}, "return_uint8 must be True or False"),
        ({"episodes": 1}, "episodes must be a list of episode numbers"),
        ({"episodes": "1"}, "episodes must be a list of episode numbers"),
    ],
    ids=str,
)
def test_wrong_arguments(small, arguments, message):
    """Fails where a wrong argument raises what does not name it, or is taken for something."""
    with pytest.raises(ArgumentError) as caught:
        LeRobotDataset("local/set", root=small, **arguments)
    assert message in str(caught.value)


def test_arguments_as_numpy_gives_them(small):
    dataset = LeRobotDataset(
        "local/set", root=small, episodes=np.array([0, 2]), delta_timestamps={"action": np.arange(2) / 10}, policies={}
    )
    assert dataset.num_episodes == 2
    assert dataset.batch(np.array([0, 1], np.int16))["action"].shape == (2, 2)
    assert dataset.batch(torch.tensor([1]))["action"].shape == (1, 2)
    assert LeRobotDataset("local/set", root=small, policies={"action": Linear()}, tolerance_s=0).num_episodes == 3


@pytest.mark.parametrize("indices", [[1.5], [True], ["1"], torch.tensor([0.0])], ids=str)
def test_indices_that_are_no_whole_numbers(small, indices):
    """Fails where 1.5 is item 1."""
    with pytest.raises(ArgumentError, match="indices must be whole numbers"):
        LeRobotDataset("local/set", root=small).batch(indices)


def test_no_indices_are_an_empty_batch(small):
    assert LeRobotDataset("local/set", root=small).batch([])["action"].shape == (0,)


def test_what_only_the_other_class_has(small):
    """Fails where what is missing is not said, and where asking for it breaks copies and pickles."""
    dataset = LeRobotDataset("local/set", root=small)
    with pytest.raises(AttributeError, match=r"has no hf_dataset: .*ask for items, or batch\(indices\)"):
        _ = dataset.hf_dataset
    assert not hasattr(dataset, "add_frame")
    assert not hasattr(dataset, "nothing")
    for other in (copy.copy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert len(other) == len(dataset)


def test_paths_of_the_metadata(small):
    info = json.loads((small / "meta/info.json").read_text())
    meta = LeRobotDataset("local/set", root=small).meta
    assert (meta.data_path, meta.video_path, meta.chunks_size) == (info["data_path"], info["video_path"], 1000)
