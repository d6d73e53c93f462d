"""Numbers of charts as text: what Python's own formatting writes."""

import re

import numpy as np
import pytest

from robocache.cli.svg import Series, chart
from robocache.cli.svg_numbers import tenths

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "numbers",
    [
        RANDOM.uniform(0, 1999, 100_000),
        np.arange(0, 40_000) / 20,  # every second one lies between two tenths, as nearly as a float can
        np.nextafter(np.arange(0, 40_000) / 20, 0),
        np.nextafter(np.arange(0, 40_000) / 20, 2000),
        np.array([0.04, -0.04, 5.0]),
        np.array([1999.99, 2500.05, 1e9]),
        np.empty(0),
    ],
    ids=["random", "ties", "below ties", "above ties", "negative", "large", "none"],
)
def test_tenths_are_what_python_writes(numbers):
    """Fails when a tie is decided by the product, which rounds it to the other side (0.15 * 10 is 1.5)."""
    assert tenths(numbers) == [f"{number:.1f}" for number in numbers.tolist()]


def test_a_line_is_drawn_as_point_by_point():
    """Judged by a plain loop over the points; fails when a break of the line is lost or a lone point is dropped."""
    x, y = np.arange(200.0), RANDOM.normal(size=200)
    y[[0, 50, 51, 99, 101, 199]] = np.nan
    drawn = re.findall(r' d="([^"]+)"', chart("a", [Series(x, y)], x_range=(0, 199)))
    pieces = [piece.count("L") + 1 for piece in drawn[0].split("M")[1:]]
    expected, length = [], 0
    for value in [*y.tolist(), float("nan")]:
        if np.isfinite(value):
            length += 1
        elif length:
            expected, length = [*expected, length], 0
    assert pieces == expected
    assert len(pieces) == 4
