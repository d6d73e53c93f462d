"""`inspect`, `align` and `build` take a folder of recordings or a pattern, as `rc.open` does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from robocache.align.lerobot import feature_name
from robocache.cli.main import app
from robocache.readers import open_recording


@pytest.fixture(scope="module")
def runs(cloud_recording, tmp_path_factory):
    """Two runs, the second before the tenth, and something that is no recording beside them."""
    folder = tmp_path_factory.mktemp("several") / "runs"
    folder.mkdir()
    for number in (10, 2):
        shutil.copyfile(cloud_recording, folder / f"run{number}.mcap")
    return folder


@pytest.mark.parametrize("pattern", ["", "*.mcap"])
def test_all_three_commands_see_the_same_episodes(runs, pattern, tmp_path, document):
    """Fails when one of them opens a single recording only, or sorts run10 before run2."""
    path = runs / pattern
    names = [episode["name"] for episode in document("inspect", path)["episodes"]]
    assert [name.split("/")[0] for name in names] == ["run2", "run10"]
    aligned = document("align", path, "--rate", 10, "--out", tmp_path / "out")
    assert [episode["name"] for episode in aligned["episodes"]] == names
    built = document("build", path, "--rate", 10, "--cache", tmp_path / "cache", "--workers", 1)
    assert (built["episodes"], built["frames"]) == (2, aligned["frames"])
    with open_recording(tmp_path / "out") as written, open_recording(runs / "run2.mcap") as source:
        [points] = source.read_episode(0).streams
        for number in range(2):
            stream = written.read_episode(number).streams
            scans = stream[feature_name(points)].values[:, 0]
            np.testing.assert_array_equal(scans, np.arange(20))


@pytest.mark.parametrize("command", ["inspect", "align", "build"])
def test_a_pattern_that_nothing_fits_is_one_line(runs, command, tmp_path):
    """Fails when a mistyped pattern is a traceback, or leaves a folder behind."""
    options = {"inspect": [], "align": ["--out", tmp_path / "out"], "build": ["--cache", tmp_path / "cache"]}[command]
    rate = [] if command == "inspect" else ["--rate", "10"]
    refused = CliRunner().invoke(app, [command, str(runs / "*.bag"), *rate, *map(str, options)])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "nothing fits this pattern" in refused.stderr
    assert not (tmp_path / "out").exists()
