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
    """`/proc/self/maps`, read once for both of its counts: it costs more than everything else together."""

    def __init__(self) -> None:
        self._path = _PROCESS / "maps"
        self._unused = b""

    def count(self) -> float:
        """How many mappings there are."""
        self._unused = self._read()
        return float(self._unused.count(b"\n")) or math.nan

    def shared_bytes(self) -> float:
        """Bytes of shared memory that are mapped; of the text of the `count` right before it, if there was one."""
        text, self._unused = self._unused or self._read(), b""
        if not text:
            return math.nan
        if b"/dev/shm/" not in text and b"/memfd:" not in text:
            return 0.0
        shared = [line for line in text.splitlines() if b"/dev/shm/" in line or b"/memfd:" in line]
        ranges = [line.split(b" ", 1)[0].split(b"-") for line in shared]
        return float(sum(int(end, 16) - int(start, 16) for start, end in ranges))

    def _read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""


def _is_own(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except FileNotFoundError:
        return False
