"""Counters of a GPU's inside that only DCGM has: how many multiprocessors, how much of the memory's speed was used.

Read from `dcgmi dmon`: it comes with every DCGM and needs no Python of its own, while the bindings lie in a folder of
DCGM's installation, for one version of it.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping

# By DCGM's field number; its units are those of the names.
FIELDS: Mapping[int, str] = {
    1001: "dcgm_graphics_engine_active_ratio",
    1002: "dcgm_sm_active_ratio",
    1003: "dcgm_sm_occupancy_ratio",
    1005: "dcgm_dram_active_ratio",
    140: "dcgm_memory_temperature_celsius",
}
DCGM_VALUES = tuple(FIELDS.values())
"""Every name that a `DcgmMonitor` samples."""
_ROW = re.compile(r"^\s*GPU\s+(\d+)\s+(.*\S)\s*$")
_MOST_ERROR_CHARACTERS = 300
_SECONDS_TO_END = 5.0


class DcgmMonitor:
    """The last line of a `dcgmi dmon` that runs beside, once a second.

    Without `dcgmi`, or where it ends early (no host engine, no permission for profiling counters), there is a note,
    and NaN; never a problem.

    Args:
        gpu: Its number, as DCGM and NVML count; or who knows it once the run starts.
        program: `dcgmi`, or a path to it.
        milliseconds: Between two lines.
    """

    def __init__(self, gpu: int | Callable[[], int] = 0, *, program: str = "dcgmi", milliseconds: int = 1_000) -> None:
        self._find_gpu = gpu
        self._gpu = 0
        self._program = program
        self._milliseconds = milliseconds
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._values: Mapping[str, float] = {}
        self._rows = 0
        self._said: list[str] = []
        self._notes: list[str] = []

    def start(self) -> None:
        """Start `dcgmi dmon`, where there is one."""
        program = shutil.which(self._program)
        if program is None:
            self._notes.append(f"no DCGM counters: {self._program} is not installed (datacenter-gpu-manager has it)")
            return
        self._gpu = self._find_gpu() if callable(self._find_gpu) else self._find_gpu
        self._values = dict.fromkeys(DCGM_VALUES, math.nan)
        fields = ",".join(str(number) for number in FIELDS)
        self._process = subprocess.Popen(
            [program, "dmon", "-e", fields, "-i", str(self._gpu), "-d", str(self._milliseconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._thread = threading.Thread(target=self._follow, name="robocache-dcgm", daemon=True)
        self._thread.start()

    def sample(self) -> Mapping[str, float]:
        """The last line's figures, by the names in `DCGM_VALUES`; nothing where there is no `dcgmi`."""
        return self._values

    def problems(self) -> list[str]:
        """None: these counters explain, they do not judge."""
        return []

    def notes(self) -> list[str]:
        """Why there are no figures, if there are none."""
        ended = self._process is not None and self._process.poll() is not None
        if ended and self._thread is not None:
            self._thread.join(_SECONDS_TO_END)
        if ended:
            said = " ".join(" ".join(self._said).split())[-_MOST_ERROR_CHARACTERS:]
            return [
                *self._notes,
                f"no DCGM counters after {self._rows} lines: dcgmi dmon ended" + (f": {said}" if said else ""),
            ]
        return list(self._notes)

    def close(self) -> None:
        """End `dcgmi`."""
        self._notes = self.notes()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._thread is not None:
            self._thread.join()
        if process.stdout is not None:
            process.stdout.close()

    def _follow(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            values = self.values_of(line)
            if values is not None:
                self._rows += 1
                self._values = values
            elif not line.lstrip().startswith(("#", "ID")):
                self._said = [*self._said[-4:], line]
        self._values = dict.fromkeys(DCGM_VALUES, math.nan)

    def values_of(self, line: str) -> dict[str, float] | None:
        """What a line of `dcgmi dmon` says of this GPU; None: it is a heading, an error, or of another GPU.

        Args:
            line: Such as `GPU 0     0.931  0.874  N/A`.
        """
        row = _ROW.match(line)
        if row is None or int(row[1]) != self._gpu:
            return None
        cells = row[2].split()
        if len(cells) != len(FIELDS):
            return None
        return {name: _number(cell) for name, cell in zip(DCGM_VALUES, cells, strict=True)}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # N/A
        return math.nan
