"""Inference for hours: the last minute is as right as the first, and holds as much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from robocache.errors import ArgumentError
from robocache.loader.nvtx import in_ranges
from robocache.stress.long_settings import thresholds_from_environment
from robocache.stress.monitor import Monitor
from robocache.stress.reading_cost import MAPS_EVERY, SHARE
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import MEGABYTE, QuietCollections, device_counters, host_counters, read
from robocache.stress.settings import BATCH_SIZE, DURATION, Settings
from robocache.stress.workload import Workload

ITERATIONS_PER_CHECK = 1_000
READINGS = 1_024
_SECONDS_PER_LINE = 1.0  # at least, and more in a long run
_MOST_LINES = 1_000
_SECONDS_PER_BEAT = 5.0
_WARM_UP_SHARE = 0.1  # of the duration, at most
_WARM_UP_ITERATIONS = (6, 1_000)  # every input set twice, at least


@dataclass(frozen=True)
class Check:
    """What one look at a running burn-in showed.

    Args:
        hours: Since the start.
        iteration: How many are done.
        gpu_mb: MB (10**6 bytes) that PyTorch has allocated on the GPU; 0 without one.
        gpu_leak_mb: Since the end of the warm-up.
        cpu_mb: MB resident in the host's memory.
        cpu_leak_mb: Since the end of the warm-up.
        wrong_elements: Of all results so far.
    """

    hours: float
    iteration: int
    gpu_mb: float
    gpu_leak_mb: float
    cpu_mb: float
    cpu_leak_mb: float
    wrong_elements: int

    def __str__(self) -> str:
        gpu_leak, cpu_leak = (round(leak, 1) + 0.0 for leak in (self.gpu_leak_mb, self.cpu_leak_mb))  # never "-0.0"
        return (
            f"[{self.hours:.2f}h] Iter {self.iteration}: GPU={self.gpu_mb:.1f}MB ({gpu_leak:+.1f}), "
            f"CPU={self.cpu_mb:.1f}MB ({cpu_leak:+.1f})"
        )


@dataclass(frozen=True)
class Hooks:
    """Who is told, and asked, while a burn-in runs.

    Args:
        lines: Gets each line: of the first check, of one a second or less after it, and of the last.
        on_check: Gets each `Check`; an exception from it ends the run.
        heartbeat: Called every few seconds, and at each check: as long as it is, nothing hangs.
        should_stop: Asked after each iteration; True ends the run early, with a verdict so far.
        after_iteration: Called after each; a test makes it leak.
    """

    lines: Lines = silent
    on_check: Callable[[Check], object] | None = None
    heartbeat: Callable[[], object] = int
    should_stop: Callable[[], bool] = bool
    after_iteration: Callable[[], object] = int


def burn_in(
    settings: Settings, hooks: Hooks | None = None, *, readings: int = READINGS, reading_share: float = SHARE
) -> Report:
    """Run inference for `settings.seconds`; look at results and memory every 1000 iterations, and once at the end.

    The counters are read up to `readings` times, evenly over the run, at most once an iteration, and less often where
    reading would take more than `reading_share` of the time.
    The report holds `gpu_leak_mb` and `cpu_leak_mb`, the most that any check saw, and a verdict for each counter.
    """
    run = _BurnIn(settings, hooks or Hooks(), readings, reading_share)
    run.hooks.lines(_first_line(settings))
    with QuietCollections():
        run.warm_up()
        run.loop()
    return run.report()


class _BurnIn:
    def __init__(self, settings: Settings, hooks: Hooks, readings: int, share: float) -> None:
        self.settings = settings
        self.hooks = hooks
        self.workload = Workload(batch=settings.batch_size, device=settings.device, seed=settings.seed, is_alone=True)
        self._run = in_ranges("robocache: burn-in iteration", self.workload.run)
        self._host = {counter.name: counter for counter in host_counters(maps_every=MAPS_EVERY)}
        self._device = {counter.name: counter for counter in device_counters(settings.device)}
        counters = thresholds_from_environment().applied([*self._host.values(), *self._device.values()])
        self._monitor = Monitor(counters, readings=readings + 1, share=share)
        self._readings = readings
        self._started = time.monotonic()
        self._deadline = self._started + settings.seconds
        self._iteration = 0
        self._baseline = (0.0, 0.0)
        self._last: Check | None = None
        self._most_leaked = [0.0, 0.0]
        self._is_last_shown = False
        self._was_stopped = False
        self._next_line = self._next_beat = 0.0

    def warm_up(self) -> None:
        """Let caches fill; what is held then is what must be held at the end."""
        least, most = _WARM_UP_ITERATIONS
        end = self._started + _WARM_UP_SHARE * self.settings.seconds
        while self._iteration < least or (self._iteration < most and time.monotonic() < end and not self._is_over()):
            self._iterate()
        self.workload.wrong_elements()
        self._memory_mb()
        self._baseline = self._memory_mb()

    def loop(self) -> None:
        """Until the time is over, and one check more."""
        pause = (self._deadline - time.monotonic()) / self._readings
        next_reading = time.monotonic()
        while not self._is_over():
            self._iterate()
            if time.monotonic() >= next_reading and self._monitor.read_if_cheap(self._iteration):
                next_reading = max(next_reading + pause, time.monotonic() - pause)
            if self._iteration % ITERATIONS_PER_CHECK == 0 and self._check().wrong_elements:
                return
        if self._last is None or self._last.iteration != self._iteration:
            self._check(is_last=True)
        elif not self._is_last_shown:
            self.hooks.lines(str(self._last))

    def report(self) -> Report:
        """What it comes to."""
        failures = []
        check = self._last
        if check is None:
            raise ArgumentError("a burn-in reports after its loop")
        if check.wrong_elements:
            failures.append(
                f"{check.wrong_elements} elements of the results are wrong after {check.iteration} iterations"
            )
        early, late = self._monitor.rates()
        seconds = time.monotonic() - self._started
        report = Report(
            scenario="burn-in",
            device=self.settings.device,
            iterations=self._iteration,
            seconds=seconds,
            failures=tuple(failures),
            verdicts=self._monitor.verdicts(),
            measured={
                "gpu_leak_mb": self._most_leaked[0],
                "cpu_leak_mb": self._most_leaked[1],
                "iterations_per_second": self._iteration / seconds,
                "iterations_per_second_early": early,
                "iterations_per_second_late": late,
                "readings": self._monitor.readings,
                "milliseconds_per_reading": self._monitor.milliseconds_per_reading,
                "reading_share": self._monitor.cost_share,
                "was_stopped": str(self._was_stopped),
            },
            series=self._monitor.series(),
        )
        for verdict in report.undecided:
            self.hooks.lines(verdict)
        self.hooks.lines("")
        self.hooks.lines(_last_line(report, was_stopped=self._was_stopped))
        return report

    def _iterate(self) -> None:
        self._run(self._iteration)
        self._iteration += 1
        self._monitor.look_at_clock()
        self.hooks.after_iteration()
        if time.monotonic() >= self._next_beat:
            self._beat()

    def _beat(self) -> None:
        self.hooks.heartbeat()
        self._next_beat = time.monotonic() + _SECONDS_PER_BEAT

    def _is_over(self) -> bool:
        self._was_stopped = self.hooks.should_stop()
        return self._was_stopped or time.monotonic() >= self._deadline

    def _check(self, *, is_last: bool = False) -> Check:
        wrong = self.workload.wrong_elements()
        gpu, cpu = self._memory_mb()
        leaks = gpu - self._baseline[0], cpu - self._baseline[1]
        self._most_leaked = [max(pair) for pair in zip(self._most_leaked, leaks, strict=True)]
        hours = (time.monotonic() - self._started) / 3600
        self._last = Check(hours, self._iteration, gpu, leaks[0], cpu, leaks[1], wrong)
        self._beat()
        now = time.monotonic()
        self._is_last_shown = bool(is_last or wrong or now >= self._next_line)
        if self._is_last_shown:
            self.hooks.lines(str(self._last))
            self._next_line = now + max(_SECONDS_PER_LINE, self.settings.seconds / _MOST_LINES)
        if self.hooks.on_check is not None:
            self.hooks.on_check(self._last)
        return self._last

    def _memory_mb(self) -> tuple[float, float]:
        allocated = self._device.get("gpu_allocated_bytes")
        (resident,) = read([self._host["resident_bytes"]])
        return (allocated.read() if allocated else 0.0) / MEGABYTE, resident / MEGABYTE


def _first_line(settings: Settings) -> str:
    length = f"{settings.seconds:.0f} s ({settings.seconds / 3600:.2f} h)"
    where = f"on {settings.device}, {BATCH_SIZE}={settings.batch_size}"
    if settings.is_default_duration:
        return f"Burn-in of {length} {where}: {DURATION} is not set; `export {DURATION}=3600` makes it an hour"
    return f"Burn-in of {length} {where}"


def _last_line(report: Report, *, was_stopped: bool) -> str:
    if not report.passed:
        return f"✗ Burn-in failed after {report.iterations} iterations: " + "; ".join(report.problems)
    if was_stopped:
        return f"Burn-in stopped after {report.iterations} iterations, no memory leaks so far"
    return f"✓ Burn-in complete: {report.iterations} iterations, no memory leaks"
