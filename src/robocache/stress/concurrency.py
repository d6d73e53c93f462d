"""Inference from several threads at once: every result of every thread is right."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import leaked_per_round
from robocache.stress.settings import Settings
from robocache.stress.workload import Workload

THREADS = 4
ITERATIONS = 100
_DEADLINE_S = 60.0


class _Overlap:
    """How many threads are inside at once, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def concurrent_inference(
    settings: Settings, lines: Lines = silent, *, threads: int = THREADS, iterations: int = ITERATIONS
) -> Report:
    """`threads` threads run `iterations` each, on inputs of their own, all started at one moment.

    A failure of the report is a wrong element in any thread, or threads that never ran at the same time. An exception
    in a thread is raised.
    """
    workloads = [
        Workload(batch=settings.batch_size, device=settings.device, seed=settings.seed + thread)
        for thread in range(threads)
    ]
    overlap = _Overlap()
    start_line = threading.Barrier(threads, timeout=_DEADLINE_S)

    def run(workload: Workload) -> int:
        start_line.wait()
        for iteration in range(iterations):
            with overlap:
                workload.run(iteration)
        return workload.wrong_elements()

    started = time.monotonic()
    with ThreadPoolExecutor(threads, thread_name_prefix="robocache-stress") as pool:
        wrong = [done.result() for done in [pool.submit(run, workload) for workload in workloads]]
    seconds = time.monotonic() - started
    leaked = leaked_per_round(lambda: _start_and_join(workloads), rounds=8, warm_up=4)
    failures = [f"thread {thread}: {count} elements are wrong" for thread, count in enumerate(wrong) if count]
    if overlap.most < 2:
        failures.append("the threads never ran at the same time, so nothing was shown")
    failures += [f"{name} grows by {amount:g} a round of threads" for name, amount in leaked.items()]
    done = threads * iterations
    lines(
        f"{threads} threads x {iterations} iterations: {sum(wrong)} wrong elements, {done / seconds:.0f} iterations/s"
    )
    return Report(
        "concurrent-inference",
        settings.device,
        iterations=done,
        seconds=seconds,
        failures=tuple(failures),
        measured={"wrong_elements": sum(wrong), "most_threads_at_once": overlap.most},
    )


def _start_and_join(workloads: list[Workload]) -> None:
    with ThreadPoolExecutor(len(workloads)) as pool:
        for done in [pool.submit(workload.run, 0) for workload in workloads]:
            done.result()
    for workload in workloads:
        workload.wrong_elements()
