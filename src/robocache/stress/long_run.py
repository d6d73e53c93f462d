"""A scenario for hours or days: every reading goes into a log, and the verdict is computed from the log alone.

So a run that was killed goes on where its log ends, and the memory of the process that runs does not grow with its
readings.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from robocache.stress.burn_in import ITERATIONS_PER_CHECK, Check
from robocache.stress.long_report import Standing, report_of, standing
from robocache.stress.long_settings import Thresholds, now_text, watched_counters, without_mapped_files
from robocache.stress.monitors import Monitor, Monitors
from robocache.stress.reading_cost import SHARE, ReadingCost
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import MEGABYTE, Counter, QuietCollections, read
from robocache.stress.run_log import RunLog
from robocache.stress.tasks import Task
from robocache.stress.verdicts import Outcome

_SECONDS_PER_READING = 5.0  # at most, in a run of a day
_LEAST_READINGS, _MOST_READINGS = 1_024, 17_280
_SECONDS_PER_CHECK = 60.0  # at most
_SECONDS_PER_LINE = 1.0  # at least
_MOST_LINES = 1_000
_SECONDS_PER_BEAT = 0.5
_SWITCH_S = 1e-4
_WARM_UP_SHARE, _MOST_WARM_UP_S = 0.1, 30.0


@dataclass(frozen=True)
class Progress:
    """How far a run is, for whoever shows it.

    Args:
        seconds: Done, in all processes.
        total_s: To be done.
        iteration: How many are done.
        per_second: How many of late.
        gpu_mb: Allocated by PyTorch.
        cpu_mb: Resident.
        also: What the monitors sampled last.
    """

    seconds: float
    total_s: float
    iteration: int
    per_second: float
    gpu_mb: float
    cpu_mb: float
    also: Mapping[str, float]


@dataclass(frozen=True)
class LongHooks:
    """Who is told, and asked, while a long run goes on.

    Args:
        lines: Gets one line a check, in the seed's format.
        on_progress: Told twice a second where there is somebody to show it.
        heartbeat: Called as often: as long as it is, nothing hangs.
        should_stop: Asked after each iteration; True ends the run with a verdict so far.
        after_iteration: Called after each; a test makes it leak.
        on_reading: Told iteration, seconds, counts and what monitors sampled at each reading.
        on_problem: Told FAIL or INVALID when something is wrong that the counters need not show.
    """

    lines: Lines = silent
    on_progress: Callable[[Progress], object] | None = None
    heartbeat: Callable[[], object] = int
    should_stop: Callable[[], bool] = bool
    after_iteration: Callable[[], object] = int
    on_reading: Callable[[int, float, Sequence[float], Mapping[str, float]], object] | None = None
    on_problem: Callable[[Outcome], object] | None = None


def long_run(
    task: Task,
    log: RunLog,
    *,
    thresholds: Thresholds,
    monitors: Sequence[Monitor] = (),
    hooks: LongHooks | None = None,
    reading_share: float = SHARE,
) -> Report:
    """Repeat `task` for as long as the log's run says, less what earlier processes did; the verdict is over all.

    Args:
        task: What to repeat.
        log: Open; its run is gone on with.
        thresholds: Those of the log's header.
        monitors: What watches the machine meanwhile; a problem of one makes the run INVALID.
        hooks: Who is told.
        reading_share: Of the time, that readings and their way into the log may take.
    """
    counters = watched_counters(log.header["device"], thresholds)
    if task.maps_files:
        counters = without_mapped_files(counters)
    before = standing(log.records())
    if not before.is_over:
        with Monitors(monitors) as watching:
            _Process(task, log, counters, (watching, hooks or LongHooks()), before, reading_share).go(thresholds)
    return report_of(log.records(), counters, measured=task.measured())


class _Process:
    """What one process does for a run."""

    def __init__(
        self,
        task: Task,
        log: RunLog,
        counters: Sequence[Counter],
        told: tuple[Monitors, LongHooks],
        before: Standing,
        share: float,
    ) -> None:
        self._task, self._log, self._counters = task, log, counters
        self._monitors, self._hooks = told
        self._cost = ReadingCost(share)
        self._number = before.processes + 1
        self._iteration, self._offset_s = before.iteration, before.seconds
        self._started = self._clock = time.monotonic()
        self._total_s = float(log.header["seconds"])
        self._memory = [
            next((each for each in counters if each.name == name), None)
            for name in ("gpu_allocated_bytes", "resident_bytes")
        ]
        self._baseline = self._most = (0.0, 0.0)
        self._next_beat = self._next_line = 0.0
        self._last_check = self._started
        self._checked_at = -1
        self._known: set[str] = set()
        self._has_failed = self._was_stopped = False
        self._rate_from = (self._started, self._iteration)
        self._also: dict[str, float] = {}

    def go(self, thresholds: Thresholds) -> None:
        """Warm up, loop, and note the end."""
        self._note("process", pid=os.getpid(), time=now_text())
        self._warm_up()
        with QuietCollections():  # what the warm-up imported is frozen too
            read(self._counters)  # the first one fills caches, and would cost more than all others may
            self._baseline = self._memory_mb()
            self._loop(thresholds)
        if self._checked_at != self._iteration:
            self._check(thresholds, is_last=True)
        self._note(
            "end", is_complete=not self._was_stopped, was_stopped=self._was_stopped, reading_share=self._cost.share()
        )
        self._log.sync()

    def _loop(self, thresholds: Thresholds) -> None:
        pause = min(self._total_s / _LEAST_READINGS, max(_SECONDS_PER_READING, self._total_s / _MOST_READINGS))
        next_reading = time.monotonic()
        while not self._is_over():
            self._iterate()
            now = time.monotonic()
            if now >= next_reading and self._read_if_cheap():
                next_reading = max(next_reading + pause, now)
            if self._iteration % ITERATIONS_PER_CHECK == 0 or now > self._last_check + _SECONDS_PER_CHECK:
                self._check(thresholds)

    @property
    def _seconds(self) -> float:
        return self._offset_s + time.monotonic() - self._started

    def _warm_up(self) -> None:
        first = self._iteration
        end = time.monotonic() + min(_WARM_UP_SHARE * (self._total_s - self._offset_s), _MOST_WARM_UP_S)
        while not self._is_over():
            done = self._iteration - first
            if done >= self._task.warm_up and (done >= ITERATIONS_PER_CHECK or time.monotonic() > end):
                break
            self._iterate()
        if not self._has_failed:
            self._look_for_failures()
        self._memory_mb()

    def _iterate(self) -> None:
        try:
            self._task.run(self._iteration)
        except Exception as error:  # noqa: BLE001  whatever it is, it goes into the log and is the verdict
            self._fail(f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            return
        self._iteration += 1
        self._hooks.after_iteration()
        now = time.monotonic()
        if now < self._clock:
            self._invalid("clock", "it went back, so that no rate is known")
        self._clock = now
        if now >= self._next_beat:
            self._beat(now)

    def _beat(self, now: float) -> None:
        self._next_beat = now + _SECONDS_PER_BEAT
        self._hooks.heartbeat()
        if self._hooks.on_progress is not None:
            since, iteration = self._rate_from
            rate = (self._iteration - iteration) / (now - since) if now > since else 0.0
            self._rate_from = (now, self._iteration) if now > since + 5 else self._rate_from
            gpu, cpu = self._memory_mb()
            self._hooks.on_progress(
                Progress(self._seconds, self._total_s, self._iteration, rate, gpu, cpu, dict(self._also))
            )

    def _is_over(self) -> bool:
        if self._has_failed:
            return True
        self._was_stopped = self._hooks.should_stop()
        return self._was_stopped or self._seconds >= self._total_s

    def _read_if_cheap(self) -> bool:
        if not self._cost.allows_one_more():
            return False
        with self._cost.one_more():
            self._read()
        return True

    def _read(self) -> None:
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)  # each of many short waits for a busy thread of a loader would take 5 ms
        try:
            counts = read(self._counters)
        finally:
            sys.setswitchinterval(interval_s)
        self._also = self._monitors.sample()
        self._note("reading", counts=counts, **({"also": self._also} if self._also else {}))
        if self._hooks.on_reading is not None:
            self._hooks.on_reading(self._iteration, self._seconds, counts, self._also)

    def _check(self, thresholds: Thresholds, *, is_last: bool = False) -> None:
        now = self._last_check = time.monotonic()
        self._checked_at = self._iteration
        if not self._has_failed:
            self._look_for_failures()
        for verdict in self._monitors.verdicts():
            self._invalid(verdict.counter, verdict.why)
        gpu, cpu = self._memory_mb()
        gained = gpu - self._baseline[0], cpu - self._baseline[1]
        self._most = max(self._most[0], gained[0]), max(self._most[1], gained[1])
        limits = thresholds.gpu_leak_mb, thresholds.cpu_leak_mb
        for what, grown, limit in zip(("GPU", "CPU"), gained, limits, strict=True):
            if grown >= limit and not self._has_failed:
                self._fail(f"{what} memory grew by {grown:.1f} MB since the warm-up, the limit is {limit:g} MB")
        if is_last or self._has_failed or now >= self._next_line:
            self._next_line = now + max(_SECONDS_PER_LINE, self._total_s / _MOST_LINES)
            check = Check(self._seconds / 3600, self._iteration, gpu, gained[0], cpu, gained[1], 0)
            self._note("check", line=str(check), gpu_leak_mb=self._most[0], cpu_leak_mb=self._most[1])
            self._hooks.lines(str(check))
        self._beat(now)

    def _look_for_failures(self) -> None:
        for failure in self._task.failures():
            self._fail(f"{failure} after {self._iteration} iterations")

    def _memory_mb(self) -> tuple[float, float]:
        gpu, cpu = (counter.read() / MEGABYTE if counter else 0.0 for counter in self._memory)
        return gpu, cpu

    def _fail(self, text: str, **also: str) -> None:
        self._has_failed = True
        self._note("failure", text=text, **also)
        self._tell("FAIL")

    def _invalid(self, counter: str, why: str) -> None:
        if (text := f"{counter}: {why}") not in self._known:
            self._known.add(text)
            self._note("invalid", counter=counter, why=why)
            self._tell("INVALID")

    def _tell(self, outcome: Outcome) -> None:
        if self._hooks.on_problem is not None:
            self._hooks.on_problem(outcome)

    def _note(self, kind: str, **also: object) -> None:
        place = {"iteration": self._iteration, "seconds": round(self._seconds, 4)}
        self._log.append({"kind": kind, "process": self._number} | place | also)
