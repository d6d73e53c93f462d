"""Statistics of counters that should stay level: where warm-up ends, how fast they rise, whether that flattens.

Counters have one-sided noise (temporary allocations that a reading happens to see), so everything works on the lowest
level of each of many windows; growth is a median of slopes, which a few odd windows do not move.

Sources: H. B. Mann 1945 and M. G. Kendall 1975 (rank test of trend, with the correction for ties); P. K. Sen 1968
(median of pairwise slopes and its confidence interval); K. H. Hamed and A. R. Rao 1998 (the same for neighbours that
resemble each other); K. P. White 1997 (MSER: the warm-up to cut is the one that leaves the surest estimate).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from robocache.stress.series import Floats

WINDOWS = 16
MOST_WINDOWS = 40
_READINGS_PER_WINDOW = 8
_FINE_WINDOWS = 64  # in which the end of the warm-up is looked for
_MOST_WARM_UP = 0.5  # of the readings: what settles later than this has not settled
_CLEARLY_BETTER = 0.5
_QUANTILE = 2.5758293035489004  # of the normal distribution, for 99 % confidence in both directions
_SETTLED_CURVE = 3.0  # standard errors of the curvature, beyond which it is there
_SETTLING = 0.6  # a last slope below this share of the first is on its way to a standstill
_STEP = 0.7  # one window that brings more than this share of all growth is a step, not a slope
_TWO_STEPS = 0.9  # the same of two


@dataclass(frozen=True)
class Trend:
    """A slope and how sure it is.

    Args:
        slope: Median of all pairwise slopes.
        lower: Lower end of its 99 % confidence interval.
        upper: Upper end.
        p_value: How likely a series without trend would rise or fall as much (two-sided).
    """

    slope: float
    lower: float
    upper: float
    p_value: float


@dataclass(frozen=True)
class Levels:
    """The quiescent levels of a run after its warm-up.

    Args:
        times: [level] where they lie.
        values: [level] the lowest count of each window.
        warm_up: How many readings were cut from the start.
    """

    times: Floats
    values: Floats
    warm_up: int


def quiescent_levels(times: Floats, counts: Floats) -> Levels:
    """The lowest count of each of 16 to 40 windows, after a warm-up that is found: none, or up to half of the readings.

    Args:
        times: [reading], ascending.
        counts: [reading].
    """
    start = settled_from(times, counts)
    return replace(lowest_levels(times[start:], counts[start:]), warm_up=start)


def settled_from(times: Floats, counts: Floats) -> int:
    """The reading with which the warm-up ends: what comes after it lies closest to one straight line.

    White's MSER, of a line instead of a mean, so that a leak is no warm-up: of all cuts the one with the least squared
    error for the square of the number of readings left.

    Args:
        times: [reading], ascending.
        counts: [reading].
    """
    windows = min(_FINE_WINDOWS, len(counts))
    x, y = _lowest(times, counts, windows)
    x, y = (x - x[0]) / max(x[-1] - x[0], 1e-300), y - y.min()
    tolerance = (1e-6 * max(float(y.max()), 1.0)) ** 2 * windows
    most = int(_MOST_WARM_UP * windows)
    scores = [(_squared_error(x[cut:], y[cut:]) + tolerance) / (windows - cut) ** 2 for cut in range(most + 1)]
    best = int(np.argmin(scores))
    # By chance some cut always fits a little better; it would cost readings for nothing.
    return best * len(counts) // windows if scores[best] < _CLEARLY_BETTER * scores[0] else 0


def theil_sen(times: Floats, levels: Floats, *, scale: float = 1.0, is_correlated: bool = False) -> Trend:
    """Slope by Theil and Sen, confidence interval by Sen, significance by Mann and Kendall, all corrected for ties.

    Args:
        times: [level], ascending.
        levels: [level].
        scale: The slope is per so much of `times`.
        is_correlated: Neighbours may resemble each other, as levels of a random walk do: widen the interval by Hamed's
            and Rao's factor.
    """
    count = len(levels)
    first, second = np.triu_indices(count, k=1)
    rises = levels[second] - levels[first]
    slopes = np.sort(rises / (times[second] - times[first])) * scale
    ties = np.unique(levels, return_counts=True)[1].astype(np.float64)
    variance = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return Trend(0.0, 0.0, 0.0, 1.0)
    slope = float(np.median(slopes))
    if is_correlated:
        variance *= _correlation_factor(levels - slope / scale * times)
    score = float(np.sign(rises).sum())
    z = (abs(score) - 1) / math.sqrt(variance) if score else 0.0
    reach = _QUANTILE * math.sqrt(variance)
    lower = slopes[max(round((len(slopes) - reach) / 2) - 1, 0)]
    upper = slopes[min(round((len(slopes) + reach) / 2), len(slopes) - 1)]
    return Trend(slope, float(lower), float(upper), math.erfc(max(z, 0.0) / math.sqrt(2)))


def is_settling(times: Floats, levels: Floats) -> bool:
    """Growth flattens: a parabola fits with a bend that is surely there, and its last slope is well below its first.

    Args:
        times: [level], ascending.
        levels: [level].
    """
    x = 2 * (times - times[0]) / (times[-1] - times[0]) - 1
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    fit, *_ = np.linalg.lstsq(design, levels, rcond=None)
    spread = float(((levels - design @ fit) ** 2).sum()) / (len(x) - 3)
    error = math.sqrt(spread * float(np.linalg.inv(design.T @ design)[2, 2]))
    bend = float(fit[2])
    is_bent = bend < 0 and -bend > _SETTLED_CURVE * error
    return bool(is_bent and fit[1] + 2 * bend < _SETTLING * (fit[1] - 2 * bend))


def largest_step(times: Floats, levels: Floats) -> float:
    """What one or two windows brought, if that is nearly all growth there was; 0: there was no such step.

    Args:
        times: [level], ascending.
        levels: [level].
    """
    return float(np.diff(levels)[_steps(times, levels)].sum())


def without_steps(times: Floats, levels: Floats) -> Floats:
    """The levels as if the windows of `largest_step` had brought no more than the others.

    Args:
        times: [level], ascending.
        levels: [level].
    """
    places, rises, spans = _steps(times, levels), np.diff(levels), np.diff(times)
    others = np.delete(rises / spans, places)
    rises[places] = np.median(others) * spans[places]
    return np.concatenate([levels[:1], levels[0] + rises.cumsum()])


def lowest_levels(times: Floats, counts: Floats) -> Levels:
    """The lowest count of each of 16 to 40 windows, of all readings.

    Args:
        times: [reading], ascending.
        counts: [reading].
    """
    windows = min(max(len(counts) // _READINGS_PER_WINDOW, WINDOWS), MOST_WINDOWS)
    return Levels(*_lowest(times, counts, windows), 0)


def _steps(times: Floats, levels: Floats) -> list[int]:
    """Which windows brought nearly all growth there was, if one or two did, and not because they last so long."""
    total = float(levels[-1] - levels[0])
    rises, spans = np.diff(levels), np.diff(times)
    # A busy machine may put most of a run between two readings, and a steady leak's growth with it.
    beyond = rises - max(float(np.median(rises / spans)), 0.0) * spans
    first, second = (int(each) for each in np.argsort(beyond)[:-3:-1])
    if total <= 0:
        return []
    if beyond[first] > _STEP * total:
        return [first]
    return [first, second] if beyond[first] + beyond[second] > _TWO_STEPS * total else []


def _lowest(times: Floats, counts: Floats, windows: int) -> tuple[Floats, Floats]:
    parts = np.array_split(np.arange(len(counts)), windows)
    lowest = np.array([part[np.argmin(counts[part])] for part in parts])
    return times[lowest], counts[lowest]


def _squared_error(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    square = float(x @ x)
    rest = y - (float(x @ y) / square if square else 0.0) * x
    return float(rest @ rest)


def _correlation_factor(residuals: Floats) -> float:
    """By how much the variance of Mann and Kendall's score grows with neighbours that resemble each other; 1 or more.

    Of the residuals' ranks, those correlations only that are significant.
    """
    count = len(residuals)
    if float(np.ptp(residuals)) <= 1e-9 * max(1.0, float(np.abs(residuals).max())):
        return 1.0
    ranks = residuals.argsort().argsort().astype(np.float64)
    ranks -= ranks.mean()
    lags = np.arange(1, count // 2)
    correlations = np.array([float(ranks[lag:] @ ranks[:-lag]) for lag in lags]) / float(ranks @ ranks)
    weights = (count - lags) * (count - lags - 1) * (count - lags - 2)
    counted = np.where(np.abs(correlations) > 1.96 / math.sqrt(count), correlations, 0.0)
    return max(1.0, 1 + 2 / (count * (count - 1) * (count - 2)) * float((weights * counted).sum()))
