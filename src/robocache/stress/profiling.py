"""PyTorch's profiler over a few iterations of a run: a trace to look at, and the operators that took longest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robocache.errors import ArgumentError, OutputError

FIRST, ITERATIONS, TOP = 10, 20, 10
# What the profiler does for itself, and calls of CUDA's, which are no operators.
_NO_OPERATORS = ("robocache: iteration", "Activity Buffer Request", "Buffer Flush", "cuda")


@dataclass(frozen=True)
class Operator:
    """What one operator took, over all profiled iterations, without what it calls.

    Args:
        name: PyTorch's, or a kernel's.
        calls: How many.
        cpu_ms: Of the host's time.
        gpu_ms: Of the GPU's.
    """

    name: str
    calls: int
    cpu_ms: float
    gpu_ms: float

    def __str__(self) -> str:
        gpu = f", {self.gpu_ms:.3f} ms on the GPU" if self.gpu_ms else ""
        return f"{self.name}: {self.calls} calls, {self.cpu_ms:.3f} ms on the CPU{gpu}"


class IterationProfile:
    """Profiles `iterations` iterations from the one numbered `first`, and writes a trace for chrome://tracing.

    It satisfies the seam of the monitors; `profiled` wraps what is repeated. A bounded window, since a profiler keeps
    everything that it sees in memory; an early one, so that its memory is there before leaks are looked for.

    Args:
        path: Of the trace: `.json`, or `.json.gz`.
        first: Iterations before the window; caches fill and kernels compile in them.
        iterations: In the window.
    """

    def __init__(self, path: Path | str, *, first: int = FIRST, iterations: int = ITERATIONS) -> None:
        if first < 0 or iterations < 1:
            raise ArgumentError(f"a profile needs first >= 0 and iterations >= 1, got {first} and {iterations}")
        self._path = Path(path)
        self._first = first
        self._iterations = iterations
        self._seen = 0
        self._profiler: Any = None
        self._is_over = False
        self._profiled = 0
        self._operators: tuple[Operator, ...] = ()

    @property
    def last(self) -> int:
        """The number of iterations after which the window is over and its trace written."""
        return self._first + self._iterations

    def start(self) -> None:
        """Look whether the trace can be written.

        Raises:
            OutputError: Its folder is not there.
        """
        if not self._path.parent.is_dir():
            raise OutputError(f"{self._path}: there is no folder {self._path.parent} for the trace; make it")

    def profiled(self, run: Callable[[int], object]) -> Callable[[int], None]:
        """The same iteration, profiled when its turn comes.

        Args:
            run: Takes the number of an iteration.
        """

        def once(iteration: int) -> None:
            if self._is_over:
                run(iteration)
                return
            self._advance()
            if self._profiler is None:
                run(iteration)
                return
            with torch.profiler.record_function(f"robocache: iteration {iteration}"):
                run(iteration)
            self._profiled += 1

        return once

    def sample(self) -> Mapping[str, float]:
        """Nothing: the trace has it."""
        return {}

    def problems(self) -> list[str]:
        """None."""
        return []

    def notes(self) -> list[str]:
        """Where the trace is, or why there is none."""
        if self._profiler is not None:
            return [f"profile: under way after {self._profiled} iterations"]
        if not self._profiled:
            return [f"profile: none, since only {self._seen} iterations were done, and it begins after {self._first}"]
        return [f"profile: {self._profiled} iterations in {self._path}"]

    def operators(self) -> tuple[Operator, ...]:
        """Those that took longest, on the GPU where there is one; empty until the window is over."""
        return self._operators

    def measured(self) -> dict[str, str]:
        """For a report: the operators, by their rank."""
        return {f"profile_{rank:02d}": str(each) for rank, each in enumerate(self._operators, 1)}

    def close(self) -> None:
        """Write what there is, if the run ended within the window.

        Raises:
            OutputError: The trace cannot be written.
        """
        self._is_over = True
        if self._profiler is not None:
            self._finish()

    def _advance(self) -> None:
        if self._seen == self._first:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, acc_events=True)
            self._profiler.start()
        elif self._seen == self._first + self._iterations:
            self._finish()
        self._seen += 1

    def _finish(self) -> None:
        profiler, self._profiler = self._profiler, None
        self._is_over = True
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # else the last kernels are missing
        profiler.stop()
        try:
            profiler.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{self._path}: the trace cannot be written ({error})") from error
        found = [
            Operator(each.key, each.count, each.self_cpu_time_total / 1e3, each.self_device_time_total / 1e3)
            for each in profiler.key_averages()
            if not each.key.startswith(_NO_OPERATORS)
        ]
        found.sort(key=lambda each: (each.gpu_ms, each.cpu_ms), reverse=True)
        self._operators = tuple(found[:TOP])
