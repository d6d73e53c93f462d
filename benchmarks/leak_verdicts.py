"""How often the leak verdict is right: `python -m benchmarks.leak_verdicts [--runs N] [--out FILE]`.

Recorded: readings of clean burn-ins (`--recorded`, a report's JSON), with leaks of several sizes added; synthetic:
series of 600 readings whose truth is known, clean and leaking. Detection, false alarms, and whether a leak of the
size that a run calls its minimum detectable one is indeed seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robocache.stress.report import Report
from robocache.stress.resources import Counter, host_counters
from robocache.stress.series import Floats
from robocache.stress.verdicts import judge

READINGS = 600
ITERATION = np.arange(READINGS, dtype=np.float64)
PER_DAY = 50 * 86_400.0  # iterations, at 50 a second
HEAP = Counter("heap_bytes", lambda: 0.0, 500e6, noise=20_000)
Make = Callable[[np.random.Generator], Floats]
RESULTS = Path(__file__).parent / "results"


def spikes(generator: np.random.Generator, share: float | None = None) -> Floats:
    """Temporary allocations that some readings happen to see."""
    share = generator.uniform(0.05, 0.6) if share is None else share
    return np.asarray(generator.exponential(20_000, READINGS) * (generator.random(READINGS) < share))


def walk(generator: np.random.Generator) -> Floats:
    """Caches that come and go."""
    return np.asarray(generator.normal(0, 200, READINGS).cumsum())


def filling(generator: np.random.Generator) -> Floats:
    return np.asarray(3e6 * (1 - np.exp(-ITERATION / generator.uniform(5, 60))))


CLEAN: dict[str, Make] = {
    "level with spikes": spikes,
    "caches that fill": lambda generator: filling(generator) + spikes(generator),
    "one late cache": lambda generator: spikes(generator) + 2e6 * (generator.integers(150, 550) < ITERATION),
    "two late caches": lambda g: spikes(g) + 1e6 * sum(g.integers(100, 580) < ITERATION for _ in range(2)),
    "sawtooth": lambda generator: ITERATION % generator.integers(20, 90) * 1_000.0,
    "wandering": lambda generator: walk(generator) + spikes(generator),
    "slow settling": lambda g: 3e6 * np.log1p(ITERATION / g.uniform(5, 50)) + spikes(g),
}
LEAKING: dict[str, Make] = {
    "854 bytes an iteration": lambda generator: 854 * ITERATION + spikes(generator),
    "854 bytes while caches fill": lambda generator: 854 * ITERATION + filling(generator) + spikes(generator),
    "250 bytes an iteration": lambda generator: 250 * ITERATION + spikes(generator),
    "4 kB every tenth": lambda generator: 4_096 * (ITERATION // 10) + spikes(generator),
    "1 MB every fiftieth": lambda generator: 1e6 * (ITERATION // 50) + spikes(generator),
    "854 bytes in a wandering heap": lambda generator: 854 * ITERATION + walk(generator) + spikes(generator),
}
NOISE: dict[str, Make] = {
    "spikes": lambda generator: spikes(generator, 0.3),
    "spikes in a wandering heap": lambda generator: walk(generator) + spikes(generator, 0.3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recorded", type=Path, action="append", default=[])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "leak_verdicts.json")
    given = parser.parse_args()
    started = time.perf_counter()
    document = {
        "runs_of_each": given.runs,
        "readings": READINGS,
        "clean": {name: outcomes(make, given.runs) for name, make in CLEAN.items()},
        "leaking": {name: outcomes(make, given.runs) for name, make in LEAKING.items()},
        "calibration": {name: calibration(given.runs, noise) for name, noise in NOISE.items()},
        "recorded": [recorded(Report.from_dict(json.loads(path.read_text()))) for path in given.recorded],
    }
    document["seconds"] = round(time.perf_counter() - started, 1)
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


def outcomes(make: Make, runs: int) -> dict[str, int]:
    """How often each verdict was given."""
    found: dict[str, int] = {}
    for seed in range(runs):
        counts = 5e7 + make(np.random.default_rng(seed))
        outcome = judge(HEAP, ITERATION, counts, per_day=PER_DAY, with_detectable=False).outcome
        found[outcome] = found.get(outcome, 0) + 1
    return found


def calibration(runs: int, noise: Make) -> dict[str, float]:
    """Of leaks as small as another run with the same noise said it could see: the share that is seen.

    With a rate so high that the budget plays no part.
    """
    sizes, seen = [], 0
    for seed in range(runs):
        first, other = (noise(np.random.default_rng(each)) for each in (seed, seed + 1_000_000))
        size = judge(HEAP, ITERATION, first, per_day=1e9).detectable_per_iteration
        sizes.append(size)
        seen += judge(HEAP, ITERATION, other + size * ITERATION, per_day=1e9, with_detectable=False).outcome == "FAIL"
    return {"median_bytes": round(float(np.median(sizes)), 1), "seen_share": seen / runs}


def recorded(report: Report) -> dict[str, object]:
    """Leaks added to the readings of a clean run: how many of each size are seen, in runs that begin ever later."""
    counters = {counter.name: counter for counter in host_counters()}
    found: dict[str, object] = {"seconds": round(report.seconds, 1), "iterations": report.iterations}
    for series in report.series:
        if series.counter not in ("heap_bytes", "python_blocks", "resident_bytes"):
            continue
        progress, counts = np.array(series.iterations), np.array(series.counts)
        sizes = (0, 0.01, 0.02, 0.05, 0.1, 1) if series.counter == "python_blocks" else (0, 1, 2, 8, 64, 1_000, 10_000)
        seen = {}
        for size in sizes:
            verdicts = [
                judge(
                    counters[series.counter],
                    progress[start:],
                    counts[start:] + size * progress[start:],
                    per_day=1e9,
                    with_detectable=False,
                ).outcome
                for start in range(len(counts) // 2)
                if start % max(1, len(counts) // 80) == 0 and len(counts) - start >= 64
            ]
            seen[str(size)] = f"{verdicts.count('FAIL')} of {len(verdicts)}"
        smallest = judge(counters[series.counter], progress, counts, per_day=1e9).detectable_per_iteration
        found[series.counter] = {"minimum_detectable": smallest, "seen_by_size": seen}
    return found


if __name__ == "__main__":
    main()
