"""Readers that misbehave on purpose, and leaks to find: what a loader and a leak detector must cope with."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import TracebackType

import torch
from torch import Tensor

from robocache.errors import ArgumentError, ClosedError, DamagedRecordingError


class EagerReader:
    """Reads on until it is stopped; the fuse keeps a broken loader from eating the machine.

    Args:
        sample_bytes: Bytes of each sample: a tensor of bytes whose first eight are its number, see `number`.
        fuse: After so many samples it ends.
    """

    def __init__(self, *, sample_bytes: int = 4_000, fuse: int = 1_000) -> None:
        if sample_bytes < 8:
            raise ArgumentError(f"sample_bytes must be 8 or more to hold the sample's number, got {sample_bytes}")
        self.sample_bytes = sample_bytes
        self.fuse = fuse
        self.has_read = 0

    def __iter__(self) -> Iterator[Tensor]:
        while self.has_read < self.fuse:
            sample = torch.zeros(self.sample_bytes, dtype=torch.uint8)
            sample[:8].view(torch.int64)[0] = self.has_read
            self.has_read += 1
            yield sample
            del sample

    @staticmethod
    def number(sample: Tensor) -> int:
        """Which sample it is, counted from 0."""
        return int(sample[:8].view(torch.int64)[0])


class FailingReader(EagerReader):
    """Fails with a `DamagedRecordingError` after a number of good samples."""

    def __init__(self, *, good: int, sample_bytes: int = 4_000) -> None:
        super().__init__(sample_bytes=sample_bytes, fuse=good)

    def __iter__(self) -> Iterator[Tensor]:
        yield from super().__iter__()
        raise DamagedRecordingError("failing.mcap", "bytes are missing", offset=self.fuse * self.sample_bytes)


class StallingReader(EagerReader):
    """Gets stuck in a read after a number of good samples, until `close` unblocks it, as a reader's `close` must."""

    def __init__(self, *, good: int, sample_bytes: int = 4_000) -> None:
        super().__init__(sample_bytes=sample_bytes, fuse=good)
        self.is_stuck = False
        self._read_end, self._write_end = os.pipe()

    def __iter__(self) -> Iterator[Tensor]:
        yield from super().__iter__()
        self.is_stuck = True
        os.read(self._read_end, 1)  # a real system call: no Python-level flag can end it
        self.is_stuck = False
        raise ClosedError("the recording was closed during a read")

    def close(self) -> None:
        """Let the read return, which then finds its file closed."""
        os.write(self._write_end, b"\0")

    def __enter__(self) -> StallingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


class Leak:
    """Keeps one thing a call, so that a detector has something to find.

    Args:
        kind: "tensor" (`size_bytes` on `device`), "object" (a small Python object), "file" or "thread".
        size_bytes: For "tensor": bytes kept each time.
        every: Keep one only at every so many calls.
        device: Where tensors are kept.
    """

    KINDS = ("tensor", "object", "file", "thread")

    def __init__(self, kind: str, *, size_bytes: int = 512, every: int = 1, device: str = "cpu") -> None:
        if kind not in self.KINDS:
            raise ArgumentError(f"kind must be one of {', '.join(self.KINDS)}, got {kind!r}")
        self.kind = kind
        self._size_bytes = size_bytes
        self._every = every
        self._device = device
        self._calls = 0
        self._kept: list[object] = []
        self._may_end = threading.Event()

    def __call__(self) -> None:
        """Leak once, if it is time to."""
        self._calls += 1
        if self._calls % self._every:
            return
        make = {
            "tensor": self._tensor,
            "object": lambda: {"leaked": self._calls},
            "file": lambda: os.open(os.devnull, os.O_RDONLY),
            "thread": self._thread,
        }
        self._kept.append(make[self.kind]())

    def __enter__(self) -> Leak:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._may_end.set()
        for kept in self._kept:
            if self.kind == "file" and isinstance(kept, int):
                os.close(kept)
            elif isinstance(kept, threading.Thread):
                kept.join()
        self._kept.clear()

    def _tensor(self) -> Tensor:
        return torch.zeros(self._size_bytes, dtype=torch.uint8, device=self._device)

    def _thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._may_end.wait, daemon=True)
        thread.start()
        return thread
