"""`robocache bench loader`: both sides in processes of their own, medians and ratios of what they say."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robocache.benchmarks import loader
from robocache.benchmarks.results import load
from robocache.cli.main import app
from robocache.errors import RoboCacheError

from .conftest import LENGTHS  # noqa: TID252 -- tests are not an installed package

SETTINGS = loader.LoaderSettings(batch_size=8, size=(16, 24), repetitions=1, warm_epochs=2)


@pytest.mark.slow
def test_ours_is_measured_without_a_peer(small):
    """Fails when a case is missing, an epoch is not whole, or warm batches are counted with the first ones."""
    seen = []
    document = loader.measure_loader(small, None, SETTINGS, seen.append)
    assert seen == [f"robocache {name}" for name in ("first", "warm_uint8", "warm_float32", "loader", "numbers")]
    (first,), (warm,) = document["runs"]["robocache first"], document["runs"]["robocache warm_float32"]
    assert (first["samples"], len(first["batch_seconds"])) == (sum(LENGTHS), 3)
    assert (warm["samples"], len(warm["batch_seconds"])) == (2 * sum(LENGTHS), 6)
    assert first["frame_bytes"] == 8 * 3 * 16 * 24
    assert warm["frame_bytes"] == 4 * first["frame_bytes"]
    (loaded,) = document["runs"]["robocache loader"]
    assert (loaded["samples"], loaded["frame_bytes"]) == (2 * sum(LENGTHS), first["frame_bytes"])
    assert document["runs"]["robocache numbers"][0]["frame_bytes"] == 0
    assert first["peak_bytes"] > 50e6
    assert [case["name"] for case in document["cases"]] == list(loader.CASES)
    assert all("ratio" not in case for case in document["cases"])


@pytest.fixture
def made(monkeypatch):
    """Measurements that nobody made."""
    sides = {"robocache": (1.0, [0.1, 0.2, 0.3]), "lerobot": (9.0, [2.0, 4.0, 90.0])}

    def run(self, request):
        seconds, batches = sides[request["side"]]
        return {"seconds": seconds, "batch_seconds": batches, "peak_bytes": 7_000_000, "copy_seconds": 0.05}

    monkeypatch.setattr(loader._Bench, "run", run)


def test_ratios_are_theirs_to_ours(small, made):
    """Fails when a ratio is upside down, or the first epoch leaves out the opening."""
    cases = loader.measure_loader(small, Path("python"), SETTINGS, lambda name: None)["cases"]
    assert [round(case["ratio"], 9) for case in cases] == [9.0, 20.0, 20.0, 12.0, 20.0]
    assert [round(case.get("copy_share", 0), 9) for case in cases] == [0, 0.25, 0.25, 0.15, 0]


def test_a_peer_that_cannot_run_says_why(small):
    """Fails when a peer that does not start counts as measured."""
    with pytest.raises(RoboCacheError, match=r"failed: ModuleNotFoundError: No module named .(torchvision|lerobot)"):
        loader.measure_loader(small, Path(sys.executable), SETTINGS, lambda name: None)


def test_the_command_prints_a_table_and_writes_json(small, made, tmp_path):
    """Fails when an absent peer is not named, nothing is written, or a ratio is not in its row."""
    out = tmp_path / "result.json"
    alone = CliRunner().invoke(app, ["bench", "loader", str(small), "--quick", "--out", str(out)])
    assert alone.exit_code == 0, alone.output
    assert "not timed: LeRobot; name a Python that has it with --peer-python" in alone.output
    assert load(out)["settings"]["batches"] == 3
    beside = CliRunner().invoke(app, ["bench", "loader", str(small), "--peer-python", "python"])
    (row,) = [line for line in beside.output.splitlines() if line.startswith("low-dimensional")]
    assert row.split()[3:] == ["20.0x", "1000x", "7", "MB", "/", "7", "MB"]
