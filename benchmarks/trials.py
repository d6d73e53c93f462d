"""Tables of what was tried besides the benchmark itself, from their JSON in benchmarks/results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import native
from robocache.benchmarks.tables import markdown, measured_on

SHAPES, VOXELS, LAUNCH = "kernel_shapes_h200.json", "voxels_h200.json", "launch_h200.json"
END_TO_END, NATIVE = "end_to_end_cpu.json", "native_cpu.json"


def blocks(results: Path) -> dict[str, str]:
    """The Markdown blocks that the stored trials fill, by name; none for a trial that is not stored."""
    made = {"shapes": (SHAPES, _shapes), "features": (VOXELS, _features), "points": (VOXELS, _points)}
    made["launch"] = (LAUNCH, _launch)
    found = {}
    for block, (name, table) in made.items():
        if (results / name).is_file():
            trial = json.loads((results / name).read_text("utf-8"))
            commit = trial.get(f"{block}_commit", trial["commit"])
            caption = f"Microseconds. {trial['machine']}; commit {commit[:12]}."
            found[block] = markdown(table(trial), caption)
    if (results / END_TO_END).is_file():
        found["end_to_end"] = _end_to_end(json.loads((results / END_TO_END).read_text("utf-8")))
    if (results / NATIVE).is_file():
        trial = json.loads((results / NATIVE).read_text("utf-8"))
        found["native"] = markdown(native.table(trial), f"{measured_on(trial)}.")
    return found


def _end_to_end(trial: dict[str, Any]) -> str:
    names = {"ours": "the same steps", "commands": "`inspect`, then `align` with its report"}
    rows = [(text, f"{trial['ratio_of_medians'][name]:.1f}x") for name, text in names.items()]
    caption = f"{trial['recording']} at {trial['rate_hz']} Hz, {trial['rounds']} rounds; {measured_on(trial)}."
    return markdown((("RoboCache", "times as fast as the plain loop"), rows), caption)


def _shapes(trial: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    cases = [row["case"] for row in trial["rows"]]
    rows = [(name, *(f"{times[case]:.1f}" for case in cases)) for name, times in trial["variants"].items()]
    return ("variant, each at its best sizes", *cases), rows


def _features(trial: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = [("zeros alone", "", f"{trial['zeros_alone_us']:.0f}", "")]
    for run in trial["features"]:
        name = f"{run['cloud']}, {run['points']} points"
        rows.append((name, run["mode"], f"{run['atomics_us']:.0f}", f"{run['tiles_us']['w4']:.0f}"))
    return ("8 features to 256^3", "mode", "zeros and atomics", "tiles"), rows


def _points(trial: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    fields = ("before_us", "overlapping_zeros_us", "and_atomics_without_result_us")
    rows = [
        (f"{run['mode']}, {run['points']} points", *(f"{run[field]:.1f}" for field in fields))
        for run in trial["points"]
    ]
    return ("to 128^3", "one after the other", "zeros overlap", "and atomics"), rows


def _launch(trial: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = [(name, f"{quick:.1f}", f"{slow:.1f}") for name, (quick, slow) in trial["host_us"].items()]
    return ("the host's time a call", "in C", "in Python"), rows
