"""Nothing is broken, and nothing is found: `python -m benchmarks.clean_runs [--runs 200] [--seconds 14] [--jobs 1]`.

Each run is `robocache burn-in` in a process of its own, on whatever else the machine does meanwhile. INCONCLUSIVE is an
honest answer of seconds on a busy machine; FAIL and INVALID are false alarms, and exit code 1. The counts are written
after every run, so that a stopped command keeps them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from robocache.benchmarks import machine, results

RESULTS = Path(__file__).parent / "results"
READING_SHARE = 0.2  # of the time: at the usual two-hundredth, seconds are too few readings for any verdict
_DEADLINE_S = 600.0
Found = dict[str, Any]


def one_run(device: str, seconds: float) -> Found:
    """A burn-in in a process of its own: its verdicts, and what it and the process took."""
    command = ["burn-in", "--device", device, "--seconds", str(seconds), "--batch-size", "1", "--json"]
    command += ["--reading-share", str(READING_SHARE)]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "robocache", *command], capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    found: Found = {"process_s": time.monotonic() - started, "load": os.getloadavg()[0], "exit_code": done.returncode}
    try:
        document = json.loads(done.stdout)
    except ValueError:
        return found | {"outcome": "FAIL", "said": [f"no answer: {done.stderr[-600:]}"], "verdicts": {}}
    verdicts = {each["counter"]: each["outcome"] for each in document["verdicts"]}
    said = [f"{each['counter']}: {each['why']}" for each in document["verdicts"] if each["outcome"] == "FAIL"]
    return found | {
        "outcome": document["outcome"],
        "said": document["failures"] + said,
        "verdicts": verdicts,
        "iterations": document["iterations"],
        "readings": document["measured"]["readings"],
        "burn_in_s": document["seconds"],
    }


def summary(runs: Sequence[Found]) -> Found:
    """What all runs together found."""
    counters: dict[str, Counter[str]] = {}
    for run in runs:
        for name, outcome in run["verdicts"].items():
            counters.setdefault(name, Counter())[outcome] += 1
    answered = [run for run in runs if "iterations" in run]
    alarms = [run for run in runs if run["outcome"] not in ("PASS", "INCONCLUSIVE")]
    return {
        "runs": len(runs),
        "outcomes": dict(Counter(run["outcome"] for run in runs)),
        "counters": {name: dict(counts) for name, counts in counters.items()},
        "false_alarms": [{key: run[key] for key in ("outcome", "said", "load", "exit_code")} for run in alarms],
        "load_average": _spread([run["load"] for run in runs]),
        "process_s": _spread([run["process_s"] for run in runs]),
        **{name: _spread([run[name] for run in answered]) for name in ("burn_in_s", "iterations", "readings")},
    }


def measured(
    runs: int, jobs: int, run: Callable[[], Found], keep: Callable[[Sequence[Found]], object]
) -> Sequence[Found]:
    """So many runs, `jobs` at a time; `keep` gets all so far after each."""
    found: list[Found] = []
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(run) for _ in range(runs)]):
            found.append(done.result())
            keep(found)
    return found


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "least": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "most": round(max(values), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=14.0, help="of each burn-in, at least 1")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or RESULTS / f"clean_runs_{given.device}.json"
    header = {
        **machine.commit(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "device": given.device,
        "wanted_runs": given.runs,
        "seconds_each": given.seconds,
        "jobs": given.jobs,
        "reading_share": READING_SHARE,
    }
    started = time.monotonic()

    def keep(found: Sequence[Found]) -> None:
        results.save(header | {"took_s": round(time.monotonic() - started, 1)} | summary(found), out)
        last = found[-1]
        print(f"{len(found)}/{given.runs}: {last['outcome']} {'; '.join(last['said'])}".rstrip(), flush=True)

    found = summary(measured(given.runs, given.jobs, lambda: one_run(given.device, given.seconds), keep))
    print(json.dumps(found["outcomes"]))
    return 1 if found["false_alarms"] else 0


if __name__ == "__main__":
    sys.exit(main())
