"""The kill matrix tells killed from survived and from killed for another reason; a few of its pairs run here.

All of them: `robocache stress kill-matrix`.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.errors import ArgumentError
from robocache.stress import kill_matrix
from robocache.stress.kill_matrix import NOTHING, Cell, pairs, run_matrix, run_pair
from robocache.stress.scenarios import SCENARIOS
from robocache.stress.settings import choose_device
from robocache.testing import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(240)]
QUICK = ("native_heap_64b", "failing_reader", "full_disk", "loader_thread_left", "places_wrap_at_32_bits", "lost_batch")


def cell(tmp_path, fault, said=None, errors=""):
    answer = tmp_path / "answer.json"
    answer.unlink(missing_ok=True)
    if said is not None:
        answer.write_text(json.dumps({"said": said, "undecided": [], "seconds": 1.5}))
    return kill_matrix._cell(fault, "burn-in", answer, errors, 9.0)


def test_every_fault_has_a_scenario_that_runs_where_it_can_be():
    """Fails when a scenario is renamed, or a fault of a GPU is given to one that has none."""
    for fault in FAULTS.values():
        assert set(fault.devices) & set(SCENARIOS[fault.scenario].devices), fault


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_scenario_lacks_a_fault_and_no_fault_a_scenario(device):
    """Fails when a scenario is added that nothing shows to find anything, on either device."""
    scenarios = {name for name, scenario in SCENARIOS.items() if device in scenario.devices}
    aimed_at = {fault.scenario for fault in FAULTS.values() if device in fault.devices}
    assert aimed_at == scenarios
    runs = pairs(device)
    assert {scenario for fault, scenario in runs if fault == NOTHING} == scenarios
    assert {fault for fault, _ in runs} == {NOTHING} | {name for name, each in FAULTS.items() if device in each.devices}


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_is_killed_for_its_own_reason(fault):
    """Fails when the injection does not reach the scenario, or the scenario no longer looks."""
    found = run_pair(fault, FAULTS[fault].scenario, "cpu")
    assert found.status == "killed", found


def test_nothing_is_found_where_nothing_is_broken():
    found = run_pair(NOTHING, "cache-writing", "cpu")
    assert (found.status, found.is_good) == ("clean", True), found


def test_survivors_and_wrong_reasons_are_told_apart(tmp_path):
    """Fails when anything that stops a scenario counts as noticing the fault."""
    assert cell(tmp_path, "tensors_64b", []).status == "survived"
    assert cell(tmp_path, "tensors_64b", ["ZeroDivisionError: division by zero"]).status == "other reason"
    killed = cell(tmp_path, "tensors_64b", ["FAIL heap_bytes: grows", "FAIL tensors: grows by 9"])
    assert (killed.status, killed.reason, killed.seconds) == ("killed", "FAIL tensors: grows by 9", 1.5)
    assert cell(tmp_path, NOTHING, []).status == "clean"
    assert cell(tmp_path, NOTHING, ["FAIL tensors: grows by 9"]).status == "false alarm"


def test_a_hang_is_killed_by_where_it_hangs(tmp_path):
    """Fails when a hang anywhere else passes for the deadlock."""
    stack = "Timeout (0:00:15)!\nThread 0x1:\n  File x, line 3 in {}\n"
    deadlock = "deadlock_without_the_gil"
    assert cell(tmp_path, deadlock, errors=stack.format("deadlock_in_python")).status == "killed"
    assert cell(tmp_path, deadlock, errors=stack.format("read")).status == "other reason"
    assert cell(tmp_path, deadlock, errors="Killed").reason == "the process ended without an answer: Killed"


def test_the_pairs_are_each_fault_with_its_own_scenario_and_each_scenario_unbroken():
    assert pairs("cpu", ["full_disk"]) == [(NOTHING, "cache-writing"), ("full_disk", "cache-writing")]
    assert len(pairs("cpu", ["full_disk"], is_full=True, with_clean=False)) == len(SCENARIOS) - 1
    with pytest.raises(ArgumentError, match=r"^no fault is called 'gremlins'; there are "):
        pairs("cpu", ["gremlins"])
    with pytest.raises(ArgumentError, match=r"^cuda_events can be injected on cuda, not on cpu$"):
        pairs("cpu", ["cuda_events"])


def matrix(*arguments):
    faults = ("full_disk", "failing_reader", "tensors_64b")
    named = [each for fault in faults for each in ("--fault", fault)]
    return CliRunner().invoke(app, ["stress", "kill-matrix", "--device", "cpu", "--no-clean", *named, *arguments])


FOUND = {
    "full_disk": Cell("full_disk", "cache-writing", "killed", 0.2, "shard 3 was not written"),
    "failing_reader": Cell("failing_reader", "back-pressure", "other reason", 1.0, "ZeroDivisionError: odd", 3.0),
    "tensors_64b": Cell("tensors_64b", "repeated-operation", "survived", 2.0, ""),
}


def test_a_matrix_that_is_stopped_keeps_what_it_found_and_goes_on_from_there(tmp_path, monkeypatch):
    """Fails when the file is written at the end only, or a resumed matrix runs a pair twice or forgets one."""
    out, ran = tmp_path / "matrix.json", []

    def stopped(fault, *_):
        if fault == "failing_reader":
            raise KeyboardInterrupt
        return FOUND[fault]

    monkeypatch.setattr(kill_matrix, "run_pair", stopped)
    first = [name for name, _ in pairs("cpu", list(FOUND), with_clean=False)]
    assert matrix("--out", str(out)).exit_code != 0
    kept = json.loads(out.read_text())
    done = first[: first.index("failing_reader")]
    assert ([each["fault"] for each in kept["cells"]], kept["is_complete"], kept["passed"]) == (done, False, False)

    monkeypatch.setattr(kill_matrix, "run_pair", lambda fault, *_: ran.append(fault) or FOUND[fault])
    assert matrix("--out", str(out), "--resume").exit_code == 1
    whole = json.loads(out.read_text())
    assert ran == first[len(done) :]
    assert ([each["fault"] for each in whole["cells"]], whole["is_complete"]) == (first, True)
    assert (whole["killed"], whole["faults"], whole["passed"]) == (1, 3, False)

    out.write_text(json.dumps(whole | {"code": "0" * 16}))
    refused = matrix("--out", str(out), "--resume")
    assert refused.exit_code == 2
    assert f"{out}: is of code '{'0' * 16}'" in refused.stderr
    assert "name it with --out" in matrix("--resume").stderr


def test_a_verdict_that_is_not_wanted_says_why(tmp_path, monkeypatch):
    """Fails when a survivor, a kill for another reason or a false alarm stands there without what was said."""
    monkeypatch.setattr(kill_matrix, "run_pair", lambda fault, *_: FOUND[fault])
    done = matrix()
    assert "failing_reader, back-pressure: other reason (ZeroDivisionError: odd)" in done.stderr
    assert "failing_reader, back-pressure: other reason (ZeroDivisionError: odd)" in done.stdout
    assert "tensors_64b, repeated-operation: survived (the scenario found nothing)" in done.stdout
    assert "full_disk, cache-writing: killed\n" in done.stderr


def test_as_many_pairs_run_at_a_time_as_are_asked_for(tmp_path, monkeypatch):
    """Fails when the pairs wait for each other: then the barrier waits in vain."""
    together = threading.Barrier(3)

    def met(fault, *_):
        together.wait(timeout=20)
        return replace(FOUND[fault], status="killed")

    monkeypatch.setattr(kill_matrix, "run_pair", met)
    out = tmp_path / "matrix.json"
    done = matrix("--jobs", "3", "--out", str(out))
    assert done.exit_code == 0, done.stderr
    document = json.loads(out.read_text())
    assert (document["jobs"], document["killed"]) == (3, 3)
    assert matrix("--jobs", "0").exit_code == 2


def test_what_goes_wrong_beside_others_is_run_again_alone(tmp_path, monkeypatch):
    """Fails when the first verdict of such a pair counts, or is forgotten, or the second run has neighbours too."""
    tries, under_way, most = Counter(), Counter(), []

    def found(fault, *_):
        tries[fault] += 1
        under_way["now"] += 1
        time.sleep(0.05)
        most.append((tries[fault], under_way["now"]))
        under_way["now"] -= 1
        return replace(FOUND[fault], status="killed" if tries[fault] > 1 else FOUND[fault].status)

    monkeypatch.setattr(kill_matrix, "run_pair", found)
    out = tmp_path / "matrix.json"
    done = matrix("--jobs", "3", "--out", str(out))
    assert tries == {"full_disk": 1, "failing_reader": 2, "tensors_64b": 2}
    assert {count for attempt, count in most if attempt > 1} == {1}
    cells = json.loads(out.read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["killed"] * 3
    first = {cell["fault"]: cell["beside_others"] for cell in cells}
    odd = "other reason: ZeroDivisionError: odd"
    assert first == {"full_disk": "", "failing_reader": odd, "tensors_64b": "survived: "}
    assert f"failing_reader, back-pressure: killed alone; beside others {odd}" in done.stdout
    assert done.exit_code == 0, done.stderr


def test_a_matrix_that_is_stopped_ends_what_is_under_way(monkeypatch):
    """Fails without `end_all`: the deadlock then ends by itself, a quarter of a minute later."""
    started = {}

    class Noted(kill_matrix.UnderWay):
        def start(self, command, output):
            process = super().start(command, output)
            started[re.search(r"run_here\('(\w+)'", command[-1])[1]] = process
            return process

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(kill_matrix, "UnderWay", Noted)
    runs = [
        ("deadlock_without_the_gil", "burn-in"),
        ("full_disk", "cache-writing"),
        ("failing_reader", "back-pressure"),
    ]
    with pytest.raises(KeyboardInterrupt):
        run_matrix(runs, "cpu", stop, jobs=2)
    assert started["full_disk"].returncode == 0
    assert started["deadlock_without_the_gil"].returncode == -signal.SIGKILL
    third = started.get("failing_reader")
    assert third is None or third.returncode == -signal.SIGKILL


@pytest.mark.gpu
@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if "cpu" not in fault.devices])
def test_a_fault_of_a_gpu_is_killed_for_its_own_reason(fault):
    """Fails as above; the faults that only a GPU can have."""
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("faults of a GPU need one, and PyTorch finds none here")
    found = run_pair(fault, FAULTS[fault].scenario, "cuda")
    assert found.status == "killed", found
