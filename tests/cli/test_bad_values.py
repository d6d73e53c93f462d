"""Rubbish in an option or a variable: one line that names it, its value and the remedy; exit code 2; nothing is run."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.stress import long_run

NOT_NUMBERS = ("", "abc", "-1", "nan", "1e999")


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run a command that must end before it has begun; give its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(long_run, "long_run", lambda *_, **__: pytest.fail("it was run"))

    def run(*arguments, **variables):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=variables)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("STRESS_TEST_DURATION", "must be a number of seconds, 1 or more (3600 is an hour, a year the most; unset is"),
        ("ROBOCACHE_BATCH_SIZE", "must be a whole number, 1 to 1000000 (unset is 4)"),
        ("ROBOCACHE_GPU_LEAK_MB", "must be a number of MB, more than 0 (unset is 100)"),
        ("ROBOCACHE_CPU_LEAK_MB", "must be a number of MB, more than 0 (unset is 500)"),
    ],
)
def test_a_variable_that_is_no_number_is_named_with_its_value_and_the_remedy(refused, variable, remedy, value):
    """Fails when the command reads a variable in another way than the tests do.

    Seen with `envvar=` of the option, which took "" for nothing, 1e999 for a limit, and did not show "abc".
    """
    line = refused("burn-in", "--device", "cpu", **{variable: value})
    assert line.startswith(f"{variable} {remedy}")
    assert line.endswith(f"got {value!r}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the GPU that is asked for is there")
@pytest.mark.parametrize("value", ["abc", "-1", "nan", "1e999"])
def test_a_switch_that_is_on_and_cannot_be_obeyed_is_named_with_its_value(refused, value):
    """Fails when a required GPU is left out in silence, or the message hides what the variable holds."""
    line = refused("burn-in", ROBOCACHE_REQUIRE_GPU=value)
    assert line.startswith(f"ROBOCACHE_REQUIRE_GPU={value}, but PyTorch finds no GPU here")
    assert line.endswith("or unset ROBOCACHE_REQUIRE_GPU")
    line = refused("burn-in", "--device", "cpu", ROBOCACHE_NVTX=value)
    assert line.startswith(f"ROBOCACHE_NVTX={value} asks for NVTX ranges, which need a CUDA build of PyTorch")
    assert line.endswith("; unset ROBOCACHE_NVTX")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch without CUDA")
def test_nvtx_is_refused_as_the_option_that_was_given(refused):
    """Fails when the remedy is to unset a variable that nobody has set."""
    line = refused("burn-in", "--device", "cpu", "--nvtx")
    assert line.startswith("--nvtx asks for NVTX ranges, which need a CUDA build of PyTorch")
    assert line.endswith("; leave it out")
    assert "ROBOCACHE_NVTX" not in line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--deadline", "-1"), "--deadline must be a number of seconds, at most a year, more than 0, got -1"),
        (("--deadline", "0"), "--deadline must be a number of seconds, at most a year, more than 0, got 0"),
        (("--deadline", "nan"), "--deadline must be a number of seconds, at most a year, more than 0, got nan"),
        (("--deadline", "1e12"), "--deadline must be a number of seconds, at most a year, more than 0, got 1e+12"),
        (("--gpu-leak-mb", "0"), "--gpu-leak-mb must be a number of MB, more than 0, got 0"),
        (("--cpu-leak-mb", "inf"), "--cpu-leak-mb must be a number of MB, more than 0, got inf"),
        (("--budget", "heap_bytes=nan"), "--budget must be such as heap_bytes=200e6, 0 or more, got 'heap_bytes=nan'"),
        (("--budget", "heap_bytes=-1"), "--budget must be such as heap_bytes=200e6, 0 or more, got 'heap_bytes=-1'"),
        (("--batch-size", "9" * 20), f"batch_size must be 1 to 1000000, got {'9' * 20}"),
    ],
)
def test_an_option_out_of_range_is_named_as_it_was_given(refused, arguments, problem):
    """Fails when a part that the command is made of complains of a name of its own, such as `limit_s`."""
    assert refused("burn-in", "--device", "cpu", *arguments) == problem


def test_options_go_before_variables_and_both_reach_the_run(monkeypatch):
    """Fails when an option's default hides the variable, or the variable the option."""
    seen = []

    def run(*_arguments, thresholds, **_named):
        seen.append((thresholds.gpu_leak_mb, thresholds.cpu_leak_mb))
        raise KeyboardInterrupt

    monkeypatch.setattr(long_run, "long_run", run)
    variables = {"ROBOCACHE_GPU_LEAK_MB": "7", "ROBOCACHE_CPU_LEAK_MB": "8"}
    for arguments in ((), ("--gpu-leak-mb", "5")):
        CliRunner().invoke(app, ["burn-in", "--device", "cpu", "--batch-size", "1", *arguments], env=variables)
    assert seen == [(7, 8), (5, 8)]


def test_a_description_that_is_there_is_refused_before_anything_is_read(refused, tmp_path):
    """Fails when the recording is read first: here there is none to read."""
    there = tmp_path / "there.yaml"
    there.write_text("mine")
    assert refused("inspect", tmp_path / "gone.mcap", "--suggest", there) == f"{there}: exists; name a new file"
    assert there.read_text() == "mine"
    missing = tmp_path / "no" / "spec.yaml"
    assert f"{missing}: cannot be written" in refused("inspect", tmp_path / "gone.mcap", "--suggest", missing)
    assert "--suggest - and --json" in refused("inspect", tmp_path / "gone.mcap", "--suggest", "-", "--json")


def test_a_folder_without_a_dataset_is_told_so_without_a_name_to_fill_in(refused, tmp_path):
    """Fails when the remedy names a dataset that nobody asked for, `local/set`."""
    line = refused("bench", "loader", tmp_path / "nope")
    assert "holds no LeRobot dataset" in line
    assert "name the folder of one, which holds meta/info.json" in line
    assert "local/set" not in line
