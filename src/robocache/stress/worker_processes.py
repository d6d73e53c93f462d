"""Inference in processes of their own: every worker's results are right, and every worker lives to the end."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings
from robocache.stress.workload import Workload

WORKERS = 2
ROUNDS = 4
ITERATIONS = 6
_DEADLINE_S = 120.0


class _Noting(SpawnContext):
    """Notes each process that is made: one that died at once is among no active children."""

    def __init__(self, made: list[SpawnProcess]) -> None:
        super().__init__()
        self._made = made

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: ANN401, N802
        """As the context makes them."""
        self._made.append(SpawnProcess(*args, **kwargs))
        return self._made[-1]


def worker_processes(settings: Settings, lines: Lines = silent, *, rounds: int = ROUNDS) -> Report:
    """Two spawned workers share `rounds` pieces of work of six iterations each.

    A failure of the report is a wrong element in any of them, a worker that died, or a child left behind.
    """
    started = time.monotonic()
    before = len(multiprocessing.active_children())
    failures: list[str] = []
    workers: list[SpawnProcess] = []
    wrong: list[int] = []
    try:  # a worker may die before the last piece is handed over
        with ProcessPoolExecutor(WORKERS, mp_context=_Noting(workers)) as pool:
            wanted = [pool.submit(_infer, settings, round_number) for round_number in range(rounds)]
            wrong = [done.result(timeout=_DEADLINE_S) for done in wanted]
    except BrokenProcessPool:
        # Looked at when the pool has ended: its thread waits for them too, and one of the two learns how they ended.
        died = ", ".join(_end(worker.exitcode) for worker in workers if worker.exitcode)
        failures.append(f"worker processes died: {died or 'no exit code is known'}")
    failures += [f"piece {number}: {count} elements are wrong" for number, count in enumerate(wrong) if count]
    left = len(multiprocessing.active_children()) - before
    if left > 0:
        failures.append(f"{left} worker processes are left behind")
    lines(f"{rounds} pieces of work in {WORKERS} processes, {len(failures)} failures")
    return Report(
        "worker-processes",
        settings.device,
        iterations=len(wrong) * ITERATIONS,
        seconds=time.monotonic() - started,
        failures=tuple(failures),
        measured={"workers": WORKERS},
    )


def _infer(settings: Settings, seed: int) -> int:
    workload = Workload(batch=settings.batch_size, device=settings.device, seed=settings.seed + seed)
    for iteration in range(ITERATIONS):
        workload.run(iteration)
    return workload.wrong_elements()


def _end(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
