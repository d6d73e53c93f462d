"""Is it a leak? A verdict over a counter's readings that can also say: cannot tell.

The rule: drop the first quarter (caches fill), cut the rest into 16 windows and keep each window's minimum (the
quiescent level), ask Mann and Kendall whether these rise and Theil and Sen how fast, set aside what is one step or
still settling, and hold what a day would gain, at the least, against the counter's budget. Significance alone is
useless on exact counters, where one byte is significant; size alone is useless on noisy ones.

Sources: H. B. Mann 1945 and M. G. Kendall 1975 (rank test of trend, with the correction for ties); P. K. Sen 1968
(median of pairwise slopes and its confidence interval).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from robocache.stress.resources import Counter

Floats = npt.NDArray[np.float64]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]

DAY_S = 86_400.0
WINDOWS = 16
LEAST_READINGS = 4 * WINDOWS
_WARM_UP = 0.25
_SIGNIFICANCE = 0.01
_QUANTILE = 2.5758293035489004  # of the normal distribution, for 99 % confidence in both directions
_SETTLING = 0.7  # a second half that grows by less than this share of the first is on its way to a standstill
_STEP = 0.7  # one window that brings more than this share of all growth is a step, not a slope


@dataclass(frozen=True)
class Verdict:
    """What a counter's readings show.

    Args:
        counter: Which counter.
        outcome: PASS: no leak beyond the budget. FAIL: one. INCONCLUSIVE: too few readings, still settling, or too
            noisy to say. INVALID: the counter could not be read. INVALID is as bad as FAIL; INCONCLUSIVE is
            shown, and fails nothing.
        why: The reason, with numbers.
        growth_per_day: Theil-Sen slope, projected to 24 hours.
        least_per_day: Lower end of its 99 % confidence interval.
        most_per_day: Upper end.
    """

    counter: str
    outcome: Outcome
    why: str
    growth_per_day: float = math.nan
    least_per_day: float = math.nan
    most_per_day: float = math.nan

    def __str__(self) -> str:
        return f"{self.outcome} {self.counter}: {self.why}"


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


def judge(counter: Counter, progress: Floats, counts: Floats, *, per_day: float) -> Verdict:
    """Whether `counts` show a leak of `counter` beyond its budget.

    Args:
        counter: What was counted.
        progress: [reading] how far the run was, best in iterations: on a busy machine a leak is steady in these, and
            not in seconds.
        counts: [reading].
        per_day: How much progress 24 hours bring.
    """
    if np.isnan(counts).any() or not (np.isfinite(progress).all() and math.isfinite(per_day)):
        return Verdict(counter.name, "INVALID", "it cannot be read on this machine")
    if len(counts) < LEAST_READINGS:
        return Verdict(
            counter.name, "INCONCLUSIVE", f"{len(counts)} readings are too few, {LEAST_READINGS} are needed: run longer"
        )
    times, levels = _quiescent_levels(progress, counts)
    trend = theil_sen(times, levels, scale=per_day)
    early, late = slice(None, WINDOWS // 2), slice(WINDOWS // 2, None)
    is_settling = theil_sen(times[late], levels[late]).slope < _SETTLING * theil_sen(times[early], levels[early]).slope
    outcome, why = _outcome(counter, levels, trend, is_settling=is_settling)
    scope, doubt = counter.scope(), counter.doubt()
    why = f"{why}, {scope}" if scope else why
    if doubt:
        outcome, why = "INCONCLUSIVE", f"{doubt} (else {outcome}: {why})"
    return Verdict(counter.name, outcome, why, trend.slope, trend.lower, trend.upper)


def theil_sen(times: Floats, levels: Floats, *, scale: float = 1.0) -> Trend:
    """Slope by Theil and Sen, confidence interval by Sen, significance by Mann and Kendall, all corrected for ties.

    Args:
        times: [level], ascending.
        levels: [level].
        scale: The slope is per so much of `times`.
    """
    count = len(levels)
    first, second = np.triu_indices(count, k=1)
    rises = levels[second] - levels[first]
    slopes = np.sort(rises / (times[second] - times[first])) * scale
    ties = np.unique(levels, return_counts=True)[1].astype(np.float64)
    variance = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return Trend(0.0, 0.0, 0.0, 1.0)
    score = float(np.sign(rises).sum())
    z = (abs(score) - 1) / math.sqrt(variance) if score else 0.0
    reach = _QUANTILE * math.sqrt(variance)
    lower = slopes[max(round((len(slopes) - reach) / 2) - 1, 0)]
    upper = slopes[min(round((len(slopes) + reach) / 2), len(slopes) - 1)]
    return Trend(float(np.median(slopes)), float(lower), float(upper), math.erfc(max(z, 0.0) / math.sqrt(2)))


def _quiescent_levels(progress: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """[window] where the minima lie, and the minima, of what follows the first quarter."""
    start = int(len(counts) * _WARM_UP)
    windows = np.array_split(np.arange(start, len(counts)), WINDOWS)
    lowest = np.array([window[np.argmin(counts[window])] for window in windows])
    return progress[lowest], counts[lowest]


def _outcome(counter: Counter, levels: Floats, trend: Trend, *, is_settling: bool) -> tuple[Outcome, str]:
    budget = _amount(counter, counter.budget_per_day)
    growth, least = trend.slope, trend.lower
    total, step, spread = float(levels[-1] - levels[0]), float(np.diff(levels).max()), float(np.ptp(levels))
    is_step = step > _STEP * total > 0
    if is_step and step > max(counter.budget_per_day, counter.noise):
        return "INCONCLUSIVE", f"one step of {_amount(counter, step)}, the budget of a day is {budget}: run longer"
    if growth <= 0 or trend.p_value >= _SIGNIFICANCE:
        return "PASS", f"no trend, level within {_amount(counter, spread)}"
    if growth <= counter.budget_per_day:
        return "PASS", f"{_amount(counter, growth)} a day, within the budget of {budget}"
    if spread < counter.noise:
        return "PASS", f"level within {_amount(counter, spread)}, which is noise"
    if is_step:
        return "PASS", f"one step of {_amount(counter, step)}, level before and after"
    if is_settling:
        return "INCONCLUSIVE", f"still settling, at {_amount(counter, growth)} a day: run longer"
    if least <= counter.budget_per_day:
        return "INCONCLUSIVE", f"{_amount(counter, least)} to {_amount(counter, trend.upper)} a day: run longer"
    return "FAIL", f"grows by at least {_amount(counter, least)} a day, the budget is {budget}"


def _amount(counter: Counter, value: float) -> str:
    return f"{value / 1e6:,.1f} MB" if counter.is_bytes else f"{value:,.0f}"
