"""The options of a long run that watch it, as a user gives them, and the dashboard's metrics while it runs."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request

import pytest
import torch
import typer
from typer.testing import CliRunner

from robocache.cli.endurance import Wanted, endure
from robocache.cli.long_options import LongOptions
from robocache.cli.main import app
from robocache.cli.monitoring import Monitoring
from robocache.stress.long_settings import Thresholds

pytest.importorskip("prometheus_client", reason="pip install 'robocache[metrics]'")
pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]


class Stub:
    """A task of one product a round, that looks at the metrics once there are some."""

    warm_up = 6
    deadline_s = 60.0
    maps_files = False

    def __init__(self, port=None):
        self.port, self.text, self.matrix = port, "", torch.ones(100, 100)

    def run(self, iteration):
        torch.mm(self.matrix, self.matrix)
        if self.port and iteration % 50 == 0 and "robocache_stress_heap_bytes" not in self.text:
            self.text = metrics_at(self.port)

    def failures(self):
        return []

    def measured(self):
        return {"own": 1.0}

    def close(self):
        pass


def metrics_at(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.URLError:
        return ""


def test_a_long_run_is_watched(tmp_path, capsys):
    """Catches a server that nobody feeds, a profile of nothing, and notes that do not come into the report."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    trace, task = tmp_path / "trace.json", Stub(port)
    options = LongOptions(
        seconds=4, device="cpu", metrics_port=port, profile=trace, reading_share=0.5, json_output=True
    )
    with contextlib.suppress(typer.Exit):  # a run of seconds may well be inconclusive
        endure(options, Wanted("stub", lambda settings, beat: task))
    assert 'robocache_stress_run_info{device="cpu",scenario="stub"' in task.text
    assert 'robocache_stress_verdict{outcome="FAIL"} 0.0' in task.text
    assert metrics_at(port) == ""
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert (measured["own"], measured["note_1"]) == (1, f"profile: 20 iterations in {trace}")
    assert measured["profile_01"].startswith("aten::mm: 20 calls, ")
    iterations = [
        each for each in json.loads(trace.read_text())["traceEvents"] if "iteration 1" in each.get("name", "")
    ]
    assert len(iterations) == 10  # 10 to 19


def test_the_warm_up_lasts_until_the_trace_is_written(tmp_path):
    """Catches a profiler whose memory, 140 MB for 20 iterations, comes after the level that leaks are held against."""
    header = {"scenario": "stub", "device": "cpu", "seconds": 1.0}
    monitoring = Monitoring(LongOptions(profile=tmp_path / "trace.json"), header, Thresholds())
    task = monitoring.watched(Stub())
    (profile,) = monitoring.monitors
    for iteration in range(task.warm_up):
        assert monitoring.notes() != [f"profile: 20 iterations in {tmp_path / 'trace.json'}"]
        task.run(iteration)
    assert profile.notes() == [f"profile: 20 iterations in {tmp_path / 'trace.json'}"]


def test_without_options_nothing_is_wrapped(monkeypatch):
    """Catches a cost of ranges and profiles that nobody asked for."""
    monkeypatch.delenv("ROBOCACHE_NVTX", raising=False)
    task = Stub()
    monitoring = Monitoring(LongOptions(), {"scenario": "stub", "device": "cpu", "seconds": 1.0}, Thresholds())
    assert monitoring.watched(task).run == task.run
    assert (monitoring.monitors, monitoring.notes()) == ([], [])


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
