"""The commands of the README do what it says: run as a user runs them, in a process of their own."""

from __future__ import annotations

import contextlib
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


MULTISTREAM = "tests/stress/test_concurrent.py::test_multistream_inference"
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


def command(*arguments):
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]


class Started:
    """A command that runs in the background, its output in files."""

    def __init__(self, folder, arguments, variables):
        self._files = [(folder / name).open("w+") for name in ("stdout", "stderr")]
        self._process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env={**os.environ, **variables}, stdout=self._files[0], stderr=self._files[1]
        )

    def end(self):
        """Wait for its end; its exit code and what it wrote."""
        self._process.wait(timeout=200)
        for file in self._files:
            file.seek(0)
        stdout, stderr = (file.read() for file in self._files)
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, stdout, stderr)

    def close(self):
        self._process.kill()
        self._process.wait()
        for file in self._files:
            file.close()


def in_the_house(folder, text):
    """Under this repository's own configuration and this folder's conftest, with a watch that is quicker to bite."""
    path = folder / "test_one.py"
    path.write_text(text)
    (folder / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    return str(path), "-c", str(ROOT / "pyproject.toml"), "-o", "faulthandler_timeout=2"


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """All at once: each spends most of its time on starting."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("nonsense", "not_slow", "no_gpu", "hangs", "lasts")}
    commands = {
        "nonsense": ([BURN_IN], {"STRESS_TEST_DURATION": "0"}),
        "not_slow": (["tests/stress/", "-m", "not slow", "--collect-only", "-q"], {}),
        "hangs": (in_the_house(folders["hangs"], HANGS), {}),
        "lasts": (in_the_house(folders["lasts"], LASTS), {}),
    }
    if not torch.cuda.is_available():
        commands["no_gpu"] = [MULTISTREAM], {"ROBOCACHE_REQUIRE_GPU": "1"}
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(contextlib.closing(Started(folders[name], *each)))
            for name, each in commands.items()
        }


def test_nonsense_in_the_environment_is_an_error_that_names_the_variable(started):
    done = started["nonsense"].end()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: STRESS_TEST_DURATION must be a number of seconds, 1 or more" in done.stderr
    assert "got '0'" in done.stderr


def test_every_stress_test_is_slow_so_that_the_marker_runs_all(started):
    done = started["not_slow"].end()
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_fails_where_one_is_required(started):
    done = started["no_gpu"].end()
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "DeviceError: ROBOCACHE_REQUIRE_GPU=1, but PyTorch finds no GPU here" in done.stdout


def test_a_hang_that_holds_the_interpreter_ends_with_every_stack(started):
    done = started["hangs"].end()
    assert done.returncode == 1
    assert "Timeout (0:00:02)!" in done.stderr
    assert "in test_that_holds_the_interpreter_for_ever" in done.stderr


def test_a_test_that_shows_signs_of_life_outlasts_the_watch(started):
    done = started["lasts"].end()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


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
