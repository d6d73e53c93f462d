"""The suite against every fault of the catalogue: who notices what, for which reason, and after how long.

Each pair of a fault and a scenario runs in a process of its own, with a deadline, since faults hang, kill and eat
memory. A scenario that notices nothing is a defect of the suite; so is one that stops for another reason than the
fault's own; and a scenario that finds something where nothing is broken is no use at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from robocache.errors import ArgumentError
from robocache.stress.scenarios import SCENARIOS
from robocache.stress.settings import Settings
from robocache.testing import FAULTS, HangWatch

Status = Literal["killed", "survived", "other reason", "clean", "false alarm"]
NOTHING = "nothing"  # the fault of a run in which nothing is broken
DEADLINE_S = 400.0
BURN_IN_S = 8.0
_MOST_TEXT = 600
_GOOD: tuple[Status, ...] = ("killed", "clean")


@dataclass(frozen=True)
class Cell:
    """What came of one scenario with one fault.

    Args:
        fault: Its name; "nothing": nothing was broken.
        scenario: Its name.
        status: "killed": noticed, for the fault's own reason. "other reason": noticed for another. "survived": not
            noticed. Of a run with nothing broken: "clean" or "false alarm".
        seconds: From the injection to the scenario's end, which is when the fault is known.
        reason: What the scenario said.
        load: How many processes wanted a processor on this machine, over the minute before its end.
        beside_others: What came of it before, when other pairs ran too and it was run again; empty: it was run once.
    """

    fault: str
    scenario: str
    status: Status
    seconds: float
    reason: str
    load: float = 0.0
    beside_others: str = ""

    @property
    def is_good(self) -> bool:
        """A fault was killed for its own reason, or nothing was found where there is nothing."""
        return self.status in _GOOD

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"seconds": round(self.seconds, 2), "load": round(self.load, 1)}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Cell:
        """From what `as_dict` gave.

        Args:
            document: Of JSON.
        """
        return Cell(**document)


def pairs(
    device: str, faults: Sequence[str] = (), *, is_full: bool = False, with_clean: bool = True
) -> list[tuple[str, str]]:
    """The runs of a matrix: every scenario with nothing broken, every fault with the scenario that must notice it.

    Args:
        device: "cpu", or "cuda": what cannot be there is left out.
        faults: Only these; none: all.
        is_full: Every fault with every scenario.
        with_clean: With the runs in which nothing is broken.

    Raises:
        ArgumentError: A name that the catalogue does not hold, or a fault that does not exist on the device.
    """
    kind = device.split(":", maxsplit=1)[0]
    for name in faults:
        if name not in FAULTS:
            raise ArgumentError(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
        if kind not in FAULTS[name].devices:
            raise ArgumentError(f"{name} can be injected on {' and '.join(FAULTS[name].devices)}, not on {device}")
    chosen = [fault for name, fault in FAULTS.items() if kind in fault.devices and (not faults or name in faults)]
    scenarios = [name for name, scenario in SCENARIOS.items() if kind in scenario.devices]
    wanted = {fault.scenario for fault in chosen}
    clean = [(NOTHING, name) for name in scenarios if with_clean and (is_full or name in wanted)]
    return clean + [(fault.name, name) for fault in chosen for name in scenarios if is_full or name == fault.scenario]


class UnderWay:
    """The processes of the pairs that run now: they end when the matrix does, whatever ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def start(self, command: Sequence[str], output: TextIO) -> subprocess.Popen[bytes] | None:
        """A process in a session of its own, so that whatever it starts ends with it; None once all is over."""
        with self._lock:
            if self._is_over:
                return None
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            self._processes.add(process)
            return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """One of them, and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with self._lock:
            self._processes.discard(process)

    def end_all(self) -> None:
        """All of them, and let no other start."""
        with self._lock:
            self._is_over = True
            left = list(self._processes)
        for process in left:
            self.end(process)


def run_matrix(
    runs: Sequence[tuple[str, str]], device: str, advance: Callable[[Cell], object] = lambda _: None, *, jobs: int = 1
) -> list[Cell]:
    """Each pair in a process of its own.

    Args:
        runs: Of `pairs`.
        device: Where.
        advance: Told about each cell, in this thread.
        jobs: How many at a time. Some of what is counted is the whole machine's, and neighbours take processors: with
            more than one, what goes wrong is run again, alone, and only that counts.
    """
    cells, disturbed, under_way = [], [], UnderWay()
    done: queue.SimpleQueue[Future[Cell]] = queue.SimpleQueue()  # in the order in which they end
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for fault, scenario in runs:
                pool.submit(run_pair, fault, scenario, device, under_way).add_done_callback(done.put)
            for _ in runs:
                cell = done.get().result()
                if jobs > 1 and not cell.is_good:
                    disturbed.append(cell)
                    continue
                cells.append(cell)
                advance(cell)
        except BaseException:
            # The pool waits for what is under way, and a pair may take minutes.
            pool.shutdown(wait=False, cancel_futures=True)
            under_way.end_all()
            raise
    for first in disturbed:
        alone = run_pair(first.fault, first.scenario, device)
        cells.append(replace(alone, beside_others=f"{first.status}: {first.reason}"))
        advance(cells[-1])
    return cells


def run_pair(fault: str, scenario: str, device: str, under_way: UnderWay | None = None) -> Cell:
    """One scenario with one fault, in a process of its own.

    Args:
        fault: Of the catalogue, or "nothing".
        scenario: Of `SCENARIOS`.
        device: Where.
        under_way: Of the matrix that wants it.
    """
    under_way = under_way or UnderWay()
    with tempfile.TemporaryDirectory(prefix="robocache-kill-") as folder:
        answer, errors = Path(folder, "answer.json"), Path(folder, "stderr")
        arguments = ", ".join(map(repr, (fault, scenario, device, str(answer))))
        code = f"from robocache.stress.kill_matrix import run_here; run_here({arguments})"
        started = time.monotonic()
        with errors.open("w") as output:
            process = under_way.start([sys.executable, "-c", code], output)
            if process is not None:
                try:
                    process.wait(timeout=DEADLINE_S)
                except subprocess.TimeoutExpired:
                    pass  # it is ended, and says nothing
                finally:
                    under_way.end(process)
        seconds = time.monotonic() - started
        return _cell(fault, scenario, answer, errors.read_text(errors="replace"), seconds)


def run_here(fault: str, scenario: str, device: str, answer: str) -> None:
    """The same in this process, which may not survive it; writes what the scenario said, if it comes to that.

    Args:
        fault: Of the catalogue, or "nothing".
        scenario: Of `SCENARIOS`.
        device: Where.
        answer: Path of the JSON.
    """
    settings = Settings(seconds=BURN_IN_S, batch_size=2, device=device)
    chosen = SCENARIOS[scenario]
    broken = contextlib.nullcontext() if fault == NOTHING else FAULTS[fault].injected(device)
    with HangWatch(limit_s=chosen.hang_s, file=2) as watch, broken:
        started = time.perf_counter()
        try:
            report = chosen.run(settings, watch.beat)
            said, undecided = list(report.problems), list(report.undecided)
        except Exception as error:  # noqa: BLE001  whatever it is, it is what the scenario said
            said, undecided = [f"{type(error).__name__}: {error}"], []
        seconds = time.perf_counter() - started
        Path(answer).write_text(json.dumps({"said": said, "undecided": undecided, "seconds": seconds}), "utf-8")


def _cell(fault: str, scenario: str, answer: Path, errors: str, seconds: float) -> Cell:
    if answer.is_file():
        found = json.loads(answer.read_text("utf-8"))
        said, seconds, undecided = "; ".join(found["said"]), found["seconds"], "; ".join(found["undecided"])
    else:
        kind = "hang" if "Timeout (" in errors else "the process ended without an answer"
        said, undecided = f"{kind}: {' '.join(errors.split())}", ""
    cell = Cell(fault, scenario, "survived", seconds, said[:_MOST_TEXT], os.getloadavg()[0])
    if fault == NOTHING:
        return replace(cell, status="false alarm" if said else "clean", reason=cell.reason or undecided[:_MOST_TEXT])
    if not said:
        return replace(cell, reason=undecided[:_MOST_TEXT])
    own = re.search(FAULTS[fault].reason, said, re.DOTALL)
    if own is None:
        return replace(cell, status="other reason")
    return replace(cell, status="killed", reason=_line_with(said, own))


def _line_with(said: str, match: re.Match[str]) -> str:
    """The one of several problems that is the fault's own; of a hang, where it hangs."""
    if said.startswith("hang"):
        return f"hang {said[match.end() - 24 : match.end()].strip()}"
    start = said.rfind("; ", 0, match.start()) + 2 if "; " in said[: match.start()] else 0
    end = said.find("; ", match.end())
    return said[start : end if end >= 0 else None][:200]
