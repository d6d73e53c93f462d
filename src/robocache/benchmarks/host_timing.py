"""Wall-clock times on the CPU: candidates in turn, round after round, so that a busy machine is busy for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Clock = Callable[[], float]
Runs = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: At most so many samples a candidate.
        least_rounds: At least so many, however slow it is.
        seconds: About so long a candidate.
        sample_seconds: A sample repeats the call until it is about this long.
    """

    rounds: int = 40
    least_rounds: int = 3
    seconds: float = 0.6
    sample_seconds: float = 0.004


QUICK = Effort(rounds=3, least_rounds=3, seconds=0.0, sample_seconds=0.0)


def wall_times(runs: Runs, effort: Effort, clock: Clock = time.perf_counter) -> dict[str, dict[str, float]]:
    """Microseconds a call: median, fastest and slowest sample, and how many there were.

    Args:
        runs: What to time, by name; each is called once beforehand.
        effort: How long to measure.
        clock: Seconds.
    """
    calls, rounds = {}, {}
    for name, run in runs.items():
        run()
        once = _sample(run, 1, clock)
        calls[name] = max(1, min(200, round(effort.sample_seconds / max(once, 1e-9))))
        wanted = int(effort.seconds / max(once * calls[name], 1e-9))
        rounds[name] = min(max(wanted, effort.least_rounds), effort.rounds)
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(max(rounds.values(), default=0)):
        for name, run in runs.items():
            if number < rounds[name]:
                samples[name].append(_sample(run, calls[name], clock))
    return {name: _summary(times) for name, times in samples.items()}


def _sample(run: Callable[[], Any], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "wall_us": median(seconds) * 1e6,
        "wall_fastest_us": min(seconds) * 1e6,
        "wall_slowest_us": max(seconds) * 1e6,
        "samples": len(seconds),
    }
