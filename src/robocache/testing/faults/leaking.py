"""Leaks of everything that a process on a CPU can hold, by so much a call or at every so many calls."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import torch

from robocache import ops
from robocache.testing.faults.catalogue import OPERATIONS, after_every_call, fault, wrapped

SIZES = {"64b": 64, "1kb": 1_000, "10kb": 10_000, "100kb": 100_000}
_SCENARIO = "repeated-operation"
_OBJECT_BYTES = 64
_OBJECT = 31  # bytes in a `bytes` object of 64


def _add_leaks(size_name: str, size_bytes: int) -> None:
    @fault(
        f"native_heap_{size_name}",
        f"every call of an operation loses {size_bytes} bytes of malloc",
        scenario=_SCENARIO,
        reason="FAIL heap_bytes",
    )
    def native_heap(_: str) -> Iterator[None]:
        c = ctypes.CDLL(None)
        c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
        lost = _Kept()
        with after_every_call(lambda: lost.keep(c.malloc(size_bytes))):
            yield
        for address in lost.things:
            c.free(address)

    @fault(
        f"python_objects_{size_name}",
        f"every call keeps Python objects of {size_bytes} bytes together",
        scenario=_SCENARIO,
        reason="FAIL python_blocks",
    )
    def python_objects(_: str) -> Iterator[None]:
        lost = _Kept()
        count = max(1, size_bytes // _OBJECT_BYTES)
        with after_every_call(lambda: lost.keep(tuple(bytes(_OBJECT) for _ in range(count)))):
            yield

    @fault(
        f"tensors_{size_name}",
        f"every call keeps a tensor of {size_bytes} bytes in host memory",
        scenario=_SCENARIO,
        reason="FAIL tensors",
    )
    def tensors(_: str) -> Iterator[None]:
        lost = _Kept()
        with after_every_call(lambda: lost.keep(torch.zeros(size_bytes, dtype=torch.uint8))):
            yield


class _Kept:
    """Keeps what it is given, at every `every`-th call; makes it only then."""

    def __init__(self, *, every: int = 1) -> None:
        self.things: list[Any] = []
        self._calls = itertools.count(1)
        self._every = every

    def keep(self, thing: object) -> None:
        self.things.append(thing)

    def make(self, maker: Callable[[], object]) -> None:
        if next(self._calls) % self._every == 0:
            self.things.append(maker())


for _name, _bytes in SIZES.items():
    _add_leaks(_name, _bytes)


@fault("tensor_every_100_calls", "one call in a hundred keeps a tensor", scenario=_SCENARIO, reason="FAIL tensors")
def tensor_every_100_calls(_: str) -> Iterator[None]:
    """One small tensor at every hundredth call."""
    lost = _Kept(every=100)
    with after_every_call(lambda: lost.make(lambda: torch.zeros(64))):
        yield


@fault(
    "growing_cache", "a cache whose key never comes again, without a bound", scenario=_SCENARIO, reason="FAIL python_b"
)
def growing_cache(_: str) -> Iterator[None]:
    """A plan kept for each call."""
    cache: dict[int, tuple[float, str]] = {}
    with after_every_call(lambda: cache.setdefault(len(cache) + 1_000, (float(len(cache)), f"plan {len(cache)}"))):
        yield


@fault("descriptors", "a file stays open every fifth call", scenario=_SCENARIO, reason="FAIL open_files")
def descriptors(_: str) -> Iterator[None]:
    """Descriptors of the null device."""
    lost = _Kept(every=5)
    with after_every_call(lambda: lost.make(lambda: os.open(os.devnull, os.O_RDONLY))):
        yield
    for descriptor in lost.things:
        os.close(descriptor)


@fault("threads", "a thread that waits for ever, every twentieth call", scenario=_SCENARIO, reason="FAIL threads")
def threads(_: str) -> Iterator[None]:
    """Threads that nobody joins."""
    may_end = threading.Event()

    def start() -> threading.Thread:
        thread = threading.Thread(target=may_end.wait, daemon=True)
        thread.start()
        return thread

    lost = _Kept(every=20)
    with after_every_call(lambda: lost.make(start)):
        yield
    may_end.set()
    for thread in lost.things:
        thread.join()


@fault("shared_memory", "a block of shared memory every tenth call", scenario=_SCENARIO, reason="FAIL shared_memory_by")
def shared_memory(_: str) -> Iterator[None]:
    """Blocks that are mapped and never closed."""
    lost = _Kept(every=10)
    with after_every_call(lambda: lost.make(lambda: SharedMemory(create=True, size=65_536))):
        yield
    for block in lost.things:
        block.close()
        block.unlink()


@fault(
    "shared_memory_files",
    "a block of shared memory is closed and never unlinked, every fifth call",
    scenario=_SCENARIO,
    reason="FAIL shared_memory_files",
)
def shared_memory_files(_: str) -> Iterator[None]:
    """Files without a mapping: no counter of the process itself sees them."""

    def forget() -> SharedMemory:
        block = SharedMemory(create=True, size=4_096)
        block.close()
        return block

    lost = _Kept(every=5)
    with after_every_call(lambda: lost.make(forget)):
        yield
    for block in lost.things:
        block.unlink()


@fault(
    "child_processes", "a child that nobody ends, every hundredth call", scenario=_SCENARIO, reason="FAIL child_proc"
)
def child_processes(_: str) -> Iterator[None]:
    """Children that sleep."""
    lost = _Kept(every=100)
    with after_every_call(lambda: lost.make(lambda: subprocess.Popen(["sleep", "600"]))):
        yield
    for child in lost.things:
        child.kill()
        child.wait()


@fault(
    "leak_on_the_error_path",
    "an operation that refuses its input keeps a tensor of it",
    scenario="exceptions",
    reason="FAIL tensors",
)
def leak_on_the_error_path(_: str) -> Iterator[None]:
    """Good calls keep nothing."""
    lost = _Kept()

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return original(*args, **kwargs)
        except Exception:
            lost.keep(torch.zeros(16))
            raise

    with contextlib.ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(wrapped(ops, name, around))
        yield
