"""What the driver has given to this process on a GPU; of the whole device only where nothing better can be had.

PyTorch's counters miss what was not allocated through PyTorch: raw streams, graphs, libraries' work space. The driver
counts all of it, by process in NVML (extra `metrics`), else for the device as a whole: then another process that takes
memory looks like a leak of this one, and one that gives some back hides a leak.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Processes = Mapping[int, float | None]


@dataclass(frozen=True)
class Readers:
    """Where the numbers come from; made up in tests.

    Args:
        device_bytes: In use on the whole device.
        processes: By process number, the bytes of each process on the device; None: NVML does not know how many.
            No reader: NVML cannot be asked.
        why_not: Why it cannot be asked, and the remedy.
    """

    device_bytes: Callable[[], float]
    processes: Callable[[], Processes] | None = None
    why_not: str = ""


class DriverMemory:
    """A counter's reading of driver memory, and what it is worth.

    The first `read`, with a CUDA context there, decides whose bytes are counted, so that one run never mixes both.

    Args:
        open_readers: Called by the first `read`.
        process: This process's number; None: the one it has.
    """

    def __init__(self, open_readers: Callable[[], Readers], *, process: int | None = None) -> None:
        self._open_readers = open_readers
        self._process = os.getpid() if process is None else process
        self._readers: Readers | None = None
        self._counted: int | None = None
        self._most_others = 0
        self._why_device = ""

    def read(self) -> float:
        """Bytes now; NaN when this process was listed at first and is no more."""
        readers = self._readers or self._open_readers()
        processes = {} if readers.processes is None else readers.processes()
        if self._readers is None:
            self._readers = readers
            self._decide(readers, processes)
        if self._counted is not None:
            held = processes.get(self._counted)
            return math.nan if held is None else held
        self._most_others = max(self._most_others, len(processes) - 1)
        return readers.device_bytes()

    def scope(self) -> str:
        """Whose bytes were counted; empty before the first `read`."""
        if self._readers is None:
            return ""
        if self._counted is not None:
            return "of this process"
        return f"of the whole device ({self._why_device})"

    def doubt(self) -> str:
        """Why no verdict can be based on them; empty: nothing speaks against it."""
        if not self._most_others:
            return ""
        others = "1 other process" if self._most_others == 1 else f"{self._most_others} other processes"
        return f"{others} seen on the device: run alone"

    def _decide(self, readers: Readers, processes: Processes) -> None:
        # In a container NVML may give the numbers of the host. One process alone is this one: it holds a context.
        own = self._process if self._process in processes or len(processes) != 1 else next(iter(processes))
        if processes.get(own) is not None:
            self._counted = own
        elif readers.processes is None:
            self._why_device = readers.why_not
        elif not processes:
            self._why_device = "NVML lists no process here, so others would not be seen"
        else:
            self._why_device = "NVML does not say which bytes are this process's"


def driver_memory(device: torch.device) -> DriverMemory:
    """Of a CUDA device, by NVML where it can be asked."""
    return DriverMemory(lambda: _open(device))


def _open(device: torch.device) -> Readers:
    def device_bytes() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return float(total - free)

    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        why_not = "nvidia-ml-py is not installed, so others would not be seen; pip install 'robocache[metrics]'"
        return Readers(device_bytes, None, why_not)
    try:
        nvml.nvmlInit()  # counted by NVML, and kept: to start it for each reading would take longer than the reading
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        _processes(nvml, handle)
    except nvml.NVMLError as error:
        return Readers(device_bytes, None, f"NVML: {error}, so others would not be seen")
    return Readers(device_bytes, lambda: _processes(nvml, handle))


def _processes(nvml: Any, handle: object) -> Processes:  # noqa: ANN401  a module that need not be there
    """Those that compute and those that draw; one that does both is listed twice with the same bytes."""
    listed = [*nvml.nvmlDeviceGetComputeRunningProcesses(handle), *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)]
    return {each.pid: None if each.usedGpuMemory is None else float(each.usedGpuMemory) for each in listed}
