"""One thread after the other, in each process."""

from __future__ import annotations

import os
import threading


class Turns:
    """A lock that a forked child has anew: a thread that holds it at the fork is not there to let it go."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def turn(self) -> threading.RLock:
        """This process's lock, to be held in a `with` block."""
        return self._locks.setdefault(os.getpid(), threading.RLock())
