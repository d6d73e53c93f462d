"""The options of a long run that watch it, as a user gives them, and the dashboard's metrics while it runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.testing.waiting import wait_until

pytest.importorskip("prometheus_client", reason="pip install 'robocache[metrics]'")
pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]


def robocache(*arguments):
    command = [sys.executable, "-m", "robocache", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def metrics_at(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.URLError:
        return ""


def test_a_burn_in_is_watched_while_it_runs(tmp_path):
    """Catches a server that nobody feeds, a profile of nothing, and notes that do not come into the report."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trace = tmp_path / "trace.json"
    options = ["--metrics-port", str(port), "--profile", str(trace), "--device", "cpu", "--batch-size", "1"]
    with robocache("burn-in", "--seconds", "30", "--json", *options) as process:
        wait_until(lambda: "robocache_stress_heap_bytes" in metrics_at(port), deadline_s=60)
        text = metrics_at(port)
        wait_until(trace.exists, deadline_s=60)
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, 3), stderr  # a run of seconds may well be inconclusive
    assert 'robocache_stress_run_info{device="cpu",scenario="burn-in"' in text
    assert 'robocache_stress_verdict{outcome="FAIL"} 0.0' in text
    measured = json.loads(stdout)["measured"]
    assert measured["note_1"] == f"profile: 20 iterations in {trace}"
    assert measured["profile_01"].split(": ")[1].split()[1] == "calls,"
    iterations = [
        each for each in json.loads(trace.read_text())["traceEvents"] if "iteration 1" in each.get("name", "")
    ]
    assert len(iterations) == 10  # 10 to 19


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "trace.txt"), "--profile writes a trace named .json or .json.gz, got 'trace.txt'"),
        (("--profile", "no-such-folder/trace.json"), "no-such-folder/trace.json: cannot be written"),
        (("--metrics-port", "70000"), "less than or equal to 65535"),
    ],
)
def test_what_cannot_be_watched_is_said_before_the_run(arguments, said):
    done = CliRunner().invoke(app, ["burn-in", "--seconds", "1", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
