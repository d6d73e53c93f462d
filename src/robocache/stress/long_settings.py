"""What a long run is: its thresholds, and the first line of its log."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from robocache.errors import ArgumentError
from robocache.stress.reading_cost import MAPS_EVERY
from robocache.stress.resources import MEGABYTE, Counter, device_counters, host_counters
from robocache.stress.settings import Settings

GPU_LEAK_MB, CPU_LEAK_MB = 100.0, 500.0
GPU_LEAK, CPU_LEAK = "ROBOCACHE_GPU_LEAK_MB", "ROBOCACHE_CPU_LEAK_MB"
_GPU_COUNTERS = ("gpu_allocated_bytes", "gpu_active_bytes", "gpu_reserved_bytes", "pinned_bytes", "driver_bytes")
_CPU_COUNTERS = ("heap_bytes", "heap_free_bytes", "resident_bytes")


@dataclass(frozen=True)
class Thresholds:
    """What may be gained before it is a leak.

    Args:
        gpu_leak_mb: MB (10**6 bytes) of GPU memory: more than the end of the warm-up at any check, or projected to 24
            hours.
        cpu_leak_mb: Of the host's.
        budgets: Of single counters, a day, by name; they go before the other two.
    """

    gpu_leak_mb: float = GPU_LEAK_MB
    cpu_leak_mb: float = CPU_LEAK_MB
    budgets: Mapping[str, float] = field(default_factory=dict)

    def applied(self, counters: Sequence[Counter]) -> tuple[Counter, ...]:
        """The counters with these budgets.

        Raises:
            ArgumentError: A budget of a counter that is not there.
        """
        names = [counter.name for counter in counters]
        if unknown := sorted(self.budgets.keys() - set(names)):
            raise ArgumentError(f"there is no counter {unknown[0]!r} here; there are {', '.join(names)}")
        own = dict.fromkeys(_GPU_COUNTERS, self.gpu_leak_mb * MEGABYTE)
        own |= dict.fromkeys(_CPU_COUNTERS, self.cpu_leak_mb * MEGABYTE)
        own |= self.budgets
        return tuple(replace(each, budget_per_day=own.get(each.name, each.budget_per_day)) for each in counters)


def thresholds_from_environment(environment: Mapping[str, str] | None = None) -> Thresholds:
    """`ROBOCACHE_GPU_LEAK_MB` (unset: 100) and `ROBOCACHE_CPU_LEAK_MB` (unset: 500).

    Args:
        environment: None: the process's own.

    Raises:
        ArgumentError: A variable holds something else than a number greater than 0; the message names it.
    """
    variables = os.environ if environment is None else environment
    return Thresholds(_megabytes(variables, GPU_LEAK, GPU_LEAK_MB), _megabytes(variables, CPU_LEAK, CPU_LEAK_MB))


def watched_counters(device: str, thresholds: Thresholds) -> tuple[Counter, ...]:
    """Every counter that is there on a device, with the budgets of a run."""
    return thresholds.applied((*host_counters(maps_every=MAPS_EVERY), *device_counters(device)))


def without_mapped_files(counters: Sequence[Counter]) -> tuple[Counter, ...]:
    """Resident memory without the pages of mapped files: those of a cache come and go as the system likes.

    Args:
        counters: Of a run.
    """
    process = psutil.Process()

    def private_bytes() -> float:
        memory = process.memory_info()
        return float(memory.rss - memory.shared)

    scope = "without the pages of mapped files"
    return tuple(
        replace(each, read=private_bytes, scope=lambda: scope) if each.name == "resident_bytes" else each
        for each in counters
    )


def run_header(
    scenario: str, settings: Settings, thresholds: Thresholds, environment: Mapping[str, Any], *, source: str = ""
) -> dict[str, Any]:
    """The first line of a run's log.

    Args:
        scenario: Its name.
        settings: How long, on what.
        thresholds: The budgets.
        environment: What a resumed run must share (`code`, `machine`, `torch`, `gpu`) and whatever is worth knowing.
        source: The recordings, for a run that has some.
    """
    counters = watched_counters(settings.device, thresholds)
    return {
        "scenario": scenario,
        "seconds": settings.seconds,
        "device": settings.device,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "source": source,
        "counters": [counter.name for counter in counters],
        "budgets": {counter.name: counter.budget_per_day for counter in counters},
        **environment,
        "time": now_text(),
    }


def now_text() -> str:
    """The time of day, for a log."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _megabytes(variables: Mapping[str, str], name: str, otherwise: float) -> float:
    text = variables.get(name)
    if text is None:
        return otherwise
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ArgumentError(f"{name} must be a number of MB, more than 0 (unset is {otherwise:g}), got {text!r}")
    return limit
