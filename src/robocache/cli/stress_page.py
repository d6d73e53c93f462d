"""The report of a long run: every counter as a chart, with its warm-up, slope and verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from robocache.cli import svg
from robocache.cli.console import number
from robocache.cli.endurance import EXIT_CODES, WORDS
from robocache.cli.live import duration
from robocache.cli.page import page, section, table

if TYPE_CHECKING:
    from robocache.stress.report import Report
    from robocache.stress.series import Floats, Series
    from robocache.stress.verdicts import Verdict

Record = dict[str, Any]
_MOST_TEXT = 4_000
_ENVIRONMENT = ("commit", "dirty", "code", "machine", "robocache", "python", "torch", "gpu", "cpu", "cores")
_RUN = ("time", "device", "batch_size", "seed", "source")


def stress_page(report: Report, records: Sequence[Record]) -> str:
    """A whole page, self-contained.

    Args:
        report: What the log came to.
        records: Of the log, its run first.
    """
    run = records[0]
    so_far = "" if report.measured["is_complete"] == "True" else ", so far"
    tiles = [
        (report.outcome, f"verdict (exit code {EXIT_CODES[report.outcome]}){so_far}"),
        (duration(report.seconds), f"of {duration(float(run['seconds']))}"),
        (f"{report.iterations:,}", "iterations"),
        (number(float(report.measured["iterations_per_second"])), "iterations a second"),
        (str(report.measured["processes"]), "processes: the first and each that resumed"),
    ]
    sections = [_problems(report, records), _verdicts(report), *_charts(report, records), _environment(run, report)]
    return page(
        f"Stress run: {report.scenario}",
        f"{report.scenario}{so_far} {WORDS[report.outcome]}.",
        tiles,
        [each for each in sections if each],
        f"robocache {run.get('robocache', '')}, begun {run.get('time', '')}",
    )


def _problems(report: Report, records: Sequence[Record]) -> str:
    said = [*report.problems, *report.undecided]
    if not said:
        return ""
    items = "".join(f"<li>{escape(each)}</li>" for each in said)
    traces = [str(record["traceback"])[-_MOST_TEXT:] for record in records if record.get("traceback")]
    stacks = "".join(f'<div class="card scroll"><pre>{escape(each)}</pre></div>' for each in traces)
    return section("What is wrong, or not known", "", f'<div class="card"><ul>{items}</ul></div>', stacks)


def _verdicts(report: Report) -> str:
    rows = [
        (each.counter, each.outcome, each.why, number(each.per_iteration), each.detectable or "-")
        for each in report.verdicts
    ]
    header = ("counter", "verdict", "why", "growth an iteration", "minimum detectable leak")
    caption = "The minimum detectable leak is what would have been seen in 11 of 12 runs with the noise of this one."
    return section("Verdicts", "", table(caption, header, rows, left=3))


def _charts(report: Report, records: Sequence[Record]) -> list[str]:
    verdicts = {each.counter: each for each in report.verdicts}
    text = (
        "Time is what the processes ran. Shaded: the warm-up that was cut, and the start of each process that resumed. "
        "Dashed: the fitted slope (Theil-Sen), through the median of each process's readings."
    )
    owners = np.array([record["process"] for record in records if record["kind"] == "reading"])
    drawn = [_chart(series, verdicts.get(series.counter), owners) for series in report.series if len(series)]
    return [section("Counters", text, *drawn)] if drawn else []


def _chart(series: Series, verdict: Verdict | None, owners: Floats) -> str:
    unit_s, unit = _time_unit(series.seconds[-1])
    scale, suffix = (1e6, ", MB") if series.counter.endswith("_bytes") else (1.0, "")
    x, y = np.array(series.seconds) / unit_s, np.array(series.counts) / scale
    lines = [svg.Series(x, y)]
    bands = [
        svg.Band(float(x[start]), float(x[start]), f"process {int(owners[start])} starts")
        for start in np.flatnonzero(np.diff(owners)) + 1
    ]
    said = ""
    if verdict is not None:
        said = f"{verdict}. " + (f"Minimum detectable leak: {verdict.detectable}." if verdict.detectable else "")
        bands += _warm_ups(verdict, series, x, owners)
        lines += _slopes(verdict, series, x, scale, owners)
    drawn = svg.chart(f"{series.counter} over time", lines, x_range=(0.0, max(float(x[-1]), 1e-9)), bands=bands)
    title = f"<h3>{escape(series.counter)}{suffix} <span class='soft'>over {unit}</span></h3>"
    return f'<div class="card" id="{escape(series.counter)}">{title}<p class="soft">{escape(said)}</p>{drawn}</div>'


def _warm_ups(verdict: Verdict, series: Series, x: Floats, owners: Floats) -> list[svg.Band]:
    """What the verdict left out: of the only process, or of each."""
    from robocache.stress.joined_readings import joined_readings

    iterations = np.array(series.iterations)
    cuts = list(joined_readings(series, owners.astype(int).tolist()).cuts)
    if not math.isnan(verdict.settled_at) and verdict.settled_at > iterations[0]:
        cuts.append((float(iterations[0]), verdict.settled_at))
    ends = [np.clip(np.searchsorted(iterations, cut), 0, len(x) - 1) for cut in cuts]
    return [svg.Band(float(x[start]), float(x[end]), "warm-up, which was cut") for start, end in ends]


def _slopes(verdict: Verdict, series: Series, x: Floats, scale: float, owners: Floats) -> list[svg.Series]:
    """The one slope, in each process through the median of its readings."""
    if math.isnan(verdict.per_iteration):
        return []
    iterations, counts = np.array(series.iterations), np.array(series.counts)
    lines = []
    for owner in np.unique(owners):
        mine = owners == owner
        if not math.isnan(verdict.settled_at) and (iterations[mine] >= verdict.settled_at).any():
            mine &= iterations >= verdict.settled_at
        rise = verdict.per_iteration * iterations[mine]
        level = float(np.nanmedian(counts[mine] - rise))
        lines.append(svg.Series(x[mine], (level + rise) / scale, color=1, style="faded"))
    return lines


def _environment(run: Record, report: Report) -> str:
    rows = [(name, str(run[name])) for name in (*_RUN, *_ENVIRONMENT) if run.get(name) not in (None, "")]
    budgets = [(name, f"{budget:,.0f} a day") for name, budget in run["budgets"].items()]
    measured = [
        (name, number(value) if isinstance(value, float) else str(value)) for name, value in report.measured.items()
    ]
    return section(
        "Environment",
        "",
        table("On what", ("", ""), rows, left=2),
        table("Thresholds", ("counter", "budget"), budgets, left=1),
        table("Measured", ("", ""), measured, left=1),
    )


def _time_unit(longest_s: float) -> tuple[float, str]:
    if longest_s > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest_s > 180 else (1.0, "seconds")
