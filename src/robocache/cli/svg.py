"""Charts as SVG text: self-contained, styled by the page's CSS, readable by a screen reader."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robocache.cli.png import heat_map_uri
from robocache.cli.svg_numbers import tenths

Numbers = npt.NDArray[Any]
Range = tuple[float, float]
_Across = tuple[slice | npt.NDArray[np.bool_], npt.NDArray[np.float64]]  # which points of a series, and their pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 22
HEAT_RGB = (47, 111, 235)


@dataclass(frozen=True)
class Series:
    """One line, or one set of dots, of a chart.

    Args:
        x: [points].
        y: [points]; NaN breaks the line.
        color: Which of the page's series colours, from 0.
        style: "line", "faded" (dashed and pale), "dots" or "rings".
    """

    x: Numbers
    y: Numbers
    color: int = 0
    style: Literal["line", "faded", "dots", "rings"] = "line"


@dataclass(frozen=True)
class Band:
    """A shaded stretch of the x axis, with a tooltip."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class _Frame:
    """Where data lies in the picture."""

    x_range: Range
    y_range: Range
    width: int
    height: int

    def x(self, values: Numbers | float) -> npt.NDArray[np.float64]:
        low, high = self.x_range
        return LEFT + (np.asarray(values, np.float64) - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, values: Numbers | float) -> npt.NDArray[np.float64]:
        low, high = self.y_range
        return (
            self.height - BOTTOM - (np.asarray(values, np.float64) - low) / (high - low) * (self.height - TOP - BOTTOM)
        )


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_range: Range,
    bands: Iterable[Band] = (),
    size: tuple[int, int] = (720, 190),
    y_zero: bool = False,
) -> str:
    """A chart of lines and dots over time.

    Args:
        title: What a screen reader says.
        series: Drawn in this order.
        x_range: What the x axis spans.
        bands: Shaded behind the data.
        size: Width and height.
        y_zero: Start the y axis at 0.
    """
    frame = _Frame(_widened(x_range), _y_range(series, x_range, y_zero=y_zero), *size)
    parts = [_band(band, frame) for band in bands]
    parts += _axes(frame)
    across: dict[int, _Across] = {}  # lines of one chart mostly share their times
    for one in series:
        if id(one.x) not in across:
            inside = _inside(one.x, frame.x_range)
            across[id(one.x)] = (inside, frame.x(one.x[inside]))
        parts.append(_draw(one, frame, across[id(one.x)]))
    return _svg(title, size, parts)


def strip(title: str, times: Numbers, valid: npt.NDArray[np.bool_], *, x_range: Range, width: int = 720) -> str:
    """A thin timeline: where `valid` is true it is green, where false red."""
    height = 16
    frame = _Frame(_widened(x_range), (0.0, 1.0), width, height)
    columns = np.clip(np.rint(frame.x(times)).astype(np.int64), 0, width)
    # A column of pixels is red if any of its frames is: a short fault must not drown.
    worst = np.ones(width + 1, np.bool_)
    np.logical_and.at(worst, columns, valid)
    first, last = (int(columns.min()), int(columns.max())) if len(columns) else (0, 0)
    edges = np.flatnonzero(np.diff(worst[first : last + 1].astype(np.int8))) + first + 1
    starts, ends = [first, *edges.tolist()], [*edges.tolist(), last + 1]
    parts = []
    for start, end in zip(starts, ends, strict=True):
        name = "valid" if worst[start] else "invalid"
        parts.append(f'<rect class="{name}" x="{start}" y="3" width="{end - start}" height="10"/>')
    return _svg(title, (width, height), parts)


def heat_map(title: str, counts: Numbers, *, x_range: Range, y_range: Range) -> str:
    """Counts [X, Y] seen from above or from the side, in metres.

    Args:
        title: What a screen reader says.
        counts: [X, Y], 0 or more; drawn on a logarithmic scale.
        x_range: Metres that the first axis spans, to the right.
        y_range: Metres that the second axis spans, upwards.
    """
    width = 400
    scale = (width - LEFT - RIGHT) / (x_range[1] - x_range[0])
    height = min(max(round((y_range[1] - y_range[0]) * scale), 40) + TOP + BOTTOM, 700)
    frame = _Frame(x_range, y_range, width, height)
    uri = heat_map_uri(counts.T[::-1], HEAT_RGB)
    place = f'x="{LEFT}" y="{TOP}" width="{width - LEFT - RIGHT}" height="{height - TOP - BOTTOM}"'
    image = f'<image class="heat" {place} preserveAspectRatio="none" href="{uri}"/>'
    return _svg(title, (width, height), [*_axes(frame), image])


def nice_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers between low and high, about `wanted` of them."""
    step = (high - low) / max(wanted, 1)
    magnitude = 10.0 ** math.floor(math.log10(step))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= step * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _svg(title: str, size: tuple[int, int], parts: Iterable[str]) -> str:
    width, height = size
    body = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>{body}</svg>'


def _axes(frame: _Frame) -> list[str]:
    left, right, bottom = LEFT, frame.width - RIGHT, frame.height - BOTTOM
    parts = []
    for value in nice_ticks(*frame.y_range, max(2, (frame.height - TOP - BOTTOM) // 30)):
        y = f"{float(frame.y(value)):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y}" dy="4" text-anchor="end">{_label(value)}</text>')
    for value in nice_ticks(*frame.x_range, max(2, (right - left) // 80)):
        x = f"{float(frame.x(value)):.1f}"
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{_label(value)}</text>')
    parts.append(f'<line class="base" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    return parts


def _band(band: Band, frame: _Frame) -> str:
    start, end = (float(np.clip(frame.x(value), LEFT, frame.width - RIGHT)) for value in (band.start, band.end))
    size = f'x="{start:.1f}" y="{TOP}" width="{max(end - start, 1.5):.1f}" height="{frame.height - TOP - BOTTOM}"'
    return f'<rect class="gap" {size}><title>{escape(band.label)}</title></rect>'


def _inside(x: Numbers, limits: Range) -> slice | npt.NDArray[np.bool_]:
    inside = (x >= limits[0]) & (x <= limits[1])
    return slice(None) if inside.all() else inside


def _draw(series: Series, frame: _Frame, across: _Across) -> str:
    inside, x = across
    y = frame.y(series.y[inside])
    color = f"s{series.color}"
    if series.style in ("dots", "rings"):
        radius = 2.2 if series.style == "dots" else 3
        is_there = np.isfinite(y)
        return "".join(
            f'<circle class="{series.style} {color}" cx="{cx}" cy="{cy}" r="{radius}"/>'
            for cx, cy in zip(tenths(x[is_there]), tenths(y[is_there]), strict=True)
        )
    path = _path(*_thinned(x, y))
    return f'<path class="{series.style} {color}" d="{path}"/>' if path else ""


def _path(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> str:
    """Lines between the points that follow each other, broken where y is no number."""
    places = np.flatnonzero(np.isfinite(y))
    points = list(map(" ".join, zip(tenths(x[places]), tenths(y[places]), strict=True)))
    starts = [0, *(np.flatnonzero(np.diff(places) > 1) + 1).tolist(), len(points)]
    pieces = ("L".join(points[start:end]) for start, end in itertools.pairwise(starts))
    return "".join(f"M{piece}" for piece in pieces if piece)


def _thinned(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Keep the extremes of each column of pixels: looks the same, and a long recording stays a small page."""
    columns = np.floor(x).astype(np.int64)
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    if len(x) <= 4 * len(starts):
        return x, y
    counts = np.diff(starts, append=len(x))
    is_kept = np.zeros(len(x), np.bool_)
    is_kept[starts] = True
    is_there = np.isfinite(y)
    for extreme, missing in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        filled = np.where(is_there, y, missing)
        is_extreme = is_there & (filled == np.repeat(extreme.reduceat(filled, starts), counts))
        places = np.flatnonzero(is_extreme)
        is_kept[places[np.flatnonzero(np.diff(columns[places], prepend=-1))]] = True  # the first of each column
    return x[is_kept], y[is_kept]


def _y_range(series: Sequence[Series], x_range: Range, *, y_zero: bool) -> Range:
    shown = [one.y[_inside(one.x, x_range)].astype(np.float64, copy=False) for one in series]
    values = np.concatenate([*shown, np.zeros(1)] if y_zero else [*shown, np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if y_zero and low >= 0 else low - room, high + room)


def _widened(limits: Range) -> Range:
    return limits if limits[1] > limits[0] else (limits[0] - 0.5, limits[1] + 0.5)


def _label(value: float) -> str:
    text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"
    return "0" if text in ("-0", "0") or abs(value) < 1e-12 else text.replace("-", "\N{MINUS SIGN}")
