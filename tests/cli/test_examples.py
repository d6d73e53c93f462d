"""What examples/ holds runs as it stands."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import robocache as rc
from robocache.align.lerobot import LeRobotWriter
from robocache.readers import SyntheticRobot

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_folder_of_mcap_logs_becomes_batches(recordings, tmp_path, capsys):
    """Fails when the example calls what is not there, or its second loader does not go on."""
    arguments = [str(recordings / "husky_mcap"), "--rate", "10", "--cache", str(tmp_path / "cache"), "--batches", "2"]
    assert example("mcap_to_batches")(arguments) == 0
    shown = capsys.readouterr().out
    assert "/imu/data.orientation (32, 16, 4), 100.0% valid" in shown
    frames = sum(rc.open(str(recordings / "husky_mcap"), rc.Align(rc.Rate(10.0)), cache=tmp_path / "cache").lengths)
    assert f"resumed after 2 batches; {-(-(frames - 15) // 32) - 2} are left" in shown


def test_a_training_loop_over_a_lerobot_dataset_learns(tmp_path, capsys):
    """Fails when keys, padding or shapes of the dataset are not what the example takes them for."""
    names = {"observation.state": "/joint_states.position", "action": "/imu.angular_velocity"}
    spec = rc.Align(rc.Rate(50), {name: rc.From(source) for name, source in names.items()})
    with SyntheticRobot(0, duration_s=3.0) as robot, LeRobotWriter(tmp_path / "data", Fraction(50)) as writer:
        writer.add(rc.align_episode(robot.read_episode(0), spec))
    assert example("lerobot_training_loop")([str(tmp_path / "data"), "--steps", "20"]) == 0
    assert capsys.readouterr().out.startswith("20 steps: loss ")
