"""One run: every workload, every backend and peer; checked, then timed in turn; one dictionary as the result."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from robocache.benchmarks import host_timing, machine, scaling
from robocache.benchmarks.candidates import Absent, Candidate
from robocache.benchmarks.check import Judge
from robocache.benchmarks.device_timing import DeviceTimer, Rounds
from robocache.benchmarks.peers_numpy import numpy_peers
from robocache.benchmarks.peers_optional import optional_peers
from robocache.benchmarks.peers_torch import torch_peers
from robocache.benchmarks.results import SCHEMA
from robocache.benchmarks.workloads import Problem, Workload
from robocache.errors import RoboCacheError
from robocache.ops.backends import BACKENDS, choose_backend

QUICK_ROUNDS = Rounds(warm=3, cold=3, issue=3, synced=3)
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to run.

    Args:
        device: "cpu" or "cuda".
        quick: A few samples only.
        with_compile: Compile the PyTorch peers too.
        with_scaling: Also measure cost against size; on a GPU only.
        threads: PyTorch's threads on the CPU.
    """

    device: str
    quick: bool = False
    with_compile: bool = True
    with_scaling: bool = True
    threads: int = 1


def measure(settings: Settings, workloads: Sequence[Workload], report: Report) -> dict[str, Any]:
    """Measure; the result can be written as JSON.

    Args:
        settings: How.
        workloads: What.
        report: Called after each workload with its name.
    """
    with _threads(settings.threads), torch.no_grad():
        timer = _Timer(settings)
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **machine.commit(),
            "machine": machine.describe(),
            "versions": machine.versions(),
            "settings": asdict(settings),
            "device": settings.device,
            "load_average": machine.load_average(),
            "copy_bytes_per_s": timer.copy_bytes_per_s,
            "launch_us": timer.launch_us,
            "cases": [],
        }
        for workload in workloads:
            document["cases"].append(_case(workload, settings, timer))
            report(workload.name)
        document["scaling"] = _scaling(settings, timer)
    document["load_average_after"] = machine.load_average()
    return document


def faults(document: dict[str, Any]) -> list[str]:
    """Our own results that are wrong or could not be computed, one line each.

    Args:
        document: What `measure` returned.
    """
    lines = [
        f"{case['name']}: {result['name']} is {result['status']}: {result['reason']}"
        for case in document["cases"]
        for result in case["results"]
        if result["kind"] == "backend" and result["status"] in ("wrong", "failed")
    ]
    for entry in document["scaling"] or []:
        lines += [f"scaling of {entry['operation']}: {fault}" for fault in entry["faults"]]
    return lines


class _Timer:
    """The device's way of timing, and its floor."""

    def __init__(self, settings: Settings) -> None:
        self._effort = host_timing.QUICK if settings.quick else host_timing.Effort()
        self.gpu: DeviceTimer | None = None
        if settings.device == "cuda":
            self.gpu = DeviceTimer(QUICK_ROUNDS if settings.quick else Rounds())
            # Whatever runs on the CPU is there for its order of magnitude.
            self._effort = replace(self._effort, rounds=5, least_rounds=2)
            self.copy_bytes_per_s, self.launch_us = self.gpu.copy_bytes_per_s, self.gpu.launch_us
        else:
            size = 1 << 20 if settings.quick else 128 << 20
            source, destination = torch.ones(size, dtype=torch.int8), torch.empty(size, dtype=torch.int8)
            copied = host_timing.wall_times({"copy": lambda: destination.copy_(source)}, self._effort)
            self.copy_bytes_per_s, self.launch_us = 2 * size / copied["copy"]["wall_us"] * 1e6, 0.0

    def measure(self, candidates: Sequence[Candidate]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
        on_host = {one.name: one.run for one in candidates if one.is_on_host or self.gpu is None}
        times = host_timing.wall_times(on_host, self._effort)
        if self.gpu is None:
            return times, {}
        on_device = [one for one in candidates if not one.is_on_host]
        found, failures = self.gpu.measure({one.name: one.run for one in on_device if one.is_capturable})
        times |= found
        for one in on_device:
            if not one.is_capturable:
                times[one.name] = self.gpu.measure_eager(one.run)
        return times, failures


def _case(workload: Workload, settings: Settings, timer: _Timer) -> dict[str, Any]:
    problem = workload.problem(settings.device)
    everyone = [*_backends(problem), *torch_peers(problem, with_compile=settings.with_compile)]
    everyone += [*numpy_peers(problem), *optional_peers(problem)]
    judge = Judge(problem)
    results, right = [], []
    for one in everyone:
        entry, is_right = _verdict(one, judge)
        results.append(entry)
        right += [one] if isinstance(one, Candidate) and is_right else []
    del judge
    if settings.device == "cuda":
        torch.cuda.empty_cache()
    times, failures = timer.measure(right)
    needed = problem.needed_bytes()
    floor_us = max(needed / timer.copy_bytes_per_s * 1e6, timer.launch_us)
    for entry in results:
        if entry["name"] in times:
            entry |= {"status": "measured", "times": times[entry["name"]]}
        elif entry["name"] in failures:
            entry |= {"status": "failed", "reason": failures[entry["name"]]}
    _compare(results, floor_us)
    torch.compiler.reset()  # else the next shapes would count against the limit of recompilations
    gc.collect()
    return {
        "name": workload.name,
        "operation": workload.operation,
        "scaled": workload.scaled,
        "needed_bytes": needed,
        "output_bytes": problem.output_bytes(),
        "floor_us": floor_us,
        "results": results,
    }


def _backends(problem: Problem) -> Iterator[Candidate | Absent]:
    for name in BACKENDS:
        try:
            choose_backend(name, problem.device.type)
        except RoboCacheError as error:
            yield Absent(name, str(error))
        else:
            yield Candidate(name, problem.call(name), is_ours=True)


def _verdict(one: Candidate | Absent, judge: Judge) -> tuple[dict[str, Any], bool]:
    """The entry of a candidate, and whether it may be timed."""
    entry: dict[str, Any] = {"name": one.name, "kind": "backend" if one.name in BACKENDS else "peer"}
    if isinstance(one, Absent):
        return entry | {"status": one.status, "reason": one.reason}, False
    try:
        fault = judge.fault(one.read(one.run()), is_ours=one.is_ours)
    except Exception as error:  # noqa: BLE001  any library may fail in any way; the reason becomes the result
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return entry | {"status": "failed", "reason": reason}, False
    if fault is not None:
        return entry | {"status": "wrong", "reason": fault}, False
    return entry | {"status": "right"}, True


def _compare(results: list[dict[str, Any]], floor_us: float) -> None:
    """Write to each backend's entry its share of the floor, and how many times as long each peer takes."""
    for ours in results:
        if ours["kind"] != "backend" or ours["status"] != "measured":
            continue
        ours["share"] = floor_us / primary_us(ours["times"])
        ours["ratios"] = {
            other["name"]: ratio(ours["times"], other["times"])
            for other in results
            if other is not ours and other["status"] == "measured"
        }


def primary_us(times: dict[str, float]) -> float:
    """The figure that a comparison rests on: device time where there is one, else wall time.

    Args:
        times: Of one result.
    """
    return times["device_us"] if "device_us" in times else times["wall_us"]


def ratio(ours: dict[str, float], other: dict[str, float]) -> float:
    """How many times as long another takes; a library on the CPU beside a GPU is compared with a waited-for call.

    Args:
        ours: Times of a backend.
        other: Times of a peer, or of another backend.
    """
    if "device_us" in ours and "device_us" not in other:
        return other["wall_us"] / ours["synced_us"]
    return primary_us(other) / primary_us(ours)


def _scaling(settings: Settings, timer: _Timer) -> list[dict[str, Any]] | None:
    if timer.gpu is None or not settings.with_scaling:
        return None
    sizes = scaling.SIZES_BYTES[:1] if settings.quick else scaling.SIZES_BYTES
    return scaling.measure(timer.gpu.cold_us, choose_backend(None, "cuda"), "cuda", sizes)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
