"""What a burn-in costs besides its work: `python -m benchmarks.burn_in_cost [--seconds 60] [--like 60 86400]`.

One process runs the same iteration in short blocks, bare and inside a real burn-in, in the order A B B A: readings at
quiescent points, the log on disk, checks, the heartbeat of the hang watch are all in B. The clock of the burn-in stands
still while bare blocks run, so that its readings are as dense as in a run of `--like` seconds; they are densest in
short ones. `--seconds` is how much of such a run is looked at.
Comparing results with what must come out is the work itself, and in both. For control, "nothing" is the bare
loop against itself through the same blocks. The verdict at the end is timed apart: it comes once.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from robocache.benchmarks import machine, results
from robocache.stress import burn_in, long_run, monitor, reading_cost, run_log
from robocache.stress.long_report import report_of
from robocache.stress.long_settings import Thresholds, run_header, watched_counters
from robocache.stress.settings import Settings
from robocache.stress.workload import INPUT_SETS, Workload
from robocache.testing import HangWatch

BLOCK_S = 0.05  # longer ones drift apart: what neighbours do to a machine changes within a second
RESAMPLES = 10_000
OUT = results.FOLDER / "burn_in_cost_cpu.json"
Pairs = npt.NDArray[np.float64]


@dataclass
class Blocks:
    """Alternates bare blocks with those of the burn-in that calls `after_iteration`.

    Args:
        one: The iteration.
        size: Iterations of a block; a multiple of the input sets, so that all blocks do the same.
        seconds: On the burn-in's clock, after which it is enough.
    """

    one: Callable[[int], object]
    size: int
    seconds: float
    rows: list[list[float]] = field(default_factory=list)
    paused_s: float = 0.0
    paused_waiting_s: float = 0.0
    _done: int = -1
    _began_s: float = 0.0
    _from: tuple[float, float] = (0.0, 0.0)
    _row: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        """The burn-in's clock."""
        return time.monotonic() - self.paused_s

    def begin(self, *_: object) -> None:
        """The warm-up is over: called at the first reading, and without effect later."""
        if self._done < 0:
            self._done = 0
            self._bare()
            self._began_s = self.monotonic()
            self._from = _now()

    def after_iteration(self) -> None:
        """A block of the burn-in may be over now."""
        if self._done < 0:
            return
        self._done += 1
        if self._done % self.size:
            return
        self._row += _since(self._from)
        if self._done % (2 * self.size) == 0:
            self._bare()
            self.rows.append(self._row)
            self._row = []
            self._bare()
        self._from = _now()

    def are_enough(self) -> bool:
        """Whether the burn-in may end; never in the middle of a round."""
        return self._done > 0 and self._done % (2 * self.size) == 0 and self.monotonic() >= self._began_s + self.seconds

    def pairs(self) -> Pairs:
        """[round, A B B A, wall and CPU] seconds."""
        return np.array(self.rows).reshape(-1, 4, 2)

    def _bare(self) -> None:
        began, waited_s = _now(), reading_cost.waited_for_a_core_s()
        for iteration in range(self.size):
            self.one(iteration)
        self._row += _since(began)
        self.paused_waiting_s += reading_cost.waited_for_a_core_s() - waited_s
        self.paused_s += time.monotonic() - began[0]


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.monotonic() - began[0], time.process_time() - began[1]


def added(pairs: Pairs) -> dict[str, dict[str, float]]:
    """What is added to bare time, in percent: the median of the rounds' ratios, and the ratio of the sums.

    Each with its 95 % interval, from rounds drawn again and again with replacement. The median is deaf to what others
    do to a round, and to what happens in few of them, such as a check; the sums hear everything.

    Args:
        pairs: [round, A B B A, wall and CPU] seconds.
    """
    bare, full = pairs[:, (0, 3)].sum(axis=1), pairs[:, (1, 2)].sum(axis=1)
    drawn = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    found: dict[str, dict[str, float]] = {}
    for at, clock in enumerate(("wall", "cpu")):
        found[clock] = {}
        ratios = {
            "median": (np.median(full[:, at] / bare[:, at]), np.median((full / bare)[drawn, at], axis=1)),
            "sums": (full[:, at].sum() / bare[:, at].sum(), full[drawn, at].sum(axis=1) / bare[drawn, at].sum(axis=1)),
        }
        for name, (ratio, others) in ratios.items():
            least, most = np.quantile(others, (0.025, 0.975))
            for part, value in (("", ratio), ("_least", least), ("_most", most)):
                found[clock][name + part] = round(100 * (float(value) - 1), 3)
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each burn-in, without its bare blocks")
    parser.add_argument("--like", type=float, nargs="*", default=[60.0, 86_400.0], help="runs of so many seconds")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    document: dict[str, Any] = {
        **machine.commit(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "load_average": machine.load_average(),
        "seconds": given.seconds,
        "reading_share": reading_cost.SHARE,
        "runs": [],
    }
    torch.set_num_threads(given.threads)
    for like_s in given.like:
        for name, run in RUNS.items():
            found = {"what": name, "like_seconds": like_s, "threads": given.threads}
            found |= measured(run, given.seconds, like_s)
            print(found, flush=True)
            document["runs"].append(found)
    document["load_average_after"] = machine.load_average()
    results.save(document, given.out)


def measured(run: Callable[[Workload, Blocks, Settings], dict[str, float]], seconds: float, like_s: float) -> Any:  # noqa: ANN401  what JSON holds
    """One way of burning in, beside the bare loop."""
    settings = Settings(seconds=like_s)
    workload = Workload(batch=settings.batch_size, is_alone=True)
    for iteration in range(60):
        workload.run(iteration)
    began = time.monotonic()
    for iteration in range(60):
        workload.run(iteration)
    each_s = (time.monotonic() - began) / 60
    blocks = Blocks(workload.run, max(1, round(BLOCK_S / each_s / INPUT_SETS)) * INPUT_SETS, seconds)
    also = run(workload, blocks, settings)
    pairs = blocks.pairs()
    if workload.wrong_elements():
        raise SystemExit("results are wrong: nothing is timed")
    milliseconds = 1e3 * pairs[:, (0, 3)].mean(axis=(0, 1)) / blocks.size
    return {
        "rounds": len(pairs),
        "iterations_of_a_block": blocks.size,
        "bare_iteration_ms": dict(zip(("wall", "cpu"), milliseconds.round(3).tolist(), strict=True)),
        "added_percent": added(pairs),
        **also,
    }


def _nothing(workload: Workload, blocks: Blocks, settings: Settings) -> dict[str, float]:
    del settings
    blocks.begin()
    iteration = 0
    while not blocks.are_enough():
        workload.run(iteration)
        iteration += 1
        blocks.after_iteration()
    return {}


def _command(workload: Workload, blocks: Blocks, settings: Settings) -> dict[str, float]:
    task = SimpleNamespace(
        warm_up=6,
        deadline_s=600.0,
        maps_files=False,
        run=workload.run,
        failures=lambda: ["results are wrong"] if workload.wrong_elements() else [],
        measured=dict,
    )
    header = run_header("burn-in", settings, Thresholds(), {})
    with _clock(blocks), _watch() as beat, tempfile.TemporaryDirectory() as folder:
        hooks = long_run.LongHooks(
            lines=_line,
            heartbeat=beat,
            after_iteration=blocks.after_iteration,
            on_reading=blocks.begin,
            should_stop=blocks.are_enough,
        )
        with run_log.RunLog(Path(folder, "run.jsonl"), header, resume=False) as log:
            report = long_run.long_run(task, log, thresholds=Thresholds(), hooks=hooks)
            records = log.records()
    counters, began = watched_counters(settings.device, Thresholds()), _now()
    report_of(records, counters)
    verdict_s, _ = _since(began)
    return {**_readings(report.measured), "verdict_s": round(verdict_s, 3)}


def _in_memory(workload: Workload, blocks: Blocks, settings: Settings) -> dict[str, float]:
    def wrong_elements() -> int:
        blocks.begin()  # asked for the first time at the end of the warm-up
        return workload.wrong_elements()

    same = SimpleNamespace(run=workload.run, wrong_elements=wrong_elements)
    with _clock(blocks), _watch() as beat, mock.patch.object(burn_in, "Workload", return_value=same):
        hooks = burn_in.Hooks(
            lines=_line, heartbeat=beat, after_iteration=blocks.after_iteration, should_stop=blocks.are_enough
        )
        report = burn_in.burn_in(settings, hooks)
    return _readings(report.measured)


def _readings(measured: Any) -> dict[str, float]:  # noqa: ANN401  a report's
    return {"readings": int(measured["readings"]), "reading_share": round(float(measured["reading_share"]), 5)}


def _line(line: str) -> None:
    print(line, file=sys.stderr)


@contextlib.contextmanager
def _clock(blocks: Blocks) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in (long_run, burn_in, monitor, reading_cost, run_log):
            stack.enter_context(mock.patch.object(module, "time", blocks))
        waited = reading_cost.waited_for_a_core_s

        def own_waiting_s() -> float:
            return waited() - blocks.paused_waiting_s

        stack.enter_context(mock.patch.object(reading_cost, "waited_for_a_core_s", own_waiting_s))
        yield


@contextlib.contextmanager
def _watch() -> Iterator[Callable[[], object]]:
    try:
        yield HangWatch(limit_s=600.0, file=sys.__stderr__ or 2).beat
    finally:
        faulthandler.cancel_dump_traceback_later()


RUNS = {"nothing": _nothing, "robocache burn-in": _command, "test_24h_burn_in": _in_memory}

if __name__ == "__main__":
    main()
