"""A chart of a stored result as a stand-alone SVG: size against time, both logarithmic, with the floor as a line.

It carries its own colours for light and dark pages, so that it can stand in a README as a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from robocache.benchmarks.run import primary_us
from robocache.benchmarks.tables import best_backend

WIDTH, HEIGHT = 760, 450
LEFT, RIGHT, TOP, BOTTOM = 72, 18, 80, 48
OURS, FLOOR = "RoboCache", "floor"
STYLE = """svg{color-scheme:light dark}text{font:12px system-ui,sans-serif;fill:#57606a}
.title{font-size:15px;fill:#1b1f24}
.page{fill:#fff}.grid{stroke:#e8ebef}.base{stroke:#b6bfc9}.floor{stroke:#57606a;stroke-dasharray:5 4;stroke-width:1.5}
.p0{fill:#2f6feb}.p1{fill:#c2410c}.p2{fill:#0f766e}.p3{fill:#a21caf}.p4{fill:#a16207}.p5{fill:#64748b}.p6{fill:#be123c}
.p7{fill:#15803d}.p8{fill:#334155}
@media(prefers-color-scheme:dark){text{fill:#9aa5b1}.title{fill:#e6eaef}.page{fill:#0f1318}.grid{stroke:#232a33}
.base{stroke:#46515e}.floor{stroke:#9aa5b1}.p0{fill:#79b0ff}.p1{fill:#ff9d6c}.p2{fill:#5bd5c4}.p3{fill:#e29bf0}
.p4{fill:#e3b341}.p5{fill:#a3b1c2}.p6{fill:#ff8fa3}.p7{fill:#6fdd8b}.p8{fill:#e2e8f0}}"""
# Shapes as well as colours, for readers who do not tell the colours apart.
SHAPES = (
    "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",
    "M-5-5H5V5H-5Z",
    "M0-6L6 5H-6Z",
    "M0-6L6 0L0 6L-6 0Z",
    "M-6-5H6L0 6Z",
    "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "M-6-3H6V3H-6Z",
    "M-3-6H3V6H-3Z",
    "M-6-4L-4-6L0-2L4-6L6-4L2 0L6 4L4 6L0 2L-4 6L-6 4L-2 0Z",
)


@dataclass(frozen=True)
class Dot:
    """One measured case of one candidate.

    Args:
        name: Of the candidate.
        case: What a tooltip says.
        x: Bytes that must move.
        y: Microseconds, or multiples of the floor.
    """

    name: str
    case: str
    x: float
    y: float


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from a low to a high number on a stretch of pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def decades(self) -> list[float]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**power for power in range(first, last + 1)]


def chart(document: dict[str, Any]) -> str:
    """The chart of a result.

    On a GPU the vertical axis is device time. On a CPU, whose absolute times say little, it is time over the time that
    copying as many bytes takes.

    Args:
        document: A result with at least one timed case.
    """
    is_gpu = document["device"] == "cuda"
    dots = dots_of(document)
    names = list(dict.fromkeys(dot.name for dot in dots))
    floors = [(case["needed_bytes"], case["floor_us"] if is_gpu else 1.0) for case in document["cases"]]
    x_axis = _axis([dot.x for dot in dots], LEFT, WIDTH - RIGHT)
    y_axis = _axis([dot.y for dot in dots] + [floor for _, floor in floors], HEIGHT - BOTTOM, TOP)
    what = "device time" if is_gpu else "time over copying the same bytes"
    where = document["machine"]["gpu"] if is_gpu else f"{document['machine']['cpu']}, one thread"
    title = f"Size against {what}: {where}"
    parts = [
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
        *_legend(names),
        *_grid(x_axis, y_axis, is_gpu=is_gpu),
        _floor(document, x_axis, y_axis),
        *(_dot(dot, names.index(dot.name), x_axis, y_axis) for dot in reversed(dots)),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{head}<title>{escape(title)}</title><style>{STYLE}</style>{''.join(parts)}</svg>\n"


def dots_of(document: dict[str, Any]) -> list[Dot]:
    """The dots, ours first.

    Args:
        document: A result.
    """
    is_gpu = document["device"] == "cuda"
    ours: list[Dot] = []
    others: list[Dot] = []
    for case in document["cases"]:
        best, unit = best_backend(case), 1.0 if is_gpu else case["floor_us"]
        for one in case["results"]:
            # A library on the CPU has no device time to stand beside ours.
            if one["status"] != "measured" or (is_gpu and "device_us" not in one["times"]):
                continue
            is_best = one is best
            name = OURS if is_best else f"{one['name']} backend" if one["kind"] == "backend" else one["name"]
            dot = Dot(name, case["name"], case["needed_bytes"], primary_us(one["times"]) / unit)
            (ours if is_best else others).append(dot)
    return ours + others


def _axis(values: Iterable[float], start: float, end: float) -> _Axis:
    known = list(values)
    return _Axis(min(known) / 1.5, max(known) * 1.5, start, end)


def _legend(names: list[str]) -> list[str]:
    parts, x, y = [], LEFT + 6, 44
    for index, name in enumerate([*names, FLOOR]):
        width = 30 + 7 * len(name)
        if x + width > WIDTH - RIGHT:
            x, y = LEFT + 6, y + 20
        if name == FLOOR:
            parts.append(f'<line class="floor" x1="{x - 6}" x2="{x + 6}" y1="{y}" y2="{y}"/>')
        else:
            parts.append(_mark(index, x, y, name))
        parts.append(f'<text x="{x + 11}" y="{y + 4}">{escape(name)}</text>')
        x += width
    return parts


def _grid(x_axis: _Axis, y_axis: _Axis, *, is_gpu: bool) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<line class="base" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for value in y_axis.decades():
        y = f"{y_axis.at(value):.1f}"
        label = _microseconds(value) if is_gpu else f"{value:g}x"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{label}</text>')
    for value in x_axis.decades():
        x = f"{x_axis.at(value):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_bytes(value)}</text>')
    middle = (LEFT + right) // 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">bytes that must move, each once</text>')
    return parts


def _floor(document: dict[str, Any], x_axis: _Axis, y_axis: _Axis) -> str:
    """On a GPU the time of a launch, then of copying so many bytes; on a CPU copying is the unit."""
    if document["device"] != "cuda":
        points = [(x_axis.low, 1.0), (x_axis.high, 1.0)]
    else:
        launch_us, bytes_a_us = document["launch_us"], document["copy_bytes_per_s"] / 1e6
        bend = min(max(launch_us * bytes_a_us, x_axis.low), x_axis.high)
        points = [(x, max(launch_us, x / bytes_a_us)) for x in (x_axis.low, bend, x_axis.high)]
    path = "L".join(f"{x_axis.at(x):.1f} {y_axis.at(y):.1f}" for x, y in points)
    return f'<path class="floor" fill="none" d="M{path}"><title>{FLOOR}</title></path>'


def _dot(dot: Dot, index: int, x_axis: _Axis, y_axis: _Axis) -> str:
    return _mark(index, x_axis.at(dot.x), y_axis.at(dot.y), f"{dot.name}, {dot.case}: {dot.y:.3g}")


def _mark(index: int, x: float, y: float, label: str) -> str:
    style = index % len(SHAPES)
    place = f'class="p{style}" transform="translate({x:.1f} {y:.1f})"'
    return f'<path {place} d="{SHAPES[style]}"><title>{escape(label)}</title></path>'


def _microseconds(value: float) -> str:
    return f"{value:g} µs" if value < 1e3 else f"{value / 1e3:g} ms" if value < 1e6 else f"{value / 1e6:g} s"


def _bytes(value: float) -> str:
    power = min(int(math.log10(value) // 3), 4)
    return f"{value / 1000.0**power:g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
