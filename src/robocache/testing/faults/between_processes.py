"""What one process does to another: memory that is shared, locks that are inherited, loaders of a parent."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robocache import ops
from robocache.loader import Loader
from robocache.loader.episodes import OpenEpisodes
from robocache.testing.faults.catalogue import ON_A_CPU, fault, wrapped

_PROCESSES = 2
_HEAD_BYTES, _ROOM_BYTES = 64, 4_000_000
_MEETING_S = 20.0
_WRONG = r"process \d, thread \d: [1-9]\d* elements are wrong"


@fault(
    "scratch_shared_between_processes",
    "two processes make their results in the same shared memory",
    scenario="threads-streams-processes",
    reason=_WRONG,
)
def scratch_shared_between_processes(_: str) -> Iterator[None]:
    """Threads of one process exclude each other; nobody excludes the other process."""
    with tempfile.TemporaryDirectory(prefix="robocache-fault-") as folder:
        path = Path(folder, "scratch")
        path.write_bytes(bytes(_HEAD_BYTES + _ROOM_BYTES))
        with _in_every_child(_through_shared_scratch, str(path)):
            yield


@fault(
    "lock_held_over_a_fork",
    "a thread of the parent holds the lock of the readers while it forks, and the child waits for it",
    scenario="fork-and-spawn",
    reason=r"child \d+ by fork: no answer within",
    devices=ON_A_CPU,
)
def lock_held_over_a_fork(_: str) -> Iterator[None]:
    """The child has the lock, and not the thread that would let it go."""
    lock = threading.Lock()

    def start(original: Callable[..., Any], process: Any) -> None:  # noqa: ANN401
        with lock:
            original(process)

    def have(original: Callable[..., Any], episodes: OpenEpisodes, group: Any) -> None:  # noqa: ANN401
        with lock:
            original(episodes, group)

    with wrapped(multiprocessing.process.BaseProcess, "start", start), wrapped(OpenEpisodes, "_have", have):
        yield


@fault(
    "parents_loader_used_in_a_fork",
    "a forked child may iterate over its parent's loader",
    scenario="fork-and-spawn",
    reason=r"child \d+ by fork: .*its parent's loader: (?:used|unknown)",
    devices=ON_A_CPU,
)
def parents_loader_used_in_a_fork(_: str) -> Iterator[None]:
    """Nobody asks whose process it is in."""
    with wrapped(Loader, "_check_usable", lambda *_: None):
        yield


def _in_every_child(broken: Callable[..., Any], *arguments: Any) -> contextlib.AbstractContextManager[None]:  # noqa: ANN401
    """Whatever a pool of processes is given to do, it does within `broken`."""

    def around(submit: Callable[..., Any], pool: ProcessPoolExecutor, work: Any, *args: Any) -> Any:  # noqa: ANN401
        return submit(pool, broken, *arguments, work, *args)

    return wrapped(ProcessPoolExecutor, "submit", around)


def _through_shared_scratch(path: str, work: Callable[..., Any], settings: Any, number: int, *args: Any) -> Any:  # noqa: ANN401
    own, lock = number % _PROCESSES, threading.Lock()
    written = np.memmap(path, np.uint8, "r+", 0, (_PROCESSES,))  # how many results each process has put there
    scratch = np.memmap(path, np.uint8, "r+", _HEAD_BYTES, (_ROOM_BYTES,))

    def around(fuse: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        result: Tensor = fuse(*inputs, **kwargs)
        with lock:
            content = result.cpu().contiguous().view(torch.uint8).reshape(-1)
            scratch[: len(content)] = content.numpy()
            written[own] += 1
            give_up = time.monotonic() + _MEETING_S
            while written[1 - own] < written[own] and time.monotonic() < give_up:
                threading.Event().wait(0.001)  # as long as the other one is at work too
            content = torch.from_numpy(scratch[: len(content)].copy())
        return content.view(result.dtype).reshape(result.shape).to(result.device)

    with wrapped(ops, "fuse_multimodal", around):
        return work(settings, number, *args)
