"""The verdict over a long run, computed from its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robocache.stress.joined_readings import joined_readings, judge_joined
from robocache.stress.report import Report
from robocache.stress.resources import Counter
from robocache.stress.run_log import Record
from robocache.stress.series import Series
from robocache.stress.verdicts import DAY_S, Verdict, told_apart


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Args:
        iteration: How many are done.
        seconds: How long its processes ran; the time between them does not count.
        processes: How many there were.
        is_over: Its time is over, or it has failed: nothing is left to run.
    """

    iteration: int
    seconds: float
    processes: int
    is_over: bool


def standing(records: Sequence[Record]) -> Standing:
    """Where the run of a log stands.

    Args:
        records: Of the log.
    """
    placed = [record for record in records if "iteration" in record]
    if not placed:
        return Standing(0, 0.0, 0, is_over=False)
    processes = sum(record["kind"] == "process" for record in records)
    has_failed = any(record["kind"] == "failure" for record in records)
    is_over = has_failed or any(record["kind"] == "end" and record["is_complete"] for record in records)
    return Standing(int(placed[-1]["iteration"]), float(placed[-1]["seconds"]), processes, is_over)


def report_of(
    records: Sequence[Record], counters: Sequence[Counter], *, measured: Mapping[str, float | str] | None = None
) -> Report:
    """What a log comes to.

    Args:
        records: Of the log, its run first.
        counters: Those of its header, for their budgets and noise.
        measured: More that is worth knowing.
    """
    run, now = records[0], standing(records)
    readings = [record for record in records if record["kind"] == "reading"]
    series = readings_of(records)
    owners = [int(record["process"]) for record in readings]
    per_day = now.iteration / now.seconds * DAY_S if now.seconds else 0.0
    own = {each.counter: each for each in series}
    verdicts = tuple(
        judge_joined(counter, joined_readings(own[counter.name], owners), per_day=per_day) for counter in counters
    )
    invalid = tuple(
        Verdict(record["counter"], "INVALID", record["why"]) for record in records if record["kind"] == "invalid"
    )
    return Report(
        scenario=run["scenario"],
        device=run["device"],
        iterations=now.iteration,
        seconds=now.seconds,
        failures=tuple(record["text"] for record in records if record["kind"] == "failure"),
        verdicts=told_apart(verdicts, tuple(counters)) + tuple(dict.fromkeys(invalid)),
        measured=_measured(records, readings, now) | dict(measured or {}),
        series=series,
    )


def readings_of(records: Sequence[Record]) -> tuple[Series, ...]:
    """Every counter, and every value that monitors sampled, as they were read.

    Args:
        records: Of the log, its run first.
    """
    readings = [record for record in records if record["kind"] == "reading"]
    iterations = tuple(float(record["iteration"]) for record in readings)
    seconds = tuple(float(record["seconds"]) for record in readings)
    columns: dict[str, tuple[float, ...]] = {}
    for column, name in enumerate(records[0]["counters"]):
        columns[name] = tuple(_number(record["counts"][column]) for record in readings)
    for name in dict.fromkeys(name for record in readings for name in record.get("also", ())):
        columns[name] = tuple(_number(record.get("also", {}).get(name)) for record in readings)
    return tuple(Series(name, iterations, seconds, counts) for name, counts in columns.items())


def _measured(records: Sequence[Record], readings: Sequence[Record], now: Standing) -> dict[str, float | str]:
    ends = [record for record in records if record["kind"] == "end"]
    checks = [record for record in records if record["kind"] == "check"]
    early, late = _rates(readings)
    return {
        "processes": now.processes,
        "seconds_wanted": float(records[0]["seconds"]),
        "is_complete": str(now.is_over),
        "gpu_leak_mb": max((_number(record["gpu_leak_mb"]) for record in checks), default=0.0),
        "cpu_leak_mb": max((_number(record["cpu_leak_mb"]) for record in checks), default=0.0),
        "iterations_per_second": now.iteration / now.seconds if now.seconds else 0.0,
        "iterations_per_second_early": early,
        "iterations_per_second_late": late,
        "readings": len(readings),
        "reading_share": _number(ends[-1]["reading_share"]) if ends else np.nan,
    }


def _rates(readings: Sequence[Record]) -> tuple[float, float]:
    """Iterations per second in the second and in the last quarter. NaN: too few readings."""
    quarter = len(readings) // 4
    if quarter < 2:
        return np.nan, np.nan

    def rate(start: Record, end: Record) -> float:
        return float((end["iteration"] - start["iteration"]) / (end["seconds"] - start["seconds"]))

    return rate(readings[quarter], readings[2 * quarter - 1]), rate(readings[-quarter], readings[-1])


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
