"""Leaks to find: what a leak detector must notice."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import torch
from torch import Tensor

from robocache.errors import ArgumentError


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
