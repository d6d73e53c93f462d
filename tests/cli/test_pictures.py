"""What the report is drawn with: numbers that JSON lacks, pixels, ticks, lines."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import zlib

import numpy as np
import pytest

from robocache.cli.console import json_text
from robocache.cli.png import heat_map_uri
from robocache.cli.svg import Band, Series, _thinned, chart, nice_ticks, strip


def test_json_has_null_where_there_is_no_number():
    document = {"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": "NaN"}
    assert json.loads(json_text(document)) == {"a": None, "b": [None, 1.5, {"c": None}], "d": "NaN"}


def decoded(uri):
    """[rows, columns, 4] of an RGBA PNG without filters, by the words of its specification."""
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    columns, rows, *layout = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert layout == [8, 6, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, 1 + 4 * columns)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(rows, columns, 4)


def test_a_heat_map_is_one_pixel_a_value_and_stronger_for_more():
    values = np.array([[0, 1, 10], [100, 1000, 0]])
    pixels = decoded(heat_map_uri(values, (10, 20, 30)))
    assert (pixels[..., :3] == [10, 20, 30]).all()
    opacity = pixels[..., 3].astype(int)
    assert (opacity == 0).tolist() == (values == 0).tolist()
    assert opacity[1, 1] == 255
    assert 0 < opacity[0, 1] < opacity[0, 2] < opacity[1, 0] < opacity[1, 1]
    assert not decoded(heat_map_uri(np.zeros((2, 2)), (0, 0, 0)))[..., 3].any()


@pytest.mark.parametrize(("low", "high"), [(0, 20), (-1, 1), (0.401, 0.402), (-3e-7, 5e5), (197.3, 197.9)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 12
    assert low - 1e-9 * abs(low) <= ticks[0] < ticks[-1] <= high + 1e-9 * abs(high)
    step = ticks[1] - ticks[0]
    assert np.diff(ticks) == pytest.approx(step)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5, 10)


def points(svg):
    return [
        tuple(map(float, point.split()))
        for path in re.findall(r' d="([^"]+)"', svg)
        for point in re.split("[ML]", path)[1:]
    ]


def test_a_line_breaks_where_there_is_no_value_and_a_long_one_keeps_its_peaks():
    x = np.linspace(0, 10, 100_001)
    y = np.sin(x)
    y[50_123] = 5.0
    y[70_000:80_000] = np.nan
    drawn = chart("a", [Series(x, y)], x_range=(0, 10))
    assert drawn.count("M") == 2 + drawn.count("MINUS")
    assert len(points(drawn)) < 4000
    highest = min(points(drawn), key=lambda point: point[1])
    assert highest[0] == pytest.approx(52 + 0.5 * (720 - 62), abs=1.5)
    assert highest[1] < 10 + 0.1 * 158, "the peak is as high as the picture allows"
    left, right = 52 + 0.7 * 658 + 2, 52 + 0.8 * 658 - 2
    assert not [point for point in points(drawn) if left < point[0] < right]


def test_a_fault_of_one_frame_shows_in_a_long_strip():
    times = np.linspace(0, 100, 50_000)
    valid = np.ones(50_000, np.bool_)
    valid[25_000] = False
    drawn = strip("a", times, valid, x_range=(0, 100))
    assert re.findall('class="(valid|invalid)"', drawn) == ["valid", "invalid", "valid"]


def test_names_cannot_break_out_of_the_picture():
    drawn = chart('<script>"&', [Series(np.arange(2.0), np.arange(2.0))], x_range=(0, 1), bands=[Band(0, 1, "<b>")])
    assert "<script>" not in drawn
    assert "<b>" not in drawn


def test_a_long_line_keeps_the_first_and_the_extremes_of_each_column_of_pixels():
    """Judged by a plain loop with numpy's own argmin; fails when an extreme is missed or one of a gap is kept."""
    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(52, 710, 20_000))
    y = generator.integers(0, 9, x.size).astype(float)  # few values, so that extremes come twice
    y[generator.random(x.size) < 0.3] = np.nan
    y[(x > 100) & (x < 120)] = np.nan
    wanted = []
    for column in range(52, 711):
        places = np.flatnonzero(np.floor(x) == column)
        if len(places):
            wanted.append(places[0])
            if np.isfinite(y[places]).any():
                wanted += [places[np.nanargmin(y[places])], places[np.nanargmax(y[places])]]
    wanted = np.unique(wanted)
    thin_x, thin_y = _thinned(x, y)
    np.testing.assert_array_equal(thin_x, x[wanted])
    np.testing.assert_array_equal(thin_y, y[wanted])
    assert len(wanted) < 2000
