"""The installed program in its own process: exit codes, streams, signals, what it imports."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "robocache"]


def robocache(*arguments, **how):
    how = {"capture_output": True, "text": True, "timeout": 120} | how
    return subprocess.run([*PROGRAM, *map(str, arguments)], check=False, **how)


def test_help_and_version():
    shown = robocache("--help")
    assert shown.returncode == 0
    for command in ("demo", "inspect", "align", "doctor", "self-test"):
        assert command in shown.stdout
    bare = robocache()
    assert (bare.returncode, bare.stderr) == (2, "")
    assert "Usage" in bare.stdout


# What a command imports, without the time that it takes.
IMPORTS = """
import contextlib, io, sys
from robocache.cli.main import app
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    app(sys.argv[1:], standalone_mode=False)
print(sorted({"torch", "pyarrow", "av", "PIL", "pandas", "scipy", "triton", "mcap", "rich.table"} & set(sys.modules)))
"""


def test_what_needs_no_pytorch_does_not_wait_for_it(tmp_path, cloud_recording):
    """Fails when a command's module, or one that it imports, imports PyTorch at its top: `--version` then took 1.5 s.

    Each of the breaks was made once: `from robocache.loader.nvtx import NVTX` at the top of cli/monitoring.py for the
    help, `import torch` at that of cli/suggestion.py for --suggest.
    """
    gone = tmp_path / "gone.mcap"
    calls = (
        ["--version"],
        ["--help"],
        ["burn-in", "--help"],
        ["inspect", cloud_recording],
        ["align", gone, "--rate", "50", "--out", tmp_path / "out"],
    )
    for call in calls:
        done = subprocess.run([sys.executable, "-c", IMPORTS, *map(str, call)], capture_output=True, text=True)
        found = ["rich.table"] if "--help" in call else []  # Typer's
        assert (done.stdout, done.stderr) == (f"{found}\n", ""), call
    suggested = [sys.executable, "-c", IMPORTS, "inspect", cloud_recording, "--suggest", tmp_path / "spec.yaml"]
    assert "torch" not in subprocess.check_output(suggested, text=True)
    assert (tmp_path / "spec.yaml").is_file()


def test_an_error_is_one_line_and_no_traceback(tmp_path):
    failed = robocache("align", tmp_path / "gone.mcap", "--rate", "50", "--out", tmp_path / "out")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith(f"error: {tmp_path}/gone.mcap")
    assert failed.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_json_is_all_there_is_on_stdout(tmp_path):
    done = robocache("demo", "--out", tmp_path / "demo", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == "demo"
    assert "aligning 1/1" in done.stderr


def everything(terminal):
    """What was written to a terminal that nobody writes to any more; a read gives a part of it."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            return b"".join(parts).decode()
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_progress_is_a_bar_on_a_terminal_and_leaves_stdout_alone(tmp_path):
    master, terminal = os.openpty()
    try:
        arguments = ["demo", "--out", tmp_path / "demo", "--seconds", "1", "--json"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        done = robocache(*arguments, capture_output=False, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    finally:
        os.close(terminal)
        drawn = everything(master)
        os.close(master)
    assert done.returncode == 0
    assert json.loads(done.stdout)["command"] == "demo"
    assert "\x1b[?25l" in drawn  # the cursor is hidden while the bar is drawn ...
    assert drawn.index("━") < drawn.index("\x1b[?25h")  # ... and comes back
    assert "aligning 1/1" not in drawn


def test_a_terminal_of_no_columns_is_one_of_unknown_width():
    """Fails when COLUMNS=0 reaches Rich, for which nothing fits then: the help was three empty lines."""
    master, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "0"}
    try:
        done = robocache("--help", capture_output=False, stdout=terminal, stderr=terminal, env=environment)
    finally:
        os.close(terminal)
        drawn = everything(master)
        os.close(master)
    assert done.returncode == 0
    assert "Align, fuse and voxelize robot recordings for training." in drawn


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_error(arguments):
    """Fails when only commands are looked after: help and version left with 1, as Rich and Typer do."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = robocache(*arguments, capture_output=False, stdout=write_end, stderr=subprocess.PIPE)
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_disk_behind_stdout_is_one_line():
    with Path("/dev/full").open("w") as full:
        result = robocache("doctor", "--json", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr == (
        "error: standard output: cannot be written (No space left on device); send it somewhere else\n"
    )


@pytest.mark.parametrize("arguments", ["--version", "--help"])
def test_a_full_disk_behind_everything_is_still_exit_code_2(arguments):
    """Fails when the version has no handler, or the message that cannot be written becomes an error of its own."""
    with Path("/dev/full").open("w") as full:
        both = robocache(arguments, capture_output=False, stdout=full, stderr=full)
        one = robocache(arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (both.returncode, one.returncode) == (2, 2)
    assert one.stderr.startswith("error: standard output: cannot be written")
    assert one.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_written_to_nowhere(tmp_path, cloud_recording, closed):
    """Fails with `None` for stdout, which has no `write`, or with a file that gets the number of a closed stream."""
    command = shlex.join([*PROGRAM, "inspect", str(cloud_recording), "--suggest", str(tmp_path / "spec.yaml")])
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "spec.yaml").read_text().startswith("#")


@pytest.fixture
def interruptible():
    """A shell's background job ignores Ctrl-C, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
@pytest.mark.usefixtures("interruptible")
def test_an_interruption_in_the_middle_leaves_nothing(tmp_path, number, code):
    command = [*PROGRAM, "demo", "--out", tmp_path / "new" / "out", "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # The line says that the recording is being made, which takes much longer than the signal.
        line = process.stdout.readline()
        assert line.startswith("1. record"), line + process.stderr.read()
        assert [path.name for path in tmp_path.iterdir()] == ["new"], "nothing to leave behind yet"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


# As if Ctrl-C came while the module named first is imported.
INTERRUPTED = """
import sys
module = sys.argv.pop(1)
class Interrupting:
    def find_spec(self, name, *_):
        if name == module:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from robocache.cli.entry import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "numpy", "robocache.cli.inspect"])
def test_an_interruption_of_the_start_is_no_traceback(module):
    """Fails when NumPy or Typer is imported before `main` runs: Ctrl-C in the first 0.15 s was a traceback."""
    command = [sys.executable, "-c", INTERRUPTED, module, "inspect", "run.mcap"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr in ("", "error: interrupted; nothing partial was left behind\n")
