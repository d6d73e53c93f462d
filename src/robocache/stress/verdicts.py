"""Is it a leak? A verdict over a counter's readings that can also say: cannot tell; and how small a leak it would see.

The rule: cut the warm-up where it ends, keep the lowest level of each window (the quiescent one), ask whether these
rise and how fast at the least, set aside a step or two (not what rises beside them) and what is still settling, and
hold what a day would gain, at the least, against the counter's budget. Significance alone is useless on exact counters,
where one byte is significant; size alone is useless on noisy ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from robocache.stress.resources import Counter
from robocache.stress.series import Floats
from robocache.stress.statistics import (
    WINDOWS,
    Levels,
    Trend,
    is_settling,
    largest_step,
    lowest_levels,
    quiescent_levels,
    theil_sen,
    without_steps,
)

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]

DAY_S = 86_400.0
LEAST_READINGS = 4 * WINDOWS
_SIGNIFICANCE = 0.01
_TRIALS = 12  # of an added leak, each on another arrangement of the run's own noise
_FOUND = 11  # of which it must be seen
_HALVINGS = 14
_MARGIN = 1.5  # another run is not the same one rotated
_LEAST_NOISE = 0.1  # of what a counter may wander: what the levelest run may, too
_BEYOND_NOISE = 5.0  # so many times what levels wander beside their trend; of random walks hardly one rises as much
_LATE_SHARES = (0.5, 0.25, 0.125)  # of the readings: the ends of a run that are looked at by themselves
_LEAST_BYTES, _LEAST_PIECES = 64.0, 4.0  # the growth over a run, below which a slope cannot be told from one step


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
        per_iteration: The slope, an iteration.
        detectable_per_iteration: The minimum detectable leak: so much an iteration, steadily, would have been seen in
            11 of 12 runs with the noise of this one. NaN: the readings say nothing about it.
        settled_at: The iteration with which the warm-up ended.
    """

    counter: str
    outcome: Outcome
    why: str
    growth_per_day: float = math.nan
    least_per_day: float = math.nan
    most_per_day: float = math.nan
    per_iteration: float = math.nan
    detectable_per_iteration: float = math.nan
    settled_at: float = math.nan

    def __str__(self) -> str:
        return f"{self.outcome} {self.counter}: {self.why}"

    @property
    def detectable(self) -> str:
        """The minimum detectable leak, for people; empty where there is none."""
        if math.isnan(self.detectable_per_iteration):
            return ""
        unit = " B" if self.counter.endswith("_bytes") else ""
        return f"{self.detectable_per_iteration:.2g}{unit} an iteration"

    def as_dict(self) -> dict[str, object]:
        """For JSON, which has no NaN."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Verdict:
        """What `as_dict` gave.

        Args:
            document: It.
        """
        values: dict[str, Any] = {key: math.nan if value is None else value for key, value in document.items()}
        return Verdict(**values)


def judge(
    counter: Counter, progress: Floats, counts: Floats, *, per_day: float, with_detectable: bool = True
) -> Verdict:
    """Whether `counts` show a leak of `counter` beyond its budget.

    Args:
        counter: What was counted.
        progress: [reading] how far the run was, best in iterations: on a busy machine a leak is steady in these, and
            not in seconds.
        counts: [reading].
        per_day: How much progress 24 hours bring.
        with_detectable: Work out the minimum detectable leak too, which takes some 20 ms.
    """
    if not np.isfinite(counts).all() or not (np.isfinite(progress).all() and math.isfinite(per_day)):
        return Verdict(counter.name, "INVALID", "it cannot be read on this machine")
    if len(counts) < LEAST_READINGS:
        return Verdict(
            counter.name, "INCONCLUSIVE", f"{len(counts)} readings are too few, {LEAST_READINGS} are needed: run longer"
        )
    levels = quiescent_levels(progress, counts)
    trend = theil_sen(levels.times, levels.values, is_correlated=True)
    outcome, why = _outcome(counter, levels, trend, per_day)
    if step := largest_step(levels.times, levels.values):
        rest = replace(levels, values=without_steps(levels.times, levels.values))
        rest_trend = theil_sen(rest.times, rest.values, is_correlated=True)
        rest_outcome, rest_why = _outcome(counter, rest, rest_trend, per_day)
        if rest_outcome != "PASS":
            outcome, why, trend = rest_outcome, f"beside a step of {_amount(counter, step)}: {rest_why}", rest_trend
    if outcome == "PASS" and (late := _late_growth(counter, progress, counts, per_day)):
        outcome, why = "INCONCLUSIVE", late
    scope, doubt = counter.scope(), counter.doubt()
    why = f"{why}, {scope}" if scope else why
    if doubt:
        outcome, why = "INCONCLUSIVE", f"{doubt} (else {outcome}: {why})"
    return Verdict(
        counter.name,
        outcome,
        why,
        growth_per_day=trend.slope * per_day,
        least_per_day=trend.lower * per_day,
        most_per_day=trend.upper * per_day,
        per_iteration=trend.slope,
        detectable_per_iteration=detectable_leak(counter, levels, trend) if with_detectable else math.nan,
        settled_at=float(progress[levels.warm_up]),
    )


def detectable_leak(counter: Counter, levels: Levels, trend: Trend) -> float:
    """The smallest steady growth, for one unit of `levels.times`, that would have been seen in 11 of 12 such runs.

    The run's own levels, less their trend, are the noise; rotated, they are twelve arrangements of it. To each the
    same leak is added, and its size halved between seen and not seen.

    Args:
        counter: What was counted.
        levels: What was read.
        trend: Of `levels`.
    """
    times = levels.times - levels.times[0]
    noise = levels.values - levels.values[0] - trend.slope * times
    turns = [np.roll(noise, shift) for shift in np.linspace(0, len(noise), _TRIALS, endpoint=False).astype(int)]
    span = float(times[-1])
    lowest = (_LEAST_BYTES if counter.is_bytes else _LEAST_PIECES) / span
    highest = max(lowest, 8 * (float(np.ptp(noise)) + counter.noise) / span)

    def is_seen(leak: float) -> bool:
        found = sum(_is_seen(counter, times, turn + leak * times) for turn in turns)
        return found >= _FOUND

    if is_seen(lowest):
        return _MARGIN * lowest
    if not is_seen(highest):
        return math.nan
    for _ in range(_HALVINGS):
        middle = math.sqrt(lowest * highest)
        lowest, highest = (lowest, middle) if is_seen(middle) else (middle, highest)
    return _MARGIN * highest


def told_apart(verdicts: tuple[Verdict, ...], counters: tuple[Counter, ...]) -> tuple[Verdict, ...]:
    """The verdicts, that of resident memory with the cause of its growth as far as the other counters tell.

    Growth of resident memory with a level heap is no leak of what somebody allocated and forgot: it is the allocator's
    free memory in pieces, or memory mapped past the allocator.

    Args:
        verdicts: One for each counter.
        counters: In the same order.
    """
    by_name = {verdict.counter: verdict for verdict in verdicts}
    resident, heap, free = (by_name.get(name) for name in ("resident_bytes", "heap_bytes", "heap_free_bytes"))
    if resident is None or heap is None or resident.outcome not in ("FAIL", "INCONCLUSIVE"):
        return verdicts
    (budget,) = [counter.budget_per_day for counter in counters if counter.name == "resident_bytes"]
    if not resident.growth_per_day > budget or not heap.growth_per_day < 0.2 * resident.growth_per_day:
        return verdicts
    if free is not None and free.growth_per_day > 0.5 * resident.growth_per_day:
        cause = "fragmentation: live heap bytes stay level, what malloc holds free in pieces grows with it"
    else:
        cause = "fragmentation, or memory mapped past malloc: live heap bytes stay level"
    told = replace(resident, why=f"{resident.why}; {cause}")
    return tuple(told if verdict is resident else verdict for verdict in verdicts)


def _is_seen(counter: Counter, times: Floats, values: Floats) -> bool:
    """Growth that is surely there, maybe beside a step: the rule without the budget."""
    if largest_step(times, values):
        values = without_steps(times, values)
    trend = theil_sen(times, values, is_correlated=True)
    is_sure = trend.p_value < _SIGNIFICANCE and trend.lower > 0
    is_sure = is_sure and float(np.ptp(values)) >= _allowance(counter, times, values, trend)
    return is_sure and not largest_step(times, values) and not is_settling(times, values)


def _late_growth(counter: Counter, progress: Floats, counts: Floats, per_day: float) -> str:
    """What rises beyond its budget at the end of a run, to where it never was before; empty: nothing does.

    The slope of the whole run says nothing about a leak that begins late: most of its pairs lie before that.
    """
    for share in _LATE_SHARES:
        start = len(counts) - int(share * len(counts))
        if len(counts) - start < LEAST_READINGS:
            break
        late = lowest_levels(progress[start:], counts[start:])
        trend = theil_sen(late.times, late.values, is_correlated=True)
        rose = float(late.values[-1] - counts[:start].max())
        if rose > counter.noise and _outcome(counter, late, trend, per_day)[0] == "FAIL":
            least = _amount(counter, trend.lower * per_day)
            return f"rises by at least {least} a day in the last {share:.0%} of the readings, not before: run longer"
    return ""


def _allowance(counter: Counter, times: Floats, values: Floats, trend: Trend) -> float:
    """How far levels may rise without meaning anything: the counter's noise; less where an exact one wanders less.

    A fixed allowance is a small leak in a run of many iterations and a large one in a run of few.
    """
    if not counter.is_exact:
        return counter.noise
    wandered = float(np.ptp(values - trend.slope * times))
    return min(counter.noise, max(_LEAST_NOISE * counter.noise, _BEYOND_NOISE * wandered))


def _outcome(counter: Counter, levels: Levels, trend: Trend, per_day: float) -> tuple[Outcome, str]:
    budget = _amount(counter, counter.budget_per_day)
    growth, least, most = (slope * per_day for slope in (trend.slope, trend.lower, trend.upper))
    step, spread = largest_step(levels.times, levels.values), float(np.ptp(levels.values))
    if step > max(counter.budget_per_day, counter.noise):
        return "INCONCLUSIVE", f"one step of {_amount(counter, step)}, the budget of a day is {budget}: run longer"
    if growth <= 0 or trend.p_value >= _SIGNIFICANCE:
        return "PASS", f"no trend, level within {_amount(counter, spread)}"
    if growth <= counter.budget_per_day:
        return "PASS", f"{_amount(counter, growth)} a day, within the budget of {budget}"
    if spread < _allowance(counter, levels.times, levels.values, trend):
        return "PASS", f"level within {_amount(counter, spread)}, which is noise"
    if step:
        return "PASS", f"one step of {_amount(counter, step)}, level before and after"
    if is_settling(levels.times, levels.values):
        return "INCONCLUSIVE", f"still settling, at {_amount(counter, growth)} a day: run longer"
    if least <= counter.budget_per_day:
        return "INCONCLUSIVE", f"{_amount(counter, least)} to {_amount(counter, most)} a day: run longer"
    return "FAIL", f"grows by at least {_amount(counter, least)} a day, the budget is {budget}"


def _amount(counter: Counter, value: float) -> str:
    return f"{value / 1e6:,.1f} MB" if counter.is_bytes else f"{value:,.0f}"
