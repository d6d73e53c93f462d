"""What finished long runs come to, from their logs: `python -m benchmarks.long_runs LOG.jsonl [...] --out FILE`.

The logs are those of `robocache burn-in --log`, perhaps of other machines; their verdicts are computed anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from robocache.benchmarks import results
from robocache.stress.long_report import report_of
from robocache.stress.resources import Counter, device_counters, host_counters
from robocache.stress.run_log import Record, read_log


def counters(header: Record) -> list[Counter]:
    """Those of a run, with its budgets; nothing is read from them here."""
    known = (*host_counters(), *device_counters(header["device"]))
    return [
        replace(each, budget_per_day=header["budgets"][each.name]) for each in known if each.name in header["budgets"]
    ]


def main() -> None:
    """Judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=results.FOLDER / "long_runs.json")
    arguments = parser.parse_args()
    runs = []
    for path in arguments.logs:
        records = read_log(path)
        header = records[0]
        report = report_of(records, counters(header))
        run = {name: header[name] for name in ("commit", "dirty", "torch", "gpu", "cpu", "cores", "seed", "time")}
        runs.append(run | report.as_dict(with_series=False))
        print(f"{path.name}: {report.outcome}, {report.iterations} iterations in {report.seconds:.0f} s")
    results.save({"runs": runs}, arguments.out)


if __name__ == "__main__":
    main()
