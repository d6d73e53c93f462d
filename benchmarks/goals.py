"""Tables of what the GPU kernels and their launches were to reach, beside what they did, from the stored JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robocache.benchmarks.tables import NOTHING, markdown

OPS, ORDERS, LAUNCH = "ops_nvidia-h200.json", "orders_h200.json", "launch_h200.json"
# Microseconds of device time, warm L2, on an H200.
GOALS_US = {
    "fuse_30x512_100x64_200x12_to_50_b4": 3.5,
    "fuse_30x512_100x64_200x12_to_50_b256": 8.5,
    "fuse_30x512_100x64_200x12_to_50_b2048": 58,
    "resample_32x500x256_to_250": 3.5,
    "resample_256x500x256_to_250": 25,
    "resample_64x4096x32_to_1024": 4.5,
    "resample_1024x1000x64_to_500": 48,
    "occupancy_500k_to_128": 6,
    "count_500k_to_128": 6,
    "occupancy_10M_to_128": 32,
    "mean_1M_x8_to_256": 165,
    "max_1M_x8_to_256": 165,
}
# Of the host, where `torch.empty` takes EMPTY_US: half of what it takes on the machine that was measured.
EMPTY_US = 3.0
EMPTY = "for comparison torch.empty"
HOST_GOALS_US = {
    "fuse_multimodal": 10,
    "resample_trajectories": 10,
    "voxelize_pointcloud, occupancy": 10,
    "FusionPlan": 4,
    "fuse_multimodal, and the wait for it": 20,
}
Rows = list[tuple[str, ...]]


def blocks(results: Path) -> dict[str, str]:
    """The Markdown blocks by name; none for what is not stored."""
    found = {}
    stored = {name: json.loads((results / name).read_text("utf-8")) for name in _there(results)}
    if OPS in stored:
        ops, orders = stored[OPS], stored.get(ORDERS)
        found["goals"] = markdown(_device(ops, orders), f"Microseconds of device time; commit {ops['commit'][:12]}.")
    if ORDERS in stored:
        orders = stored[ORDERS]
        found["orders"] = markdown(
            _clouds(orders), f"Microseconds. {orders['machine']}; commit {orders['commit'][:12]}."
        )
    if LAUNCH in stored:
        launch = stored[LAUNCH]
        found["host_goals"] = markdown(_host(launch), f"{launch['machine']}; commit {launch['commit'][:12]}.")
    return found


def _there(results: Path) -> list[str]:
    return [name for name in (OPS, ORDERS, LAUNCH) if (results / name).is_file()]


def _device(ops: dict[str, Any], orders: dict[str, Any] | None) -> tuple[tuple[str, ...], Rows]:
    easier = _easier(orders) if orders else {}
    rows = []
    for case in ops["cases"]:
        name = case["name"]
        took = next(one["times"]["device_us"] for one in case["results"] if one["name"] == "cuda")
        reached = "reached" if took <= GOALS_US[name] else f"{took / GOALS_US[name]:.2f} times"
        rows.append((name, f"{GOALS_US[name]:g}", f"{took:.1f}", reached, easier.get(name, NOTHING)))
    return ("case", "goal", "took", "", "targets ascending, or a tenth of the points inside"), rows


def _easier(orders: dict[str, Any]) -> dict[str, str]:
    found = {}
    for row in orders["targets"]:
        for operation in ("fuse", "resample"):
            found[f"{operation}_{row['case']}"] = f"{row['ascending_us']:.1f}"
    for row in orders["points"]:
        if row["kind"] == "at random, a tenth inside":
            size = {500_000: "500k", 10_000_000: "10M"}.get(row["points"])
            found |= {f"{mode}_{size}_to_128": f"{row[f'{mode}_us']:.1f}" for mode in ("occupancy", "count")}
    return found


def _clouds(orders: dict[str, Any]) -> tuple[tuple[str, ...], Rows]:
    rows = []
    for row in orders["points"]:
        times = (row.get(f"{name}_us") for name in ("occupancy", "count", "looking_first", "programs_find_out"))
        cells = (NOTHING if each is None else f"{each:.1f}" for each in times)
        rows.append((f"{row['points']:,} points {row['kind']}", f"{row['occupied']:,}", *cells))
    header = ("to 128^3", "voxels taken", "occupancy", "count", "tried: a look first", "tried: programs find out")
    return header, rows


def _host(launch: dict[str, Any]) -> tuple[tuple[str, ...], Rows]:
    empty = launch["host_us"][EMPTY][0]
    rows = []
    for name, goal in HOST_GOALS_US.items():
        took = launch["host_us"][name][0]
        ours, wanted = took / empty, goal / EMPTY_US
        verdict = "reached" if ours <= wanted else "missed"
        rows.append((name, f"{goal}", f"{took:.1f}", f"{ours:.1f} for {wanted:.1f}: {verdict}"))
    header = (
        "the host's time a call",
        f"goal, where torch.empty takes {EMPTY_US:g}",
        f"took, where it takes {empty:.1f}",
    )
    return (*header, "in torch.empty"), rows
