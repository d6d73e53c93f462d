"""Runs that outlive their processes: one log, one verdict, and nothing that does not belong together in either."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.stress.run_log import read_log
from robocache.testing import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
SHORT = ("burn-in", "--device", "cpu", "--batch-size", "1", "--reading-share", "0.5")


def burn_in(*arguments):
    return CliRunner().invoke(app, [*SHORT, *map(str, arguments)])


def readings(log):
    """Complete lines only: the last one may be on its way."""
    text = log.read_text() if log.exists() else ""
    return sum('"kind":"reading"' in line for line in text.splitlines(keepends=True) if line.endswith("\n"))


# Imports once what takes seconds to import; each line on its stdin is a command for a process of its own.
BREEDER = """
import json, os, sys
import robocache.stress.long_run, robocache.stress.tasks
from robocache.cli.main import main

for line in sys.stdin:
    arguments, output = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        sys.argv[:] = ["robocache", *arguments]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def ended_by(number, breeder, arguments, log, *, after=6):
    """A process of its own, sent a signal after so many more readings; its exit code and what it wrote."""
    wanted, output = readings(log) + after, log.with_name("stdout")
    breeder.stdin.write(json.dumps([arguments, str(output)]) + "\n")
    breeder.stdin.flush()
    child = int(breeder.stdout.readline())
    wait_until(lambda: readings(log) >= wanted, what="readings", deadline_s=40)
    os.kill(child, number)
    return int(breeder.stdout.readline()), output.read_text()


def test_a_run_killed_three_times_is_one_log_and_one_verdict(tmp_path):
    """Fails when a process begins anew, or loses what the others read.

    Seen with a log that is emptied when it is opened, with readings kept back in a buffer, with iterations, seconds or
    processes counted from the start by each process, and without a handler of SIGTERM. That a start-up is no growth is
    the matter of `test_long_verdicts.py`: these readings are too few.
    """
    log = tmp_path / "run.jsonl"
    arguments = [*SHORT, "--seconds", "8", "--log", str(log), "--resume", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", BREEDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as breeder:
        for leg in range(4):
            code, said = ended_by(signal.SIGKILL if leg < 3 else signal.SIGTERM, breeder, arguments, log)
            assert code in ((-signal.SIGKILL,) if leg < 3 else (0, 3))
    records = read_log(log)
    assert [record["kind"] for record in records].count("run") == 1
    assert [each["process"] for each in records if each["kind"] == "process"] == [1, 2, 3, 4]
    places = [(each["iteration"], each["seconds"]) for each in records if "iteration" in each]
    assert places == sorted(places)
    document = json.loads(said)
    assert document["exit_code"] == code
    assert (document["failures"], document["measured"]["processes"]) == ([], 4)
    assert document["measured"]["readings"] == readings(log) >= 24
    assert {each["outcome"] for each in document["verdicts"]} <= {"PASS", "INCONCLUSIVE"}, document["verdicts"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    log = folder / "run.jsonl"
    outputs = "--report", folder / "run.html", "--junit", folder / "run.xml"
    done = burn_in("--seconds", "1", "--log", log, *outputs, "--json")
    assert done.exit_code in (0, 3), done.output
    return log, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("code", "0" * 16, "belongs to a run of the code of commit"),
        ("machine", "elsewhere", "belongs to a run with machine 'elsewhere'"),
        ("scenario", "soak", "belongs to a run with scenario 'soak', and this is scenario 'burn-in'"),
        ("torch", "1.0", "belongs to a run with torch '1.0'"),
    ],
)
def test_a_log_of_something_else_is_not_gone_on_with(finished, tmp_path, name, value, said):
    """Fails when one verdict is made of two kinds of readings; seen with the comparison of headers left out."""
    first, *rest = finished[0].read_text().splitlines()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join([json.dumps(json.loads(first) | {name: value}), *rest]) + "\n")
    before = other.read_bytes()
    done = burn_in("--resume", "--log", other)
    assert done.exit_code == 2
    assert said in done.stderr
    assert str(other) in done.stderr
    assert other.read_bytes() == before


def test_a_soak_at_another_rate_is_another_run(tmp_path):
    """Fails when the rate is no part of the run: batches of two lengths would then be one series."""
    soak = [
        "soak",
        "--device",
        "cpu",
        "--seconds",
        "1",
        "--cache",
        str(tmp_path / "cache"),
        "--log",
        str(tmp_path / "log"),
    ]
    assert CliRunner().invoke(app, soak).exit_code in (0, 3)
    done = CliRunner().invoke(app, [*soak, "--resume", "--rate", "20"])
    assert done.exit_code == 2
    assert "source 'generated robot at 50 Hz', and this is source 'generated robot at 20 Hz'" in done.stderr


def test_a_log_is_neither_overwritten_nor_shared_nor_guessed_at(finished, tmp_path):
    """Fails when a second run is mixed into a log, or a damaged line is skipped.

    Seen without the look at `resume`, without the lock, with the duration left out of the comparison, with damaged
    lines skipped, all or those after the second, with a log of its own for `--resume` without `--log`, and with lines
    believed that are JSON and lack what they must have.
    """
    log, _ = finished
    before = log.read_bytes()
    assert "add --resume to go on with it" in burn_in("--seconds", "1", "--log", log).stderr
    assert "seconds 1, and this is seconds 2" in burn_in("--seconds", "2", "--log", log, "--resume").stderr
    with log.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert f"{log}: another process is writing to this log" in burn_in("--resume", "--log", log).stderr
    assert log.read_bytes() == before
    assert "name it with --log" in burn_in("--seconds", "1", "--resume").stderr
    damaged, lines = tmp_path / "damaged.jsonl", before.decode().splitlines()
    for number in (2, len(lines)):
        wrong = [line.replace(":", "?", 1) if at == number else line for at, line in enumerate(lines, 1)]
        damaged.write_text("\n".join(wrong) + "\n")
        problem = f"line {number} is no line of a long run's log"
        assert problem in burn_in("--seconds", "1", "--resume", "--log", damaged).stderr
    for number, wrong in [(3, {"kind": "reading"}), (4, {"counts": [1, 2]}), (5, {"iteration": "many"})]:
        torn = [json.loads(line) for line in lines]
        torn.insert(number - 1, {"process": 1, "iteration": 1, "seconds": 1, "counts": [0] * 11, "kind": "reading"})
        torn[number - 1] = wrong if "kind" in wrong else torn[number - 1] | wrong
        damaged.write_text("".join(json.dumps(each) + "\n" for each in torn))
        problem = f"line {number} is no line of a long run's log"
        assert problem in burn_in("--seconds", "1", "--resume", "--log", damaged).stderr
    assert "gone/run.jsonl: cannot be written" in burn_in("--log", tmp_path / "gone" / "run.jsonl").stderr


@pytest.mark.parametrize("text", ["a note", "two notes\nand no end of the line", '["kind"]'])
def test_a_file_of_something_else_keeps_what_it_has(tmp_path, text):
    """Fails when a last line without an end is cut off before anybody asks whose it is; seen so, with the note gone."""
    notes = tmp_path / "notes.txt"
    notes.write_text(text)
    done = burn_in("--seconds", "1", "--resume", "--log", notes)
    assert (done.exit_code, notes.read_text()) == (2, text)
    assert "line 1 is no line of a long run's log; use a new file" in done.stderr


def test_a_torn_last_line_is_cut_off_and_noted(finished, tmp_path):
    """Fails when a power failure makes a log useless, or half a reading counts.

    Seen with the line left where it is, not looked for, and cut off without a note.
    """
    torn = tmp_path / "torn.jsonl"
    text = finished[0].read_text()
    torn.write_text(text + '{"kind":"reading","proc')
    assert burn_in("--resume", "--log", torn, "--json").exit_code in (0, 3)
    assert torn.read_text() == text + '{"kind":"torn","bytes":23}\n'


def test_a_finished_run_is_judged_again_and_not_run(finished):
    """Fails when `--resume` after the end runs on, or gives another verdict than the run itself.

    Seen with a process begun without a look at the end, and with a verdict that leaves the last reading out.
    """
    log, document = finished
    before = log.read_bytes()
    again = burn_in("--resume", "--log", log, "--json")
    assert json.loads(again.stdout) == document
    assert again.exit_code == document["exit_code"]
    assert log.read_bytes() == before


def test_a_signal_ends_a_run_with_a_verdict_so_far(tmp_path):
    """Fails when the signal ends the process with its readings, or the verdict claims a whole run.

    SIGINT here; SIGTERM ends the last process of the run that was killed three times. Seen with a signal that nobody
    asks for, that has no handler, or that is not SIGINT, and with an end that is called complete.
    """
    log = tmp_path / "run.jsonl"

    def interrupt():
        wait_until(lambda: readings(log) >= 3, what="readings", deadline_s=40)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = burn_in("--seconds", "20", "--log", log)
    thread.join()
    assert done.exit_code in (0, 3), done.output
    assert "burn-in so far " in done.stdout
    assert "[0.00h] Iter " in done.stdout
    end = read_log(log)[-1]
    assert (end["kind"], end["is_complete"], end["was_stopped"]) == ("end", False, True)


def test_a_hang_of_an_earlier_process_is_not_forgotten(finished, tmp_path):
    """Fails when whoever restarts a hung run gets a verdict that knows nothing of the hang, or no stacks to look at.

    Seen without the note in the log, and with the file beside it removed at the end.
    """
    log = tmp_path / "run.jsonl"
    lines = [line for line in finished[0].read_text().splitlines() if '"kind":"end"' not in line]
    log.write_text("\n".join(lines) + "\n")
    stacks = tmp_path / "run.jsonl.hang"
    stacks.write_text("Timeout (0:10:00)!\nThread 0x1\n")
    done = burn_in("--resume", "--log", log)
    assert done.exit_code == 1
    assert "an earlier process hung; run.jsonl.hang beside the log has its stacks" in done.stdout
    assert "Thread 0x1" in stacks.read_text()
