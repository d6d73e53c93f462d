"""What watches a long run besides its counters: the GPU's health, DCGM, Prometheus, the profiler, ranges for nsys."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from robocache.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from robocache.cli.long_options import LongOptions
    from robocache.stress.dcgm_monitor import DcgmMonitor
    from robocache.stress.gpu_monitor import GpuMonitor
    from robocache.stress.long_run import LongHooks
    from robocache.stress.long_settings import Thresholds
    from robocache.stress.metrics_server import MetricsServer
    from robocache.stress.monitors import Monitor
    from robocache.stress.profiling import IterationProfile
    from robocache.stress.tasks import Task


class Monitoring:
    """The monitors of a run, its task with ranges and the profiler around it, and what they have to say at the end.

    Args:
        options: `metrics_port`, `metrics_host`, `profile`, `nvtx`.
        header: Of the run's log.
        thresholds: Of its counters, for the verdict so far.

    Raises:
        BackendUnavailableError: Ranges are asked for, and this PyTorch cannot make any; or metrics, and
            their library is not installed.
        ArgumentError: The metrics' port cannot be had.
    """

    def __init__(self, options: LongOptions, header: Mapping[str, Any], thresholds: Thresholds) -> None:
        from robocache.loader.nvtx import NVTX, check_ranges, ranges_are_on

        if options.nvtx:
            check_ranges("--nvtx", "leave it out")
            os.environ[NVTX] = "1"  # the loader asks too, and so do the processes that it starts
        ranges_are_on()
        self._name = str(header["scenario"])
        self._server = _server(options, header, thresholds)
        self._trace = _trace(options)
        self._profile: IterationProfile | None = None
        self._health = _health(str(header["device"]))
        self.monitors: list[Monitor] = [*self._health, *([] if self._server is None else [self._server])]

    def first_lines(self) -> list[str]:
        """Where to look during the run."""
        return [] if self._server is None else [f"metrics: {self._server.url}"]

    def watched(self, task: Task) -> Task:
        """The task, with whatever was asked for around each iteration, and the notes in what it measured.

        Args:
            task: What the run repeats.
        """
        if self._trace is not None:
            from robocache.stress.profiling import FIRST, ITERATIONS, IterationProfile

            is_long = task.warm_up <= 1  # a whole scenario, not an iteration of milliseconds
            self._profile = IterationProfile(
                self._trace, first=1 if is_long else FIRST, iterations=1 if is_long else ITERATIONS
            )
            self.monitors.append(self._profile)
        return _WatchedTask(task, self._name, self._profile, self)

    def told(self, hooks: LongHooks) -> LongHooks:
        """The hooks, which tell the metrics server too.

        Args:
            hooks: Of the run.
        """
        if self._server is None:
            return hooks
        return replace(hooks, on_reading=self._server.reading, on_problem=self._server.problem)

    def notes(self) -> list[str]:
        """What explains the run's figures, for its report."""
        notes = [note for each in self._health for note in each.notes()]
        return notes + ([] if self._profile is None else self._profile.notes())


class _WatchedTask:
    def __init__(self, task: Task, name: str, profile: IterationProfile | None, monitoring: Monitoring) -> None:
        from robocache.loader.nvtx import in_ranges

        self._task = task
        self._profile = profile
        self._monitoring = monitoring
        # What the profiler keeps must be there before leaks are looked for.
        self.warm_up = max(task.warm_up, 0 if profile is None else profile.last + 1)
        self.deadline_s, self.maps_files = task.deadline_s, task.maps_files
        run = in_ranges(f"robocache: {name} iteration", task.run)
        self.run = run if profile is None else profile.profiled(run)
        self.failures, self.close = task.failures, task.close

    def measured(self) -> dict[str, float | str]:
        notes = {f"note_{number}": note for number, note in enumerate(self._monitoring.notes(), 1)}
        return {**self._task.measured(), **({} if self._profile is None else self._profile.measured()), **notes}


def _server(options: LongOptions, header: Mapping[str, Any], thresholds: Thresholds) -> MetricsServer | None:
    if options.metrics_port is None:
        return None
    from robocache.stress.long_settings import watched_counters
    from robocache.stress.metrics_server import Labels, MetricsServer

    device = str(header["device"])
    labels = Labels(str(header["scenario"]), device, float(header["seconds"]))
    counters = watched_counters(device, thresholds)
    server = MetricsServer(options.metrics_port, labels=labels, counters=counters, host=options.metrics_host)
    server.check()
    return server


def _trace(options: LongOptions) -> Path | None:
    if options.profile is not None and not options.profile.name.endswith((".json", ".json.gz")):
        raise ArgumentError(f"--profile writes a trace named .json or .json.gz, got {str(options.profile)!r}")
    return options.profile


def _health(device: str) -> tuple[()] | tuple[GpuMonitor, DcgmMonitor]:
    if not device.startswith("cuda"):
        return ()
    from robocache.stress.dcgm_monitor import DcgmMonitor
    from robocache.stress.gpu_monitor import GpuMonitor

    gpu = GpuMonitor(device)
    return gpu, DcgmMonitor(lambda: gpu.index)
