"""Readers that misbehave on purpose: what a loader must cope with."""

from __future__ import annotations

import os
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
