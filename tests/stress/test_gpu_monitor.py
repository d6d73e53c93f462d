"""A GPU that fails during a run makes it INVALID; one that is hot explains it. NVML is made up but on a real GPU.

What the made-up NVML is asked is held against the signatures of the real `pynvml`, whose constants and errors it has.
"""

from __future__ import annotations

import inspect
import math
import os
from types import SimpleNamespace

import pytest
import torch

from robocache.stress.gpu_monitor import GpuMonitor
from robocache.stress.nvml_readings import GPU_VALUES
from robocache.stress.settings import choose_device

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed; pip install 'robocache[metrics]'")
pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
HANDLE, EVENTS = object(), object()


class MadeUpNvml:
    """`pynvml` of one GPU; `answers` says what each function gives, an exception is raised."""

    def __init__(self, **answers):
        self.xids = []
        self.asked = []
        self.answers = {
            "nvmlDeviceGetHandleByUUID": HANDLE,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=93, memory=41),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3_000_000_000, total=140_000_000_000),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 412_500,  # milliwatts
            "nvmlDeviceGetClockInfo": lambda handle, clock: {pynvml.NVML_CLOCK_SM: 1_980}.get(clock, 3_201),
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetComputeRunningProcesses": [
                SimpleNamespace(pid=os.getpid(), usedGpuMemory=700),
                SimpleNamespace(pid=-1, usedGpuMemory=90),
            ],
            "nvmlDeviceGetGraphicsRunningProcesses": [],
            "nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonGpuIdle,
            "nvmlDeviceGetIndex": 3,
            "nvmlEventSetCreate": EVENTS,
            "nvmlEventSetWait_v2": lambda events, milliseconds: self._next_event(),
        } | answers

    def __getattr__(self, name):
        real = getattr(pynvml, name)
        if not inspect.isroutine(real):
            return real

        def ask(*arguments):
            inspect.signature(real).bind(*arguments)
            self.asked.append(name)
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return ask

    def _next_event(self):
        if not self.xids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=self.xids.pop(0))


def monitor_of(nvml):
    monitor = GpuMonitor(nvml=nvml, uuid="GPU-0af3", least_seconds=0)
    monitor.start()
    return monitor


def test_every_figure_has_its_unit():
    """Catches a percentage, milliwatts or megahertz handed on as they come, and one figure left out."""
    monitor = monitor_of(MadeUpNvml())
    values = monitor.sample()
    assert monitor.index == 3
    assert tuple(sorted(values)) == tuple(sorted(GPU_VALUES))
    assert values == {
        "gpu_utilization_ratio": 0.93,
        "gpu_memory_utilization_ratio": 0.41,
        "gpu_memory_used_bytes": 3e9,
        "gpu_memory_total_bytes": 1.4e11,
        "gpu_temperature_celsius": 61,
        "gpu_power_watts": 412.5,
        "gpu_sm_clock_hertz": 1.98e9,
        "gpu_memory_clock_hertz": 3.201e9,
        "gpu_ecc_uncorrected_errors_total": 0,
        "gpu_ecc_corrected_errors_total": 0,
        "gpu_process_memory_bytes": 700,
        "gpu_processes": 2,
        "gpu_throttled_thermal": 0,
        "gpu_throttled_power": 0,
        "gpu_throttled_hardware": 0,
        "gpu_xid_errors_total": 0,
    }


def test_an_xid_error_makes_a_run_invalid():
    """Catches events that are taken one a sample, so that the last are never seen, or not asked for at the end."""
    nvml = MadeUpNvml()
    monitor = monitor_of(nvml)
    assert monitor.problems() == []
    nvml.xids += [79, 7_777]
    assert monitor.problems() == ["Xid errors on this GPU: 79 (the GPU has fallen off the bus), 7777"]
    nvml.xids += [13] * 10
    assert monitor.sample()["gpu_xid_errors_total"] == 12
    assert monitor.problems()[0].endswith(", 13 (graphics engine exception) and 4 more")


def test_only_new_uncorrected_errors_make_a_run_invalid():
    """Catches errors of last week that fail today's run, and corrected ones that do."""
    counts = {pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: 3, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED: 5}
    monitor = monitor_of(MadeUpNvml(nvmlDeviceGetTotalEccErrors=lambda handle, kind, since: counts[kind]))
    counts[pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED] += 2
    assert monitor.problems() == []
    assert monitor.notes() == ["3 uncorrected ECC errors were there before the run", "2 new corrected ECC errors"]
    counts[pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED] += 1
    assert monitor.problems() == ["1 new uncorrected ECC errors: bits of this GPU's memory are wrong"]


@pytest.mark.parametrize(
    ("bit", "note"),
    [
        ("HwThermalSlowdown", "thermal throttling in 2 of 3 samples, 61 degrees Celsius at most"),
        ("SwThermalSlowdown", "thermal throttling in 2 of 3 samples, 61 degrees Celsius at most"),
        ("SwPowerCap", "power throttling in 2 of 3 samples"),
        ("HwPowerBrakeSlowdown", "power throttling in 2 of 3 samples"),
        ("HwSlowdown", "hardware throttling in 2 of 3 samples"),
    ],
)
def test_throttling_is_noted_and_no_problem(bit, note):
    nvml = MadeUpNvml()
    monitor = monitor_of(nvml)
    nvml.answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = getattr(pynvml, f"nvmlClocksThrottleReason{bit}")
    values = monitor.sample()
    assert sum(values[name] for name in GPU_VALUES if name.startswith("gpu_throttled_")) == 1
    assert monitor.problems() == []
    assert monitor.notes() == [note]


def test_a_lost_gpu_makes_a_run_invalid():
    """Catches an error of NVML that is taken for a figure which the device does not have."""
    nvml = MadeUpNvml()
    monitor = monitor_of(nvml)
    nvml.answers["nvmlDeviceGetTemperature"] = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    assert monitor.problems() == ["the GPU is lost: GPU is lost"]


def test_what_a_device_does_not_tell_is_a_note_and_the_rest_is_sampled():
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    monitor = monitor_of(MadeUpNvml(nvmlDeviceRegisterEvents=unsupported, nvmlDeviceGetTotalEccErrors=unsupported))
    values = monitor.sample()
    assert [name for name in values if math.isnan(values[name])] == [
        "gpu_ecc_uncorrected_errors_total",
        "gpu_ecc_corrected_errors_total",
        "gpu_xid_errors_total",
    ]
    assert monitor.problems() == []
    assert monitor.notes() == [
        "not read: Xid errors (Not Supported)",
        "not read: gpu_ecc_uncorrected_errors_total (Not Supported)",
        "not read: gpu_ecc_corrected_errors_total (Not Supported)",
    ]


def test_a_machine_without_a_driver_gets_a_note():
    monitor = monitor_of(MadeUpNvml(nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)))
    assert monitor.sample() == {}
    assert (monitor.problems(), monitor.notes()) == ([], ["not read: NVML (Driver Not Loaded)"])
    monitor.close()


def test_close_ends_what_start_began():
    nvml = MadeUpNvml()
    monitor = monitor_of(nvml)
    monitor.close()
    monitor.close()
    assert [nvml.asked.count(name) for name in ("nvmlInit", "nvmlShutdown", "nvmlEventSetFree")] == [1, 1, 1]


def test_nvml_is_asked_once_a_second_at_most():
    """Catches a monitor that asks at every reading of the counters: tens of milliseconds a second."""
    nvml = MadeUpNvml()
    monitor = GpuMonitor(nvml=nvml, uuid="GPU-0af3", least_seconds=1_000)
    monitor.start()
    asked = len(nvml.asked)
    for _ in range(100):
        monitor.sample()
    assert len(nvml.asked) == asked


@pytest.mark.gpu
def test_on_a_gpu_every_figure_is_read():
    """Strict: a figure that this GPU does not give fails, and so does one that cannot be true."""
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("NVML needs a GPU, and PyTorch finds none here")
    held = torch.zeros(1_000_000_000, dtype=torch.uint8, device="cuda")
    monitor = GpuMonitor("cuda", least_seconds=0)
    monitor.start()
    try:
        values = dict(monitor.sample())
        assert monitor.problems() == []
        unread = [note for note in monitor.notes() if note.startswith("not read")]
    finally:
        monitor.close()
    assert unread == []
    total = torch.cuda.get_device_properties("cuda").total_memory
    assert held.nbytes <= values["gpu_memory_used_bytes"] <= values["gpu_memory_total_bytes"]
    assert values["gpu_memory_total_bytes"] == pytest.approx(total, rel=0.05)
    assert 10 < values["gpu_temperature_celsius"] < 110
    assert 10 < values["gpu_power_watts"] < 1_500
    assert 1e8 < values["gpu_sm_clock_hertz"] < 5e9
    assert 1e8 < values["gpu_memory_clock_hertz"] < 2e10
    assert 0 <= values["gpu_utilization_ratio"] <= 1
    assert values["gpu_xid_errors_total"] == values["gpu_ecc_uncorrected_errors_total"] == 0
