"""Readings of a run that several processes worked on, as one series: a new process's baseline is no growth.

Each process fills its caches anew. So its own warm-up is cut, and what is left is put where the process before it
ended: growth within the processes adds up, and what lies between them does not count. What grows early in each process
and hardly late is still its start-up: that is no leak, and no proof of none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robocache.stress.resources import Counter
from robocache.stress.series import Floats, Series
from robocache.stress.statistics import settled_from
from robocache.stress.verdicts import LEAST_READINGS, Verdict, judge

_LEAST_WARM_UP = 0.25  # of each process: what little is left of each start would add up to a slope
_SETTLING = 0.6  # growth in the later halves below this share of that in the earlier ones is on its way to a standstill
_EDGE = 5  # readings, of which the lowest is the level at an end
_WINDOWS = 20
_LEAST_OF_A_PROCESS = 2 * _EDGE


@dataclass(frozen=True)
class Joined:
    """One counter's readings, the warm-ups of all but the only process cut.

    Args:
        progress: [reading] iterations, without those that were cut.
        counts: [reading] as if one process had made them.
        iterations: [reading] as they were.
        cuts: The stretches of iterations that were cut, one a process at most.
        growth: In the earlier halves of all processes, and in the later ones.
    """

    progress: Floats
    counts: Floats
    iterations: Floats
    cuts: tuple[tuple[float, float], ...]
    growth: tuple[float, float] = (0.0, 0.0)


def joined_readings(series: Series, processes: Sequence[int]) -> Joined:
    """One series out of the readings of several processes.

    Args:
        series: Of one counter.
        processes: [reading] which process made it, ascending.
    """
    iterations, counts = np.array(series.iterations), np.array(series.counts)
    owners = np.array(processes)
    numbers = np.unique(owners)
    if len(numbers) < 2:
        return Joined(iterations, counts, iterations, ())
    cuts, kept = [], []
    for number in numbers:
        mine = np.flatnonzero(owners == number)
        cut = _warm_up(iterations[mine], counts[mine])
        if cut:
            cuts.append((float(iterations[mine[0]]), float(iterations[mine[min(cut, len(mine) - 1)]])))
        if len(left := mine[cut:]):
            kept.append((iterations[left], counts[left]))
    slope = _slope_within(kept)
    xs, ys = [np.empty(0)], [np.empty(0)]
    growth = np.zeros(2)
    for x, y in kept:
        place = x - x[0] + (xs[-1][-1] + float(np.median(np.diff(x))) if len(xs) > 1 else 0.0)
        # On the line that the end of the process before it points at, so that a join neither adds growth nor hides it.
        (start_x, start), (end_x, end) = _lowest(place[:_EDGE], y[:_EDGE]), _lowest(xs[-1][-_EDGE:], ys[-1][-_EDGE:])
        shift = end + slope * (start_x - end_x) - start if len(xs) > 1 else 0.0
        xs.append(place)
        ys.append(y + shift)
        middle = float(y[len(y) // 2 - _EDGE // 2 :][:_EDGE].min())
        growth += middle - start, y[-_EDGE:].min() - middle
    at = np.concatenate([np.empty(0), *(x for x, _ in kept)])
    return Joined(np.concatenate(xs), np.concatenate(ys), at, tuple(cuts), (float(growth[0]), float(growth[1])))


def judge_joined(counter: Counter, joined: Joined, *, per_day: float) -> Verdict:
    """The verdict over all processes.

    Args:
        counter: What was counted.
        joined: Its readings.
        per_day: Iterations that 24 hours bring.
    """
    verdict = judge(counter, joined.progress, joined.counts, per_day=per_day)
    if joined.cuts and not np.isnan(verdict.settled_at):  # as the run counted, not the joined series
        place = int(np.searchsorted(joined.progress, verdict.settled_at))
        verdict = replace(verdict, settled_at=float(joined.iterations[place]))
    early, late = joined.growth
    if verdict.outcome == "FAIL" and late < _SETTLING * early:
        why = f"still settling in each process (else {verdict.why}): let processes run longer"
        return replace(verdict, outcome="INCONCLUSIVE", why=why)
    return verdict


def _warm_up(iterations: Floats, counts: Floats) -> int:
    if len(counts) < _LEAST_OF_A_PROCESS:
        return len(counts)
    least = int(np.ceil(_LEAST_WARM_UP * len(counts)))
    if len(counts) < LEAST_READINGS or np.isnan(counts).any():
        return least
    return max(settled_from(iterations, counts), least)


def _lowest(x: Floats, y: Floats) -> tuple[float, float]:
    """Where the lowest is, and what; nothing of nothing."""
    place = int(np.argmin(y)) if len(y) else 0
    return (float(x[place]), float(y[place])) if len(y) else (0.0, 0.0)


def _slope_within(processes: Sequence[tuple[Floats, Floats]]) -> float:
    """Median of the pairwise slopes of quiescent levels, both of one process."""
    slopes = [np.empty(0)]
    for x, y in processes:
        windows = np.array_split(np.arange(len(x)), min(max(len(x) // 3, 2), _WINDOWS))
        levels = np.array([_lowest(x[window], y[window]) for window in windows if len(window)])
        first, second = np.triu_indices(len(levels), k=1)
        slopes.append((levels[second, 1] - levels[first, 1]) / (levels[second, 0] - levels[first, 0]))
    together = np.concatenate(slopes)
    return float(np.median(together)) if len(together) else 0.0
