"""The open video decoders of this process: few, shared by all recordings, the least recently used closed first.

A decoder holds a file descriptor and megabytes of frames, and a dataset has thousands of video files. One is lent to
one reader at a time; between two reads it waits here, for the next read of the same file to go on where it stands.
A forked child starts with none: its parent's descriptors share their place in the file with the parent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from robocache.errors import ArgumentError

DEFAULT_OPEN_DECODERS = 16


class Closable(Protocol):
    """Whatever holds a file."""

    def close(self) -> None:
        """Let go of the file."""
        ...


_Decoder = TypeVar("_Decoder", bound=Closable)


class OpenDecoders:
    """Decoders that wait, by owner and key, in the order of their last use.

    Args:
        cap: How many may be open: those that wait, and those that are lent. More are open only while more readers
            than that read at the same moment.
    """

    def __init__(self, cap: int = DEFAULT_OPEN_DECODERS) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._waiting: list[tuple[object, Hashable, Closable]] = []
        self._lent = 0

    @property
    def open_count(self) -> int:
        """How many are open, waiting or lent."""
        with self._lock:
            return len(self._waiting) + self._lent

    @property
    def cap(self) -> int:
        """How many may be open."""
        return self._cap

    @cap.setter
    def cap(self, cap: int) -> None:
        if cap < 1:
            raise ArgumentError(f"cap must be an integer of 1 or more, got {cap!r}")
        self._cap = cap
        _close(self._surplus())

    @contextmanager
    def lent(
        self, owner: object, key: Hashable, opened: Callable[[], _Decoder], *, may_wait: Callable[[], bool]
    ) -> Iterator[_Decoder]:
        """A decoder for one reader alone; one that raised is closed, any other waits for its next use.

        Args:
            owner: Whose it is; `close_those_of` closes it.
            key: Of which file.
            opened: Opens one where none is waiting.
            may_wait: Whether the owner still wants it afterwards; it is closed where not.
        """
        decoder = self._taken(owner, key)
        try:
            if decoder is None:
                _close(self._surplus())
                decoder = opened()
            yield decoder  # type: ignore[misc]  # what waits under a key was opened for that key
        except BaseException:
            self._give_back(owner, key, decoder, is_kept=False)
            raise
        self._give_back(owner, key, decoder, is_kept=may_wait())

    def close_those_of(self, owner: object) -> None:
        """Close what waits for an owner; what is lent is closed when it comes back."""
        with self._lock:
            closing = [decoder for whose, _, decoder in self._waiting if whose is owner]
            self._waiting = [entry for entry in self._waiting if entry[0] is not owner]
        _close(closing)

    def abandon(self) -> None:
        """Start anew in a forked child, whatever the parent's threads were doing at the fork."""
        inherited, self._waiting = self._waiting, []
        self._lock = threading.Lock()
        self._lent = 0
        # They have no threads of their own, so that closing the child's copies cannot wait for any.
        _close([decoder for _, _, decoder in inherited])

    def _taken(self, owner: object, key: Hashable) -> Closable | None:
        with self._lock:
            self._lent += 1
            for place in range(len(self._waiting) - 1, -1, -1):
                whose, which, decoder = self._waiting[place]
                if whose is owner and which == key:
                    del self._waiting[place]
                    return decoder
        return None

    def _give_back(self, owner: object, key: Hashable, decoder: Closable | None, *, is_kept: bool) -> None:
        with self._lock:
            self._lent = max(0, self._lent - 1)
            if is_kept and decoder is not None:
                self._waiting.append((owner, key, decoder))
        if not is_kept and decoder is not None:
            decoder.close()
        _close(self._surplus())

    def _surplus(self) -> list[Closable]:
        """Those to close, oldest first, so that the cap holds; a decoder about to be opened is already counted lent."""
        with self._lock:
            count = min(len(self._waiting), max(0, len(self._waiting) + self._lent - self._cap))
            closing = [decoder for _, _, decoder in self._waiting[:count]]
            del self._waiting[:count]
        return closing


def _close(decoders: list[Closable]) -> None:
    for decoder in decoders:
        with suppress(OSError):
            decoder.close()


OPEN_DECODERS = OpenDecoders()
os.register_at_fork(after_in_child=OPEN_DECODERS.abandon)


def limit_open_decoders(cap: int) -> None:
    """Set how many video decoders this process keeps open: 16 unless told.

    Args:
        cap: 1 or more. Each takes one file descriptor, and a few megabytes for a camera of 640 x 480.

    Raises:
        ArgumentError: Less than 1.
    """
    OPEN_DECODERS.cap = cap
