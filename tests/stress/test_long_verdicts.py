"""The verdict over several processes, the page and the JUnit file, from logs whose truth is known."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from robocache.cli.junit import junit_xml
from robocache.cli.main import app
from robocache.cli.stress_page import stress_page
from robocache.errors import OutputError
from robocache.stress.long_report import report_of
from robocache.stress.long_run import LongHooks, long_run
from robocache.stress.long_settings import Thresholds, run_header
from robocache.stress.resources import Counter
from robocache.stress.run_log import RunLog
from robocache.stress.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
HEAP, THREADS = Counter("heap_bytes", lambda: 0.0, 500e6, noise=20_000), Counter("threads", lambda: 0.0, 24)
COUNTERS = HEAP, THREADS
USUAL = Thresholds()


def log_of(*, leak=0.0, processes=4, readings=80, baselines=(0, 90e6, -30e6, 200e6), settles_in=4, more=()):
    """Readings of processes that fill caches at their start, each from a baseline of its own."""
    generator = np.random.default_rng(3)
    run = {"kind": "run", "scenario": "burn-in", "seconds": 3600, "device": "cpu", "seed": 0}
    records = [run | {"counters": ["heap_bytes", "threads"], "budgets": {"heap_bytes": 500e6}}]
    for number in range(1, processes + 1):
        for reading in range(readings):
            iteration = ((number - 1) * readings + reading) * 20
            spike = generator.exponential(20_000) * (generator.random() < 0.3)
            caches = 3e6 * (1 - np.exp(-reading / settles_in))
            heap = 5e7 + baselines[number - 1] + caches + leak * reading * 20 + spike
            place = {"process": number, "iteration": iteration, "seconds": iteration / 50}
            records.append({"kind": "reading", "counts": [heap, 4 + number], "also": {"gpu_c": 60.0}} | place)
    return [*records, *more]


def heap_verdict(**how):
    return report_of(log_of(**how), COUNTERS).verdicts[0]


def test_the_baselines_of_new_processes_are_no_leak():
    """Fails when readings are put one after the other as they are: seen with the level of a new process kept."""
    report = report_of(log_of(), COUNTERS)
    assert [each.outcome for each in report.verdicts] == ["PASS", "PASS"], report.verdicts
    assert abs(report.verdicts[0].per_iteration) < 20, report.verdicts[0]


@pytest.mark.parametrize("readings", [80, 24])
def test_a_leak_is_found_and_measured_across_processes(readings):
    """Fails when each process starts level again, or their start-up is part of the growth (24 are few)."""
    verdict = heap_verdict(leak=854.0, readings=readings, settles_in=readings / 20)
    assert verdict.outcome == "FAIL", verdict
    assert verdict.per_iteration == pytest.approx(854, rel=0.1)


def test_caches_that_every_process_fills_are_no_leak():
    """Fails when the start-ups of short processes add up to a slope, and that is called a leak."""
    verdict = heap_verdict(readings=24)
    assert (verdict.outcome, verdict.why[:30]) == ("INCONCLUSIVE", "still settling in each process"), verdict


def test_processes_that_ended_at_once_show_nothing():
    """Fails when a handful of readings after each start passes for a run."""
    verdict = heap_verdict(readings=6)
    assert (verdict.outcome, verdict.why[:28]) == ("INCONCLUSIVE", "0 readings are too few, 64 a")


class Stub:
    """A task that does nothing, or what a test asks of it."""

    warm_up, deadline_s, maps_files = 2, 60.0, False

    def __init__(self, at=None, error=None, wrong=()):
        self.at, self.error, self.wrong, self.kept = at, error, list(wrong), []

    def run(self, iteration):
        if iteration == self.at:
            raise self.error

    def failures(self):
        return self.wrong

    def measured(self):
        return {}


class Gauge:
    def __init__(self, problems=(), name="gpu_c"):
        self.found, self.name, self.samples = list(problems), name, 0

    def start(self):
        pass

    def sample(self):
        self.samples += 1
        return {self.name: 61.0}

    def problems(self):
        return self.found

    def close(self):
        pass


def run(tmp_path, task, *, thresholds=USUAL, monitors=(), **hooks):
    """As long as 100 readings take, on however busy a machine."""
    header, count = run_header("stub", Settings(seconds=8), thresholds, {}), Gauge(name="count")
    task_hooks = LongHooks(should_stop=lambda: count.samples >= 100, **hooks)
    with RunLog(tmp_path / "run.jsonl", header, resume=False) as log:
        how = {"thresholds": thresholds, "monitors": [*monitors, count], "hooks": task_hooks, "reading_share": 1.0}
        return long_run(task, log, **how), log.records()


def test_a_clean_run_passes_and_a_monitors_problem_makes_it_invalid(tmp_path):
    """Fails when monitors are never sampled, or what they find changes nothing."""
    report, _ = run(tmp_path, Stub(), monitors=[Gauge()])
    assert (report.outcome, report.problems) == ("PASS", ()), report
    assert {"gpu_c"} <= {series.counter for series in report.series}
    (tmp_path / "run.jsonl").unlink()
    report, _ = run(tmp_path, Stub(), monitors=[Gauge(["Xid 79"])])
    assert (report.outcome, report.problems) == ("INVALID", ("INVALID Gauge: Xid 79",))


def test_an_error_a_wrong_result_and_a_threshold_each_fail_a_run(tmp_path):
    """Fails when an exception ends the process without a verdict, or a threshold is only printed."""
    for number, (task, how, said) in enumerate(
        [
            (Stub(at=5, error=ValueError("no such thing")), {}, "ValueError: no such thing"),
            (Stub(wrong=["3 elements are wrong"]), {}, "3 elements are wrong after "),
            (Stub(), {"thresholds": Thresholds(cpu_leak_mb=0)}, "CPU memory grew by"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        report, records = run(folder, task, **how)
        assert report.outcome == "FAIL"
        assert report.failures[0].startswith(said), report.failures
        assert records[-1]["kind"] == "end"
        assert records[-1]["is_complete"]


def test_a_leak_fails_within_a_short_run(tmp_path):
    """The control: what every iteration keeps is found by the whole of it, log and all."""
    task = Stub()
    report, _ = run(tmp_path, task, after_iteration=lambda: task.kept.append(bytearray(1_000)))
    assert "FAIL heap_bytes: grows by at least" in "; ".join(report.problems), report


def test_a_full_disk_ends_a_run_with_a_message(tmp_path):
    """Fails when half a line stays in the log, or the run goes on without one."""
    header = run_header("stub", Settings(seconds=1), Thresholds(), {})
    with RunLog(tmp_path / "run.jsonl", header, resume=False) as log:
        whole, own = log.path.read_bytes(), log._file
        with open("/dev/full", "r+b", buffering=0) as full:  # noqa: PTH123  no path object opens it unbuffered better
            log._file = full.fileno()
            with pytest.raises((OutputError, OSError)):
                log.append({"kind": "reading"})
        log._file = own
    assert log.path.read_bytes() == whole


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.loaded = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href") and value[:5] != "data:"]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_has_every_counter_with_its_slope_and_words_and_loads_nothing():
    """Fails when a counter, the slope, a restart or the verdict is left out, or the page needs a network."""
    records = log_of(leak=854.0, more=[{"kind": "failure", "process": 4, "text": "<b>wrong</b>", "traceback": "At"}])
    report = report_of(records, COUNTERS)
    html = stress_page(report, records)
    page = Page(html)
    words = " ".join(page.text)
    assert page.tags.count("svg") == len(report.series) == 3
    assert page.loaded == []
    assert "<b>wrong" not in html
    for said in ("FAIL heap_bytes: grows by at least", "minimum detectable leak", "process 4 starts", "exit code 1"):
        assert re.search(re.escape(said), words, re.IGNORECASE), said
    assert html.count('class="faded s1"') == 8  # the slope of two counters in four processes
    assert html.count('class="gap"') >= 9  # three restarts in each of three charts


def test_junit_has_a_case_a_counter_and_counts_that_agree():
    """Fails when FAIL is a passed test for CI, or a control character makes the file unreadable."""
    report = report_of(log_of(leak=854.0), COUNTERS)
    undecided = dataclasses.replace(report.verdicts[1], outcome="INCONCLUSIVE", why="run \x00 longer")
    invalid = dataclasses.replace(report.verdicts[1], outcome="INVALID", counter="clock")
    report = dataclasses.replace(report, verdicts=(report.verdicts[0], undecided, invalid), failures=("a & b",))
    root = ElementTree.fromstring(junit_xml(report))
    (suite,) = root.findall("testsuite")
    assert root.tag == "testsuites"
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "2", "errors": "1", "skipped": "1",
    }  # fmt: skip
    cases = {case.get("name"): [child.tag for child in case] for case in suite.findall("testcase")}
    assert cases == {"promises": ["failure"], "heap_bytes": ["failure"], "threads": ["skipped"], "clock": ["error"]}
    assert len({case.get("classname") for case in suite.findall("testcase")}) == 1
    for case in suite.findall("testcase"):
        assert float(case.get("time")) >= 0


def test_options_that_cannot_be_right_are_told_at_once(tmp_path):
    """Fails when a mistake is noticed after a day, or not at all: seen with a report that replaced the log."""
    for arguments, said in (
        (["burn-in", "--budget", "heap=1"], "there is no counter 'heap' here; there are heap_bytes"),
        (["burn-in", "--budget", "heap_bytes"], "--budget must be such as heap_bytes=200e6"),
        (["burn-in", "--report", str(tmp_path / "no" / "a.html")], "cannot be written"),
        (["burn-in", "--seconds", "1", "--log", f"{tmp_path}/a", "--report", f"{tmp_path}/./a"], "name the same file"),
        (
            ["burn-in", "--seconds", "1", "--junit", f"{tmp_path}/a", "--profile", f"{tmp_path}/a"],
            "--junit and --profile",
        ),
        (["stress", "run", "gremlins"], "no scenario is called 'gremlins'; there are burn-in"),
        (["stress", "run", "cache-writing", "--device", "cuda", "--seconds", "1"], "cache-writing runs on cpu"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, said in done.stderr) == (2, True), (arguments, done.output)
    assert not list(tmp_path.iterdir())


def test_a_scenario_of_the_registry_runs_round_after_round(tmp_path, monkeypatch):
    """Fails when the command cannot run what the list promises, or asks a GPU of what runs on the CPU alone."""
    monkeypatch.setattr("robocache.stress.settings.choose_device", lambda *_: "cuda")
    arguments = ["stress", "run", "cache-writing", "--seconds", "1", "--log", str(tmp_path / "log")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code in (0, 3), done.output
    assert "stress cache-writing of 1 s" in done.stdout
    assert "on cpu" in done.stdout
    assert "cache-writing" in CliRunner().invoke(app, ["stress", "list"]).stdout
