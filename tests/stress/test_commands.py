"""The commands of the README do what it says: run as a user runs them, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
BURN_IN = "tests/stress/test_long_running.py::test_24h_burn_in"


def command(*arguments):
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]


def run(*arguments, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_nonsense_in_the_environment_is_an_error_that_names_the_variable():
    done = run(BURN_IN, STRESS_TEST_DURATION="0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: STRESS_TEST_DURATION must be a number of seconds, 1 or more" in done.stderr
    assert "got '0'" in done.stderr


def test_every_stress_test_is_slow_so_that_the_marker_runs_all():
    done = run("tests/stress/", "-m", "not slow", "--collect-only", "-q")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_fails_where_one_is_required():
    multistream = "tests/stress/test_concurrent.py::test_multistream_inference"
    required = run(multistream, ROBOCACHE_REQUIRE_GPU="1")
    assert required.returncode == pytest.ExitCode.TESTS_FAILED
    assert "DeviceError: ROBOCACHE_REQUIRE_GPU=1, but PyTorch finds no GPU here" in required.stdout


def test_sigterm_ends_a_burn_in_with_a_verdict_so_far():
    process = subprocess.Popen(
        command(BURN_IN, "-v", "-s"),
        cwd=ROOT,
        env={**os.environ, "STRESS_TEST_DURATION": "3600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        for line in process.stdout:
            if line.startswith("Burn-in of 3600 s (1.00 h) on "):
                process.send_signal(signal.SIGTERM)
                break
        output = process.stdout.read()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "iterations, no memory leaks so far" in output
    assert "SIGTERM ended the burn-in early; so far:" in output


HANGS = """
import ctypes
import pytest

@pytest.mark.timeout(1)
def test_that_holds_the_interpreter_for_ever():
    mutex, c = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # PyDLL keeps the interpreter's lock
    c.pthread_mutex_lock(mutex)
    c.pthread_mutex_lock(mutex)  # for ever, whatever signal comes
"""
LASTS = """
import threading
import pytest

@pytest.mark.timeout(60)
def test_that_lasts_and_lives(hang_watch):
    for _ in range(5):
        hang_watch.beat()
        threading.Event().wait(0.5)  # work, longer than the watch of two seconds in all
"""


def run_in_the_house(tmp_path, text, limit_s):
    """Under this repository's own configuration and this folder's conftest, with a watch that is quicker to bite."""
    path = tmp_path / "test_one.py"
    path.write_text(text)
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    return run(str(path), "-c", str(ROOT / "pyproject.toml"), "-o", f"faulthandler_timeout={limit_s}")


def test_a_hang_that_holds_the_interpreter_ends_with_every_stack(tmp_path):
    done = run_in_the_house(tmp_path, HANGS, limit_s=2)
    assert done.returncode == 1
    assert "Timeout (0:00:02)!" in done.stderr
    assert "in test_that_holds_the_interpreter_for_ever" in done.stderr


def test_a_test_that_shows_signs_of_life_outlasts_the_watch(tmp_path):
    done = run_in_the_house(tmp_path, LASTS, limit_s=2)
    assert done.returncode == 0, done.stdout + done.stderr
