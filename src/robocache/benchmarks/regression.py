"""Did it get slower? Compares ratios (ours to a peer of the same run) of two results, never absolute times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robocache.errors import ArgumentError
from robocache.ops.backends import BACKENDS

TOLERANCE = 0.25


@dataclass(frozen=True)
class Comparison:
    """What two results say of each other.

    Args:
        worse: Rows that got worse by more than the tolerance, or that cannot be timed any more.
        notes: Rows that could not be compared, and why.
        compared: How many could.
    """

    worse: tuple[str, ...]
    notes: tuple[str, ...]
    compared: int


def compare(baseline: dict[str, Any], result: dict[str, Any], tolerance: float = TOLERANCE) -> Comparison:
    """Look for ratios that fell.

    Args:
        baseline: The earlier result.
        result: The later one.
        tolerance: 0.25 allows a ratio of 4 to become 3.

    Raises:
        ArgumentError: One is of a GPU and the other of a CPU, or they share no row.
    """
    if baseline["device"] != result["device"]:
        message = f"the baseline was measured on {baseline['device']}, the result on {result['device']}"
        raise ArgumentError(f"{message}; their ratios mean different things, so compare results of one kind")
    now = {_key(case): {one["name"]: one for one in case["results"]} for case in result["cases"]}
    worse: list[str] = []
    notes: list[str] = []
    compared = 0
    for case in baseline["cases"]:
        entries = now.get(_key(case))
        if entries is None:
            notes.append(f"{case['name']}: not part of the result")
            continue
        for before in case["results"]:
            if before["kind"] != "backend" or before["status"] != "measured":
                continue
            rows = _backend_rows(case["name"], before, entries, tolerance)
            worse += rows.worse
            notes += rows.notes
            compared += rows.compared
    bounds = {entry["operation"]: entry["within_bounds"] for entry in result["scaling"] or []}
    for entry in baseline["scaling"] or []:
        if entry["within_bounds"] and bounds.get(entry["operation"]) is False:
            worse.append(f"scaling of {entry['operation']}: time per byte was within bounds, and no longer is")
    if not compared and not worse:
        raise ArgumentError("the two results share no backend, peer and case, so nothing was compared")
    return Comparison(tuple(worse), tuple(notes), compared)


def _backend_rows(
    name: str, before: dict[str, Any], entries: dict[str, dict[str, Any]], tolerance: float
) -> Comparison:
    backend = before["name"]
    after = entries.get(backend)
    if after is None or after["status"] != "measured":
        status = "missing" if after is None else f"{after['status']}: {after.get('reason', '')}"
        return Comparison((f"{name}: {backend} was measured, and now is {status}",), (), 0)
    worse, notes = [], []
    # Not beside our other backends: one of them getting faster is no loss.
    peers = {name: ratio for name, ratio in before["ratios"].items() if name not in BACKENDS}
    for peer, earlier in peers.items():
        later = after["ratios"].get(peer)
        if later is None:
            notes.append(f"{name}: {backend} beside {peer}: {peer} was not measured")
        elif later < earlier * (1 - tolerance):
            worse.append(f"{name}: {backend} beside {peer}: {earlier:.2f}x became {later:.2f}x")
    return Comparison(tuple(worse), tuple(notes), len(peers) - len(notes))


def _key(case: dict[str, Any]) -> tuple[str, str | None]:
    return case["name"], case["scaled"]
