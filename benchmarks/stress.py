"""Tables of what the stress suite can see, from their JSON in benchmarks/results/."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from robocache.benchmarks.tables import markdown

MATRICES = {"kill": "kill_matrix_cpu.json", "kill_gpu": "kill_matrix_h200.json"}
VERDICTS, COST = "leak_verdicts.json", "burn_in_cost_cpu.json"
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def blocks(results: Path) -> dict[str, str]:
    """The Markdown blocks that the stored results fill, by name; none for a result that is not stored."""
    found = {}
    for block, name in MATRICES.items():
        if (results / name).is_file():
            matrix = json.loads((results / name).read_text("utf-8"))
            found[block] = markdown(_matrix(matrix), _outcome(matrix))
    if (results / VERDICTS).is_file():
        verdicts = json.loads((results / VERDICTS).read_text("utf-8"))
        found["verdicts"] = markdown(_verdicts(verdicts), _calibration(verdicts))
        found["detectable"] = markdown(
            _detectable(verdicts),
            "On two CPU cores: hardly and heavily used by others. What is divided by few iterations is large.",
        )
    if (results / COST).is_file():
        cost = json.loads((results / COST).read_text("utf-8"))
        load = " to ".join(f"{cost[when][0]:g}" for when in ("load_average", "load_average_after"))
        where = f"{cost['machine']['cpu']}, {cost['machine']['cores']} cores; load {load}; commit {cost['commit'][:12]}"
        caption = f"Added to the bare loop, in percent, with 95 % intervals. {where}."
        found["cost"] = markdown(_cost(cost), caption)
    return found


def _outcome(matrix: dict[str, Any]) -> str:
    where = f"{matrix['device']} ({matrix['machine']}) with torch {matrix['torch']}"
    text = f"{matrix['killed']} of {matrix['faults']} faults killed, {matrix['false_alarms']} false alarms, on {where}."
    if matrix["device"] == "cpu":
        text += " Faults that only a GPU can have are not in it."
    return f"{text} {matrix.get('note', '')}".rstrip()


def _cost(document: dict[str, Any]) -> Table:
    rows = []
    for run in document["runs"]:
        added = [
            f"{run['added_percent'][clock][name]:+.2f} ({run['added_percent'][clock][name + '_least']:+.2f} to "
            f"{run['added_percent'][clock][name + '_most']:+.2f})"
            for clock, name in (("cpu", "median"), ("cpu", "sums"), ("wall", "median"))
        ]
        rows.append(
            (run["what"], _length(run["like_seconds"]), str(run["rounds"]), *added, str(run.get("readings", "")))
        )
    return (
        "around the loop",
        "as in a run of",
        "rounds",
        "CPU time, median",
        "CPU time, sums",
        "wall, median",
        "readings",
    ), rows


def _length(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


def _matrix(matrix: dict[str, Any]) -> Table:
    rows = [
        (cell["fault"], cell["scenario"], cell["status"], f"{cell['seconds']:.1f} s", _cell(cell["reason"]))
        for cell in matrix["cells"]
    ]
    return ("fault", "scenario", "status", "after", "because"), rows


def _cell(text: str) -> str:
    shown = textwrap.shorten(text, 120, placeholder=" ...")
    return shown.replace("|", "\\|").replace("[", "\\[")


def _verdicts(document: dict[str, Any]) -> Table:
    rows = []
    for kind in ("clean", "leaking"):
        for name, outcomes in document[kind].items():
            counts = (str(outcomes.get(each, 0)) for each in ("PASS", "INCONCLUSIVE", "FAIL"))
            rows.append((f"{kind}: {name}", *counts))
    return ("series", "PASS", "INCONCLUSIVE", "FAIL"), rows


def _calibration(document: dict[str, Any]) -> str:
    parts = [
        f"{each['seen_share']:.0%} of leaks of {each['median_bytes']:g} bytes an iteration ({name})"
        for name, each in document["calibration"].items()
    ]
    return f"{document['runs_of_each']} series of each kind. Calibration: seen are {' and '.join(parts)}."


def _detectable(document: dict[str, Any]) -> Table:
    units = {"heap_bytes": "B", "python_blocks": "blocks", "resident_bytes": "B"}
    rows = []
    for run in document["recorded"]:
        sizes = (f"{run[name]['minimum_detectable']:.2g} {unit}" for name, unit in units.items())
        rows.append((f"{run['seconds']:.0f} s, {run['iterations']} iterations", *sizes))
    return ("burn-in", *(f"`{name}` an iteration" for name in units)), rows
