"""Prometheus metrics: read by prometheus-client's own parser, judged by promtool and a real Prometheus where one is."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.errors import ArgumentError
from robocache.stress.dcgm_monitor import DCGM_VALUES
from robocache.stress.metrics_server import Labels, MetricsServer
from robocache.stress.nvml_readings import GPU_VALUES
from robocache.stress.readings_so_far import ReadingsSoFar
from robocache.stress.resources import Counter, device_counters, host_counters
from robocache.testing.waiting import wait_until

parser = pytest.importorskip("prometheus_client.parser", reason="pip install 'robocache[metrics]'")
pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
DASHBOARD = Path(__file__).resolve().parents[2] / "docs/grafana/robocache_stress.json"
DEVICE_COUNTERS = ("gpu_allocated_bytes", "gpu_active_bytes", "gpu_reserved_bytes", "pinned_bytes", "driver_bytes")
LABELS = Labels("burn-in", "cuda", 3_600)
ALSO = dict.fromkeys((*GPU_VALUES, *DCGM_VALUES), 0.5)


def counter(name):
    return Counter(name, lambda: 0.0, 1e6)


def every_counter():
    """Those of a machine with a GPU, wherever this runs."""
    return (*host_counters(), *(counter(name) for name in DEVICE_COUNTERS))


@pytest.fixture
def server():
    made = MetricsServer(0, labels=LABELS, counters=every_counter())
    made.start()
    yield made
    made.close()


def fed(server, *, readings=3):
    for step in range(1, readings + 1):
        server.reading(100 * step, 2.0 * step, [float(step)] * len(every_counter()), ALSO)
    return server


def text_of(server):
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        return answer.read().decode()


def samples_of(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def queries():
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def tool(name):
    """A program of Prometheus: of ROBOCACHE_PROMETHEUS (a folder), else of the PATH."""
    found = shutil.which(name, path=os.environ.get("ROBOCACHE_PROMETHEUS"))
    if found is None:
        pytest.skip(f"no {name} here: apt-get install prometheus, or name its folder in ROBOCACHE_PROMETHEUS")
    return found


def test_names_kinds_and_values(server):
    """Catches an iteration count that is a gauge, a rate over the whole run, and a reading shown in another's place."""
    values = list(map(float, range(len(every_counter()))))
    server.reading(100, 10.0, values)
    server.reading(300, 12.0, values, {"gpu_power_watts": 7.0, "gpu_xid_errors_total": 2.0, "gpu_processes": math.nan})
    text = text_of(server)
    kinds = {family.name: family.type for family in parser.text_string_to_metric_families(text)}
    samples = {name: value for (name, labels), value in samples_of(text).items() if not labels}
    assert kinds["robocache_stress_iterations"] == kinds["robocache_stress_gpu_xid_errors"] == "counter"
    assert samples["robocache_stress_iterations_total"] == 300
    assert samples["robocache_stress_iterations_per_second"] == 100
    assert samples["robocache_stress_elapsed_seconds"] == 12
    assert samples["robocache_stress_planned_seconds"] == 3_600
    assert samples["robocache_stress_gpu_power_watts"] == 7
    assert samples["robocache_stress_gpu_xid_errors_total"] == 2
    assert "robocache_stress_gpu_processes" not in samples  # unknown is not 0
    shown = [samples[f"robocache_stress_{each.name}"] for each in every_counter()]
    assert shown == values
    assert ("robocache_stress_run_info", (("device", "cuda"), ("scenario", "burn-in"))) in {
        (name, tuple(pair for pair in labels if pair[0] != "version")) for name, labels in samples_of(text)
    }


def test_the_verdict_so_far_is_the_worst_of_all():
    """Catches a leak, or a problem, that the verdict so far leaves out."""
    made = MetricsServer(0, labels=LABELS, counters=[counter("level"), counter("leaking")])
    made.start()
    try:
        verdict = dict(verdicts(made))
        assert verdict == {"FAIL": 0, "INVALID": 0, "INCONCLUSIVE": 1, "PASS": 0}
        made.problem("INVALID")
        assert dict(verdicts(made))["INVALID"] == 1
        for step in range(200):
            made.reading(step, step / 10, (5.0, 1e4 * step))
        assert dict(verdicts(made)) == {"FAIL": 1, "INVALID": 0, "INCONCLUSIVE": 0, "PASS": 0}
        of_each = samples_of(text_of(made))
        assert of_each["robocache_stress_leak_verdict", (("counter", "leaking"), ("outcome", "FAIL"))] == 1
        assert of_each["robocache_stress_leak_verdict", (("counter", "level"), ("outcome", "PASS"))] == 1
    finally:
        made.close()


def verdicts(server):
    for (name, labels), value in samples_of(text_of(server)).items():
        if name == "robocache_stress_verdict":
            yield dict(labels)["outcome"], value


def test_readings_of_a_long_run_are_thinned_evenly():
    """Catches room that grows, a run whose beginning is forgotten, and readings that come closer and closer."""
    kept = ReadingsSoFar([counter("one")], room=64)
    for step in range(10_000):
        kept.add(step, step, [step])
    steps = kept._counts[: kept.filled, 0]
    assert 32 <= kept.filled <= 64
    assert steps[0] == 0
    assert set(steps[1:] - steps[:-1]) == {256.0}
    assert kept.iterations_per_second() == 1


def test_only_this_machine_is_served_unless_told(server):
    """Catches the library's own default, which serves the whole network."""
    assert server.url.startswith("http://127.0.0.1:")
    assert server._server.socket.getsockname()[0] == "127.0.0.1"


def test_nothing_is_left_of_a_server_that_was_closed():
    """Catches a thread that is not joined and a port that is not freed."""
    before = threading.active_count()
    made = MetricsServer(0, labels=LABELS, counters=[])
    made.start()
    port = made._server.server_port
    assert threading.active_count() == before + 1
    text_of(made)
    made.close()
    made.close()
    assert threading.active_count() == before
    again = MetricsServer(port, labels=LABELS, counters=[])
    again.start()
    again.close()


def test_a_port_in_use_leaves_no_log_behind(server, tmp_path):
    """Fails when the port is asked for after the log was begun: the next try was refused, "is there already"."""
    port = server._server.server_port
    log = tmp_path / "run.jsonl"
    arguments = ["burn-in", "--device", "cpu", "--seconds", "1", "--log", str(log), "--metrics-port", str(port)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout, log.exists()) == (2, "", False)
    assert f"metrics cannot be served at 127.0.0.1 port {port}: " in done.stderr


def test_a_port_in_use_is_one_sentence(server):
    port = server._server.server_port
    with pytest.raises(
        ArgumentError, match=rf"^metrics cannot be served at 127\.0\.0\.1 port {port}: .*; take another"
    ):
        MetricsServer(port, labels=LABELS, counters=[]).start()
    with pytest.raises(ArgumentError, match=r"^a port is a number from 0 to 65535, got 70000$"):
        MetricsServer(70_000, labels=LABELS, counters=[])


def test_every_metric_of_the_dashboard_exists(server):
    """Catches a metric renamed here or there, and a counter that no panel shows."""
    there = {name for name, _ in samples_of(text_of(fed(server, readings=200)))}
    asked = {name for query in queries() for name in re.findall(r"robocache_\w+", query)}
    assert asked - there == set()
    counted = {f"robocache_stress_{each.name}" for each in every_counter()}
    assert counted - asked == set()


def test_device_counters_are_those_of_the_dashboard():
    """Catches a device counter added to the suite and not to this file; on a GPU, where they are."""
    there = {each.name for each in device_counters("cuda")}
    assert there == set(DEVICE_COUNTERS)


def test_promtool_finds_nothing_against_the_names(server):
    program = tool("promtool")
    text = text_of(fed(server))
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_real_prometheus_answers_every_query_of_the_dashboard(server, tmp_path):
    """Catches an exposition that Prometheus refuses, and a query that means nothing or finds nothing."""
    program = tool("prometheus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    target = urllib.parse.urlsplit(fed(server, readings=200).url).netloc
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "scrape_configs": [{"job_name": "stress", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
    command = [program, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        wait_until(lambda: len(answer(address, "count_over_time(up[1m]) > 2")) == 1, deadline_s=30)
        assert answer(address, "up")[0]["value"][1] == "1"
        empty = [query for query in queries() if not answer(address, query)]
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    assert empty == []


def answer(address, query):
    """What Prometheus says to a query of the dashboard, whose variables stand for any run and ten seconds."""
    query = query.replace("$instance", ".*").replace("$__rate_interval", "10s")
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]["result"]
    except ConnectionError:
        return []
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code != 503:  # not yet ready
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        return []
