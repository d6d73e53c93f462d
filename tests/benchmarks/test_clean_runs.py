"""Clean runs are counted, one by one, and a false alarm is not lost among them."""

from __future__ import annotations

from benchmarks import clean_runs


def run(outcome, **verdicts):
    answered = {"iterations": 100, "readings": 80, "burn_in_s": 8.0}
    return {
        "outcome": outcome,
        "said": [],
        "verdicts": verdicts,
        "load": 2.0,
        "process_s": 12.0,
        "exit_code": 0,
    } | answered


def test_every_outcome_is_counted_and_a_false_alarm_says_why():
    """Fails when INVALID or a run without an answer passes for clean, or only the last run's counters are kept."""
    said = ["heap_bytes: grows by at least 600.0 MB a day"]
    lost = {name: value for name, value in run("FAIL").items() if name not in ("iterations", "readings", "burn_in_s")}
    found = clean_runs.summary(
        [
            run("PASS", heap_bytes="PASS", tensors="PASS"),
            run("INCONCLUSIVE", heap_bytes="INCONCLUSIVE", tensors="PASS"),
            run("FAIL", heap_bytes="FAIL") | {"said": said, "load": 9.0},
            run("INVALID", heap_bytes="INVALID"),
            lost | {"said": ["no answer: Killed"]},
        ]
    )
    assert found["outcomes"] == {"PASS": 1, "INCONCLUSIVE": 1, "FAIL": 2, "INVALID": 1}
    assert found["counters"]["tensors"] == {"PASS": 2}
    assert found["counters"]["heap_bytes"] == {"PASS": 1, "INCONCLUSIVE": 1, "FAIL": 1, "INVALID": 1}
    assert [each["said"] for each in found["false_alarms"]] == [said, [], ["no answer: Killed"]]
    assert found["load_average"] == {"least": 2.0, "median": 2.0, "most": 9.0}


def test_what_was_found_is_kept_after_every_run():
    """Fails when a stopped command loses its runs, or runs fewer than were wanted."""
    kept = []
    found = clean_runs.measured(5, 2, lambda: run("PASS"), lambda so_far: kept.append(len(so_far)))
    assert (len(found), kept) == (5, [1, 2, 3, 4, 5])
