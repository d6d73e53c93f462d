"""Tables of a stored result: for the terminal, and as Markdown between markers in a document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from robocache.benchmarks.run import primary_us
from robocache.errors import ArgumentError

Row = tuple[str, ...]
NOTHING = "–"


def best_backend(case: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of the backend that `backend=None` would take, if it was timed.

    Args:
        case: One of a result's cases.
    """
    timed = [one for one in case["results"] if one["kind"] == "backend" and one["status"] == "measured"]
    return timed[0] if timed else None


def peer_names(document: dict[str, Any]) -> list[str]:
    """All that was timed anywhere beside the best backends, in the order of the result.

    Args:
        document: A result.
    """
    names: dict[str, None] = {}
    for case in document["cases"]:
        best = best_backend(case)
        for one in case["results"]:
            if one is not best and one["status"] in ("measured", "wrong", "failed"):
                names[one["name"]] = None
    return list(names)


def ratio_table(document: dict[str, Any]) -> tuple[Row, list[Row]]:
    """How many times as long each peer takes as the best backend: header and rows.

    Args:
        document: A result.
    """
    peers = peer_names(document)
    rows = []
    for case in document["cases"]:
        best = best_backend(case)
        entries = {one["name"]: one for one in case["results"]}
        cells = [_ratio_cell(best, entries.get(name)) for name in peers]
        rows.append((_case_name(case), best["name"] if best else "none is right", *cells))
    return ("case", "backend", *peers), rows


def time_table(document: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Times on a GPU in microseconds, share of the copy bandwidth, and the peers: header and rows.

    Args:
        document: A result of a GPU.
    """
    peers = peer_names(document)
    rows = []
    for case in document["cases"]:
        best = best_backend(case)
        entries = {one["name"]: one for one in case["results"]}
        times = best["times"] if best else {}
        own = [_micro(times.get(name)) for name in ("device_us", "cold_us")]
        host = [_micro(times.get(name)) for name in ("issue_us", "synced_us")]
        share = f"{best['share']:.0%}" if best else NOTHING
        cells = [_peer_cell(best, entries.get(name)) for name in peers]
        rows.append((_case_name(case), *own, _micro(case["floor_us"]), share, *host, *cells))
    header = ("case", "device", "cold L2", "floor", "of floor", "issue", "synced", *peers)
    return header, rows


def scaling_table(document: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Time per byte of output against its size: header and rows.

    Args:
        document: A result of a GPU.
    """
    entries = document["scaling"] or []
    sizes = sorted({point["wanted_bytes"] for entry in entries for point in entry["points"]})
    rows = []
    for entry in entries:
        costs = {point["wanted_bytes"]: point["ps_a_byte"] for point in entry["points"]}
        cells = [f"{costs[size]:.3f}" if size in costs else NOTHING for size in sizes]
        spread = f"{entry['spread']:.2f}" if entry["spread"] else NOTHING
        verdict = "yes" if entry["within_bounds"] else "NO"
        rows.append((entry["operation"], *cells, spread, verdict))
    return ("ps a byte", *map(_size, sizes), "largest / smallest", "within 1.5"), rows


def markdown(table: tuple[Row, list[Row]], caption: str) -> str:
    """A table and a line under it.

    Args:
        table: Header and rows.
        caption: On what, when and of what it was measured.
    """
    header, rows = table
    lines = [_line(header), "|---|" + "---:|" * (len(header) - 1), *map(_line, rows), "", caption]
    return "\n".join(lines)


def measured_on(trial: dict[str, Any]) -> str:
    """For a caption: the machine, what else it had to do, and the commit.

    Args:
        trial: As a script of `benchmarks/` stores it.
    """
    return f"{trial['machine']}; load {trial['load_average']:.1f}; commit {trial['commit'][:12]}"


def describe(document: dict[str, Any]) -> str:
    """On what, when and of what commit a result is.

    Args:
        document: A result.
    """
    machine, versions = document["machine"], document["versions"]
    where = machine["gpu"] if document["device"] == "cuda" else f"{machine['cpu']}, {machine['cores']} cores"
    commit = (document["commit"] or "unknown")[:12] + (", with uncommitted changes" if document["dirty"] else "")
    parts = [where, f"PyTorch {versions['torch']}"]
    if document["device"] == "cuda":
        parts += [f"Triton {versions['triton']}", f"copy {document['copy_bytes_per_s'] / 1e12:.2f} TB/s"]
        parts += [f"a launch {document['launch_us']:.1f} µs"]
    else:
        loads = f"{document['load_average'][0]:.1f} to {document['load_average_after'][0]:.1f}"
        parts += [f"{document['settings']['threads']} thread", f"load {loads}"]
    return f"{'; '.join(parts)}; {document['date'][:10]}, commit {commit}."


def inserted(text: str, blocks: dict[str, str], where: str) -> str:
    """A document with each block between `<!-- bench:NAME -->` and `<!-- /bench -->`, where it has those markers.

    Args:
        text: The document.
        blocks: Markdown by name.
        where: The document's name, for the error.

    Raises:
        ArgumentError: A marker that is never closed, or whose name nobody knows.
    """
    pattern = re.compile(r"<!-- bench:([\w-]+) -->\n(?:(?!<!-- bench:).*\n)*?<!-- /bench -->")
    opened = re.findall(r"<!-- bench:([\w-]+) -->", text)
    closed = [match[1] for match in pattern.finditer(text)]
    if opened != closed:
        raise ArgumentError(f"{where}: markers of {opened} begin, but only {closed} end with <!-- /bench -->")
    unknown = sorted(set(opened) - set(KNOWN_BLOCKS))
    if unknown:
        raise ArgumentError(f"{where}: no table is called {unknown[0]!r}; there are {', '.join(KNOWN_BLOCKS)}")

    def fill(match: re.Match[str]) -> str:
        block = blocks.get(match[1])
        return match[0] if block is None else f"<!-- bench:{match[1]} -->\n{block}\n<!-- /bench -->"

    return pattern.sub(fill, text)


KNOWN_BLOCKS = (
    "gpu",
    "cpu",
    "scaling",
    "shapes",
    "features",
    "points",
    "launch",
    "kill",
    "verdicts",
    "detectable",
    "cost",
    "end_to_end",
    "native",
    "loader",
    "windows",
    "mcap",
    "voxel_grid",
    "soak",
    "goals",
    "orders",
    "host_goals",
    "kill_gpu",
)


def blocks(document: dict[str, Any]) -> dict[str, str]:
    """The Markdown blocks that a result fills, by name.

    Args:
        document: A result.
    """
    if document["device"] == "cpu":
        return {"cpu": markdown(ratio_table(document), describe(document))}
    found = {"gpu": markdown(time_table(document), f"Microseconds. {describe(document)}")}
    if document["scaling"]:
        found["scaling"] = markdown(scaling_table(document), describe(document))
    return found


def _case_name(case: dict[str, Any]) -> str:
    return f"{case['name']} ({case['scaled']})" if case["scaled"] else str(case["name"])


def _ratio_cell(best: dict[str, Any] | None, entry: dict[str, Any] | None) -> str:
    if entry is None or entry is best:
        return NOTHING
    if entry["status"] != "measured" or best is None:
        return entry["status"] if entry["status"] in ("wrong", "failed") else NOTHING
    return times_as_long(best["ratios"][entry["name"]])


def _peer_cell(best: dict[str, Any] | None, entry: dict[str, Any] | None) -> str:
    cell = _ratio_cell(best, entry)
    if entry is None or entry["status"] != "measured":
        return cell
    return f"{_micro(primary_us(entry['times']))} ({cell})"


def times_as_long(ratio: float) -> str:
    """Such as "3.5x".

    Args:
        ratio: Theirs to ours.
    """
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.3g}x"


def _micro(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 30} GB" if size_bytes >= 1 << 30 else f"{size_bytes >> 20} MB"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
