"""What happens to a process from outside: deadlocks, a slow machine, clocks, disks and workers that fail."""

from __future__ import annotations

import ctypes
import errno
import itertools
import multiprocessing
import operator
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

from robocache import ops
from robocache.testing.faults.catalogue import ON_A_CPU, after_every_call, fault, wrapped

_GOOD_CALLS = 40  # few enough for a burn-in of seconds on a busy machine
_JUMP_S = 3.0
_GOOD_SHARDS = 3
_STEPS_PER_S = 100  # by so many steps of a loop, each some 10 ns, calls take longer after a second


@fault(
    "deadlock_holding_the_gil",
    "C code waits for a lock for ever and holds the interpreter's",
    scenario="burn-in",
    reason="hang: .*in deadlock_in_c",
)
def deadlock_holding_the_gil(_: str) -> Iterator[None]:
    """No signal handler and no Python thread can end it."""
    mutex, c = ctypes.create_string_buffer(64), ctypes.PyDLL(None)

    def deadlock_in_c() -> None:
        c.pthread_mutex_lock(mutex)
        c.pthread_mutex_lock(mutex)

    with after_every_call(_after_good_calls(deadlock_in_c)):
        yield


@fault(
    "deadlock_without_the_gil",
    "a thread waits for ever for a lock that it holds itself",
    scenario="burn-in",
    reason="hang: .*in deadlock_in_python",
)
def deadlock_without_the_gil(_: str) -> Iterator[None]:
    """Other threads go on."""
    lock = threading.Lock()

    def deadlock_in_python() -> None:
        lock.acquire()
        lock.acquire()

    with after_every_call(_after_good_calls(deadlock_in_python)):
        yield


@fault(
    "throughput_sagging",
    "each call does a little more the later it comes: hours of sagging by 1 % an hour, in seconds",
    scenario="ageing",
    reason=r"calls take at least [\d.]+ % more CPU time",
)
def throughput_sagging(_: str) -> Iterator[None]:
    """A list that is walked through, and grows with time: a machine that makes few calls sags as much as a fast one."""
    started = time.perf_counter()

    def around(resample: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        for _ in range(int(_STEPS_PER_S * (time.perf_counter() - started))):
            pass
        return resample(*args, **kwargs)

    with wrapped(ops, "resample_trajectories", around):
        yield


@fault(
    "clock_jumps_backwards",
    "all clocks go back by three seconds during the run",
    scenario="burn-in",
    reason="INVALID clock: it went back by",
)
def clock_jumps_backwards(_: str) -> Iterator[None]:
    """Rates and deadlines are wrong from then on."""
    back_s = [0.0]

    def shifted(clock: Callable[[], float]) -> Callable[[], float]:
        return lambda: clock() - back_s[0]

    with (
        mock.patch.object(time, "monotonic", shifted(time.monotonic)),
        mock.patch.object(time, "time", shifted(time.time)),
        after_every_call(_after_good_calls(lambda: operator.setitem(back_s, 0, _JUMP_S))),
    ):
        yield


@fault(
    "full_disk",
    "the disk is full at the fourth shard",
    scenario="cache-writing",
    reason="shard 3 was not written: .*(?:No space left|full|room|available)",
    devices=ON_A_CPU,
)
def full_disk(_: str) -> Iterator[None]:
    """The kernel says so where room is asked for."""
    shards = itertools.count()

    def around(allocate: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401
        if next(shards) >= _GOOD_SHARDS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(*args)

    with wrapped(os, "posix_fallocate", around):
        yield


@fault(
    "killed_worker",
    "a worker process is killed in the middle of its work",
    scenario="worker-processes",
    reason="worker processes died: .*signal 9",
)
def killed_worker(_: str) -> Iterator[None]:
    """By the signal that the kernel's out-of-memory killer sends."""
    submitted = itertools.count()

    def around(submit: Callable[..., Any], self: ProcessPoolExecutor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        future = submit(self, *args, **kwargs)
        if next(submitted) == 1 and (children := multiprocessing.active_children()):
            os.kill(children[0].pid or 0, signal.SIGKILL)
        return future

    with wrapped(ProcessPoolExecutor, "submit", around):
        yield


def _after_good_calls(action: Callable[[], object]) -> Callable[[], None]:
    calls = itertools.count(1)

    def act() -> None:
        if next(calls) == _GOOD_CALLS:
            action()

    return act
