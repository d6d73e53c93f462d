"""The health of a GPU during a run, by NVML: what makes the run worthless, and what explains its figures."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from robocache.stress.nvml_readings import CORRECTED, THROTTLED, UNCORRECTED, XID, Nvml, read_all

_MOST_EVENTS = 64  # taken at once; what is left comes at the next sample
_SECONDS_PER_PROBLEM = 0.2  # a run may ask for problems a hundred times a second
_KEPT_XIDS = 8  # named one by one
# Those of NVIDIA's list that a run of hours is most likely to meet.
_XID_MEANS = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "a process's work was stopped",
    45: "a process's work was cleaned up",
    48: "double-bit ECC error",
    63: "a memory row was remapped",
    64: "a memory row could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "the GPU's system processor timed out",
}


class GpuMonitor:
    """Utilisation, memory, temperature, power, clocks, throttling, ECC and Xid errors of one GPU.

    Xid errors, uncorrected ECC errors since `start` and a GPU that is lost are problems: what a run shows on such a GPU
    is worth nothing. Throttling, corrected errors and whatever cannot be read are notes. Without nvidia-ml-py (extra
    `metrics`) or a driver nothing is sampled, and a note says so.

    Args:
        device: A CUDA device, as PyTorch names it.
        least_seconds: Between two questions to NVML, which take milliseconds on some GPUs; in between `sample` repeats
            its last answer.
        nvml: The module `pynvml`; None: imported by `start`.
        uuid: Of the GPU, as NVML writes it ("GPU-..."). None: that of `device`.
    """

    def __init__(
        self,
        device: torch.device | str = "cuda",
        *,
        least_seconds: float = 1.0,
        nvml: Nvml = None,
        uuid: str | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._uuid = uuid
        self._nvml = nvml
        self._least_s = least_seconds
        self._handle: Any = None
        self._events: Any = None
        self._values: dict[str, float] = {}
        self._next_s = self._asked_s = -math.inf
        self._xids: list[int] = []
        self._xid_count = 0
        self._before: dict[str, float] = {}
        self._lost = ""
        self.index = 0  # as NVML and DCGM count, once started
        self._samples = 0
        self._throttled: dict[str, int] = {}
        self._hottest = -math.inf
        self._unread: dict[str, str] = {}

    def start(self) -> None:
        """Find the GPU, listen for Xid errors, and note the error counts that it begins with."""
        try:
            self._nvml = self._nvml or importlib.import_module("pynvml")
        except ImportError:
            self._unread["NVML"] = "nvidia-ml-py is not installed; pip install 'robocache[metrics]'"
            return
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._unread["NVML"] = str(error)
            self._nvml = None
            return
        try:
            uuid = self._uuid or f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            self.index = int(self._nvml.nvmlDeviceGetIndex(self._handle))
        except self._nvml.NVMLError as error:
            self._unread["the GPU"] = str(error)
            return
        self._listen()
        self.sample()
        self._before = {name: self._values[name] for name in (UNCORRECTED, CORRECTED)}

    def sample(self) -> Mapping[str, float]:
        """All figures, by the names in `GPU_VALUES`; NaN where NVML does not tell. Without NVML there are none."""
        now = time.monotonic()
        if self._handle is None or now < self._next_s:
            return self._values
        self._asked_s = now
        self._next_s = now + self._least_s
        values, failed = read_all(self._nvml, self._handle)
        self._take_events()
        self._values = values | {XID: math.nan if self._events is None else float(self._xid_count)}
        for name, error in failed.items():
            self._look_at(name, error)
        self._samples += 1
        for name in values:
            if name.startswith(THROTTLED) and values[name] == 1:
                self._throttled[name] = self._throttled.get(name, 0) + 1
        if values["gpu_temperature_celsius"] > self._hottest:
            self._hottest = values["gpu_temperature_celsius"]
        return self._values

    def problems(self) -> list[str]:
        """Xid errors, new uncorrected ECC errors, a GPU that is lost; as of now, or a fifth of a second ago."""
        if time.monotonic() > self._asked_s + _SECONDS_PER_PROBLEM:
            self._next_s = -math.inf
        self.sample()
        self._take_events()
        problems = [f"the GPU is lost: {self._lost}"] if self._lost else []
        if self._xid_count:
            named = ", ".join(_named(xid) for xid in self._xids)
            more = self._xid_count - len(self._xids)
            problems.append(f"Xid errors on this GPU: {named}" + (f" and {more} more" if more else ""))
        if new := self._new(UNCORRECTED):
            problems.append(f"{new:.0f} new uncorrected ECC errors: bits of this GPU's memory are wrong")
        return problems

    def notes(self) -> list[str]:
        """What explains figures and makes no run worthless."""
        notes = [
            f"{name.removeprefix(THROTTLED)} throttling in {count} of {self._samples} samples"
            + (f", {self._hottest:.0f} degrees Celsius at most" if name.endswith("thermal") else "")
            for name, count in self._throttled.items()
        ]
        if self._before.get(UNCORRECTED, 0) > 0:
            notes.append(f"{self._before[UNCORRECTED]:.0f} uncorrected ECC errors were there before the run")
        if new := self._new(CORRECTED):
            notes.append(f"{new:.0f} new corrected ECC errors")
        return notes + [f"not read: {what} ({why})" for what, why in self._unread.items()]

    def close(self) -> None:
        """Stop listening and let NVML go."""
        nvml, self._handle = self._nvml, None
        events, self._events = self._events, None
        self._nvml = None
        if nvml is None:
            return
        try:
            if events is not None:
                nvml.nvmlEventSetFree(events)
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            self._unread["the end of NVML"] = str(error)

    def _listen(self) -> None:
        nvml = self._nvml
        events = None
        try:
            events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(self._handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError as error:
            self._unread["Xid errors"] = str(error)
            if events is not None:
                nvml.nvmlEventSetFree(events)
            return
        self._events = events

    def _take_events(self) -> None:
        nvml = self._nvml
        for _ in range(_MOST_EVENTS if self._events is not None else 0):
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_TIMEOUT:  # which says that there is none
                    self._look_at("Xid errors", error)
                return
            if event.eventType & nvml.nvmlEventTypeXidCriticalError:
                self._xid_count += 1
                if len(self._xids) < _KEPT_XIDS:
                    self._xids.append(int(event.eventData))

    def _look_at(self, what: str, error: Any) -> None:  # noqa: ANN401  an exception of a module that need not be there
        if error.value in (self._nvml.NVML_ERROR_GPU_IS_LOST, self._nvml.NVML_ERROR_RESET_REQUIRED):
            self._lost = str(error)
        self._unread.setdefault(what, str(error))

    def _new(self, name: str) -> float:
        new = self._values.get(name, math.nan) - self._before.get(name, math.nan)
        return new if new > 0 else 0.0


def _named(xid: int) -> str:
    return f"{xid} ({_XID_MEANS[xid]})" if xid in _XID_MEANS else str(xid)
