"""What a loader that is left keeps, and what calls of many sizes keep."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from robocache import ops
from robocache.loader import Loader, Prefetcher
from robocache.loader.episodes import OpenEpisodes
from robocache.testing.faults.catalogue import after_every_call, fault, wrapped

_ABANDONED = "start-use-abandon"
_PIECE_BYTES = 25 * 4_096
_MOST_POINTS = 1_000


@fault(
    "loader_thread_left",
    "a loader's second thread waits for ever when the loader is left",
    scenario=_ABANDONED,
    reason=r"a loader .*: threads grows by",
)
def loader_thread_left(_: str) -> Iterator[None]:
    """Beside the one that reads ahead."""
    may_end, left = threading.Event(), list[threading.Thread]()

    def around(enter: Callable[..., Any], prefetcher: Prefetcher[Any]) -> Any:  # noqa: ANN401
        left.append(threading.Thread(target=may_end.wait, daemon=True))
        left[-1].start()
        return enter(prefetcher)

    with wrapped(Prefetcher, "__enter__", around):
        yield
    may_end.set()
    for thread in left:
        thread.join()


@fault(
    "episode_left_open",
    "a loader that is left does not close its episodes",
    scenario=_ABANDONED,
    reason=r"a loader .*: [1-9]\d* episodes are still open",
)
def episode_left_open(_: str) -> Iterator[None]:
    """Those that it held open at the end."""
    kept: list[OpenEpisodes] = []

    def around(_: Callable[..., Any], episodes: OpenEpisodes) -> None:
        kept.append(episodes)

    with wrapped(OpenEpisodes, "close", around):
        yield
    for episodes in kept:
        episodes.close()


@fault(
    "loader_buffer_left",
    "a loader that is left keeps a buffer",
    scenario=_ABANDONED,
    reason=r"a loader .*: tensors grows by",
)
def loader_buffer_left(_: str) -> Iterator[None]:
    """A small one."""
    kept: list[Tensor] = []

    def around(close: Callable[..., Any], loader: Loader) -> None:
        close(loader)
        kept.append(torch.zeros(16))

    with wrapped(Loader, "close", around):
        yield


@fault(
    "pool_in_pieces",
    "a pool beside malloc maps more for every call, since what it has free is in pieces too small for the next size",
    scenario="mixed-sizes",
    reason="FAIL resident_bytes: [^;]*; fragmentation",
)
def pool_in_pieces(_: str) -> Iterator[None]:
    """The heap in use stays level, and resident memory grows."""
    c = ctypes.CDLL(None)
    c.mmap.restype, c.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    writable, private = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    last = [0]  # each piece begins with the address of the one before: a list of Python's would be a leak of its own

    def map_a_piece() -> None:
        piece = c.mmap(None, _PIECE_BYTES, writable, private, -1, 0)
        ctypes.memset(piece, 1, _PIECE_BYTES)
        ctypes.c_uint64.from_address(piece).value = last[0]
        last[0] = piece

    with after_every_call(map_a_piece):
        yield
    piece = last[0]
    while piece:
        before = ctypes.c_uint64.from_address(piece).value
        c.munmap(piece, _PIECE_BYTES)
        piece = before


@fault(
    "large_sizes_cut_short",
    "clouds of more than a thousand points lose the rest",
    scenario="mixed-sizes",
    reason=r"[1-9]\d* results are wrong",
)
def large_sizes_cut_short(_: str) -> Iterator[None]:
    """A buffer of a fixed size."""

    def around(voxelize: Callable[..., Any], points: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return voxelize(points[:_MOST_POINTS], *args, **kwargs)

    with wrapped(ops, "voxelize_pointcloud", around):
        yield
