"""What the C library and the kernel say about this process; NaN where they do not."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")
_SHARED_MEMORY = Path("/dev/shm")
_MALLINFO2 = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


def heap_bytes() -> float:
    """Live bytes of malloc; under another allocator than the C library's this reads 0, which is no count."""
    heap_info = getattr(psutil, "heap_info", None)
    if heap_info is None:
        return math.nan
    heap = heap_info()
    return float(heap.heap_used + heap.mmap_used) or math.nan


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2)


def heap_free_bytes() -> float:
    """Bytes that malloc holds and nobody uses; what grows here while the heap stays level is fragmentation."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)  # of glibc 2.33 and later
    if mallinfo2 is None:
        return math.nan
    mallinfo2.restype = _Mallinfo2
    information = mallinfo2()
    return float(information.fordblks) if information.uordblks else math.nan


def child_processes() -> float:
    """Children of any thread, those that ended and were not waited for as well."""
    children = 0
    try:
        for thread in os.listdir(_PROCESS / "task"):  # noqa: PTH208  a tenth of the cost of Path.iterdir
            children += (_PROCESS / "task" / thread / "children").read_bytes().count(b" ")
    except FileNotFoundError:  # a thread that ended meanwhile, or a kernel without these files
        return float(len(psutil.Process().children()))
    return float(children)


def shared_memory_files() -> float:
    """Files of this user in shared memory, by whomever: one that is closed and never unlinked shows only here."""
    try:
        with os.scandir(_SHARED_MEMORY) as entries:
            return float(sum(_is_own(entry) for entry in entries))
    except FileNotFoundError:
        return math.nan


class Mappings:
    """`/proc/self/maps`, read once for both of its counts: it costs as much as everything else together.

    Args:
        every: Read it at every so many calls of `count` only; what lies between gets the counts before.
    """

    def __init__(self, *, every: int = 1) -> None:
        self._path = _PROCESS / "maps"
        self._every = every
        self._calls = 0
        self._counts = math.nan, math.nan
        self._is_counted = False

    def count(self) -> float:
        """How many mappings there are."""
        if self._calls % self._every == 0:
            self._counts = self._read()
        self._calls += 1
        self._is_counted = True
        return self._counts[0]

    def shared_bytes(self) -> float:
        """Bytes of shared memory that are mapped; as of the `count` right before it, if there was one."""
        if not self._is_counted:
            self._counts = self._read()
        self._is_counted = False
        return self._counts[1]

    def _read(self) -> tuple[float, float]:
        text = self._path.read_bytes() if self._path.exists() else b""
        if not text:
            return math.nan, math.nan
        count = float(text.count(b"\n"))
        if b"/dev/shm/" not in text and b"/memfd:" not in text:
            return count, 0.0
        shared = [line for line in text.splitlines() if b"/dev/shm/" in line or b"/memfd:" in line]
        ranges = [line.split(b" ", 1)[0].split(b"-") for line in shared]
        return count, float(sum(int(end, 16) - int(start, 16) for start, end in ranges))


def _is_own(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except FileNotFoundError:
        return False
