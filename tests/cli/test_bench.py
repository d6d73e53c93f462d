"""`robocache bench ops`: a table for people, JSON for machines, exit code 1 for a wrong result."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.ops.voxelize_pointcloud import torch_backend

QUICK = ("bench", "ops", "--quick", "--device", "cpu")
COUNT = ("--case", "count_500k_to_128")


def test_a_quick_run_prints_ratios_and_says_what_is_missing(run):
    """Fails when absolute times of a CPU are printed, or an absent peer is not named."""
    text = run(*QUICK, *COUNT).stdout
    (row,) = [line for line in text.splitlines() if line.startswith("count_500k")]
    assert "(7812 points to 32 instead of 500000 points to 128)" in row
    assert row.rstrip().endswith("x")
    assert re.search(r"\d ?(us|µs|ms)\b", text) is None
    assert "a quick run" in text
    assert "not timed: torch.compile, skipped" in text


def test_json_is_the_stored_document(document, tmp_path):
    """Fails when --out and --json differ, or stdout holds more than the document."""
    from robocache.benchmarks import results

    path = tmp_path / "deep" / "result.json"
    printed = document(*QUICK, *COUNT, "--out", path)
    assert printed == results.load(path)
    assert [case["name"] for case in printed["cases"]] == ["count_500k_to_128"]
    assert printed["settings"]["quick"] is True


def test_quick_runs_write_nothing_unasked(run, tmp_path, monkeypatch):
    """Fails when a quick or partial run replaces a stored result."""
    monkeypatch.chdir(tmp_path)
    run(*QUICK, *COUNT)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_backend_ends_with_1(monkeypatch):
    """Fails when a wrong result leaves exit code 0, or stands in the table as a ratio."""
    original = torch_backend.voxelize_pointcloud
    monkeypatch.setattr(torch_backend, "voxelize_pointcloud", lambda *inputs: original(*inputs) + 1)
    result = CliRunner().invoke(app, [*QUICK, *COUNT])
    assert result.exit_code == 1
    assert (
        "WRONG, not timed: count_500k_to_128: pytorch is wrong: against the reference 32768 of 32768" in result.stdout
    )


def test_wrong_requests_are_one_line_and_2(monkeypatch):
    """Fails when a mistyped case or device runs something else, or gives a traceback."""
    for arguments, problem in (
        (("--case", "cuont*"), "error: no benchmark case is called 'cuont*'; there are fuse_30x512"),
        (("--device", "tpu"), "error: --device must be cuda or cpu, got 'tpu'"),
    ):
        result = CliRunner().invoke(app, ["bench", "ops", "--quick", "--device", "cpu", *arguments])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(problem)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    """Fails when --device cuda falls back to the CPU."""
    result = CliRunner().invoke(app, ["bench", "ops", "--quick", "--device", "cuda"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --device cuda cannot run: ")
