"""HDF5 files with what real recorders add to the layouts of ALOHA and robomimic; h5py writes and judges them."""

import h5py
import numpy as np

from robocache import Align, Rate, align_episode
from robocache.readers import open_recording


def test_what_aloha_says_of_each_camera_is_no_stream(tmp_path):
    """The lengths of its JPEGs, [cameras, steps]. Fails where they are two rows at 50 Hz: two frames of an episode."""
    path = tmp_path / "episode_0.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = False, True
        file["observations/qpos"], file["action"] = np.ones((50, 14)), np.ones((50, 14))
        file["compress_len"] = np.full((2, 50), 700.0)
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert list(episode.streams) == ["action", "observations/qpos"]
    assert episode.attributes["skipped"] == {"compress_len": "it has 2 rows, but action has 50"}
    assert len(align_episode(episode, Align(clock=Rate(50))).data["action"]) == 50


def test_what_a_simulator_says_once_is_no_stream_and_a_last_observation_is(tmp_path):
    """Isaac Lab's initial state; one state more than actions. Fails where either rule is left out."""
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["states"] = np.ones((20, 7)), np.ones((21, 9))
        demo["initial_state/robot/joint_position"] = np.ones((1, 9))
    with open_recording(path, rate_hz=20) as opened:
        episode = opened.read_episode(0)
    assert {name: len(stream.values) for name, stream in episode.streams.items()} == {"actions": 20, "states": 21}
    assert episode.attributes["skipped"] == {"initial_state/robot/joint_position": "it has 1 rows, but actions has 20"}


def test_a_dataset_without_values_says_so(tmp_path):
    """Fails where its dtype alone is given as the reason: "its values are float32, not numbers"."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file["x"], file["nothing"], file["no_text"] = np.arange(4.0), h5py.Empty("f4"), h5py.Empty("S4")
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert list(episode.streams) == ["x"]
    assert episode.attributes["skipped"] == dict.fromkeys(("no_text", "nothing"), "it has no values")
