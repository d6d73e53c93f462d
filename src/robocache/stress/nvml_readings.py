"""What NVML says of one GPU: every figure by name, NaN where the device does not tell."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

# The functions of the `pynvml` module take its handles and constants; all are untyped.
Nvml = Any
_Reading = Callable[[Nvml, Any], float]

THROTTLED = "gpu_throttled_"
THROTTLE_REASONS: Mapping[str, tuple[str, ...]] = {
    "thermal": ("nvmlClocksThrottleReasonSwThermalSlowdown", "nvmlClocksThrottleReasonHwThermalSlowdown"),
    "power": ("nvmlClocksThrottleReasonSwPowerCap", "nvmlClocksThrottleReasonHwPowerBrakeSlowdown"),
    "hardware": ("nvmlClocksThrottleReasonHwSlowdown",),
}
UNCORRECTED = "gpu_ecc_uncorrected_errors_total"
CORRECTED = "gpu_ecc_corrected_errors_total"
XID = "gpu_xid_errors_total"
_MEGAHERTZ = 1e6


def _ecc_errors(kind: str) -> _Reading:
    def read(nvml: Nvml, handle: object) -> float:
        return float(nvml.nvmlDeviceGetTotalEccErrors(handle, getattr(nvml, kind), nvml.NVML_VOLATILE_ECC))

    return read


_READINGS: Mapping[str, _Reading] = {
    "gpu_utilization_ratio": lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
    "gpu_memory_utilization_ratio": lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).memory / 100,
    "gpu_memory_used_bytes": lambda nvml, handle: float(nvml.nvmlDeviceGetMemoryInfo(handle).used),
    "gpu_memory_total_bytes": lambda nvml, handle: float(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    "gpu_temperature_celsius": lambda nvml, handle: float(
        nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    ),
    "gpu_power_watts": lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
    "gpu_sm_clock_hertz": lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * _MEGAHERTZ,
    "gpu_memory_clock_hertz": lambda nvml, handle: (
        nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM) * _MEGAHERTZ
    ),
    UNCORRECTED: _ecc_errors("NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
    CORRECTED: _ecc_errors("NVML_MEMORY_ERROR_TYPE_CORRECTED"),
}
_PROCESSES = ("gpu_process_memory_bytes", "gpu_processes")
GPU_VALUES = (*_READINGS, *_PROCESSES, *(THROTTLED + reason for reason in THROTTLE_REASONS), XID)
"""Every name that a `GpuMonitor` samples."""


def read_all(nvml: Nvml, handle: object) -> tuple[dict[str, float], dict[str, Exception]]:
    """Every figure but the Xid errors now, and by name why one could not be read.

    Args:
        nvml: The module `pynvml`.
        handle: Its handle of the device.
    """
    values: dict[str, float] = {}
    failed: dict[str, Exception] = {}

    def attempt(names: tuple[str, ...], read: Callable[[], Mapping[str, float]]) -> None:
        try:
            values.update(read())
        except nvml.NVMLError as error:
            values.update(dict.fromkeys(names, math.nan))
            failed.update(dict.fromkeys(names, error))

    for name, reading in _READINGS.items():
        attempt((name,), lambda name=name, reading=reading: {name: reading(nvml, handle)})  # type: ignore[misc]
    attempt(_PROCESSES, lambda: _processes(nvml, handle))
    attempt(tuple(THROTTLED + reason for reason in THROTTLE_REASONS), lambda: _throttling(nvml, handle))
    return values, failed


def _processes(nvml: Nvml, handle: object) -> dict[str, float]:
    """This process's bytes; in a container NVML may give the host's numbers, and one process alone is this one."""
    listed = {
        each.pid: math.nan if each.usedGpuMemory is None else float(each.usedGpuMemory)
        for each in (
            *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
            *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        )
    }
    own = next(iter(listed.values())) if len(listed) == 1 else listed.get(os.getpid(), math.nan)
    return {"gpu_process_memory_bytes": own, "gpu_processes": float(len(listed))}


def _throttling(nvml: Nvml, handle: object) -> dict[str, float]:
    bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return {
        THROTTLED + reason: float(any(bits & getattr(nvml, name) for name in names))
        for reason, names in THROTTLE_REASONS.items()
    }
