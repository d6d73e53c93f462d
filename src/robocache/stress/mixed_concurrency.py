"""Threads in processes at once, each thread on a CUDA stream of its own where there is one."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings
from robocache.stress.workload import Workload

PROCESSES, THREADS, ITERATIONS = 2, 2, 4
_DEADLINE_S = 240.0


def threads_streams_processes(
    settings: Settings,
    lines: Lines = silent,
    *,
    processes: int = PROCESSES,
    threads: int = THREADS,
    iterations: int = ITERATIONS,
) -> Report:
    """`processes` spawned processes of `threads` threads, `iterations` each, on inputs of their own.

    A failure of the report is a wrong element in any of them, or a process that died. An exception in a thread is
    raised.
    """
    started = time.monotonic()
    failures: list[str] = []
    wrong: list[list[int]] = []
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        wanted = [pool.submit(run_threads, settings, number, threads, iterations) for number in range(processes)]
        try:
            wrong = [done.result(timeout=_DEADLINE_S) for done in wanted]
        except BrokenProcessPool:
            failures.append("a process died")
    failures += [
        f"process {process}, thread {thread}: {count} elements are wrong"
        for process, counts in enumerate(wrong)
        for thread, count in enumerate(counts)
        if count
    ]
    done = processes * threads * iterations
    lines(f"{processes} processes x {threads} threads x {iterations} iterations: {len(failures)} failures")
    return Report(
        "threads-streams-processes",
        settings.device,
        iterations=done,
        seconds=time.monotonic() - started,
        failures=tuple(failures),
        measured={"streams": processes * threads if settings.device.startswith("cuda") else 0},
    )


def run_threads(
    settings: Settings, process: int, threads: int, iterations: int, after_iteration: Callable[[], object] = int
) -> list[int]:
    """What one process does; how many elements of each thread are wrong.

    Args:
        settings: Device, batch size and seed.
        process: Its number.
        threads: How many.
        iterations: Of each.
        after_iteration: Called after each.
    """

    def run(thread: int) -> int:
        seed = settings.seed + process * threads + thread
        with _own_stream(settings.device):
            workload = Workload(batch=settings.batch_size, device=settings.device, seed=seed)
            for iteration in range(iterations):
                workload.run(iteration)
                after_iteration()
            return workload.wrong_elements()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def _own_stream(device: str) -> contextlib.AbstractContextManager[object]:
    if torch.device(device).type != "cuda":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[object] = torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    return context
