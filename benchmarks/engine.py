"""Tables of the data engine's own measurements, from their JSON in benchmarks/results/: loader, windows, MCAP, soak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robocache.benchmarks.tables import markdown, measured_on

MEGA = 1e6


def blocks(results: Path) -> dict[str, str]:
    """The Markdown blocks by name; none for a measurement that is not stored."""
    made: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "loader": ("loader_amd-epyc-2-cores.json", _loader),
        "windows": ("windows_h200.json", _windows),
        "mcap": ("mcap_husky_cpu.json", _mcap),
        "voxel_grid": ("voxels_h200.json", _voxel_grid),
        "soak": ("soak_g1_cpu.json", _soak),
    }
    return {
        block: render(json.loads((results / name).read_text("utf-8")))
        for block, (name, render) in made.items()
        if (results / name).is_file()
    }


def _loader(result: dict[str, Any]) -> str:
    rows = []
    for case in result["cases"]:
        goal = "" if case["goal"] is None else f"{case['goal']:.0f}x"
        if case["goal"] is not None and case["ratio"] < case["goal"]:
            goal += ", missed"
        peak = f"{case['robocache_peak_bytes'] / MEGA:.0f} / {case['lerobot_peak_bytes'] / MEGA:.0f} MB"
        rows.append((case["name"], f"{case['ratio']:.{1 if case['ratio'] < 10 else 0}f}x", goal, peak))
    header = (f"{result['dataset']['frames']} frames", "LeRobot takes", "goal", "peak memory, ours / LeRobot's")
    settings = result["settings"]
    caption = (
        f"{result['machine']['cpu']}, {result['machine']['cores']} cores; load {result['load_average'][0]:.1f}; "
        f"medians of {settings['repetitions']} runs in turn; {result['date'][:10]}, commit {result['commit'][:12]}."
    )
    return markdown((header, rows), caption)


def _windows(result: dict[str, Any]) -> str:
    rows = []
    for run in result["runs"]:
        for side in ("robocache", "pytorch"):
            took = run[side]
            name = "RoboCache, with times, ages and validity" if side == "robocache" else "PyTorch, columns alone"
            speed = f"{took['windows_per_s'] / MEGA:.0f}"
            rows.append(
                (f"{name}, {run['dtype']}", speed, f"{took['device_us']:.1f}", f"{took['device_over_floor']:.1f}x")
            )
    header = ("", "million windows a second", "device, us a batch", "over reading and writing its bytes once")
    caption = (
        f"{result['what'].capitalize()}; {result['machine']['gpu']}; {result['date']}, commit {result['commit'][:12]}."
    )
    return markdown((header, rows), caption)


def _mcap(result: dict[str, Any]) -> str:
    names = {"ours": "RoboCache, to numpy streams", "peer": "mcap-ros2-support, to one object a message"}
    rows = [(text, f"{result['messages_per_s'][name] / 1e3:.0f} thousand") for name, text in names.items()]
    caption = (
        f"{result['recording']}, {result['messages']} messages, {result['rounds']} rounds in turn: "
        f"{result['ratio_of_medians']:.1f}x; {measured_on(result)}."
    )
    return markdown((("", "messages a second"), rows), caption)


def _voxel_grid(result: dict[str, Any]) -> str:
    measured = {name: pair for name, pair in result["voxel_grid_us"].items() if name != "what"}
    rows = [(name, f"{fresh:.1f}", f"{kept:.1f}") for name, (fresh, kept) in measured.items()]
    return markdown((("", "`voxelize_pointcloud`", "`VoxelGrid`"), rows), f"Microseconds. {result['machine']}.")


def _soak(result: dict[str, Any]) -> str:
    rows = []
    for each in result["verdicts"]:
        gained = f"{each['per_iteration']:.2f}".replace("-0.00", "0.00")
        rows.append((f"`{each['counter']}`", each["outcome"], gained, each["why"]))
    measured = result["measured"]
    caption = (
        f"{result['outcome']} after {result['iterations']} batches, {measured['epochs']} epochs and "
        f"{result['seconds'] / 60:.0f} minutes; {measured['batches_compared']} batches compared with their episodes, "
        f"{measured['episodes_aligned_anew']} episodes aligned anew; commit {result['run']['commit'][:12]}."
    )
    return markdown((("counter", "verdict", "gained a batch", "why"), rows), caption)
