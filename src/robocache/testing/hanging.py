"""A hang ends with every thread's stack, also one that holds the interpreter's lock; a long run does not."""

from __future__ import annotations

import faulthandler
from types import TracebackType
from typing import IO

from robocache.errors import ArgumentError


class HangWatch:
    """Ends the process with every thread's stack when nobody calls `beat` for `limit_s`.

    Signals and watching threads cannot end a hang inside C code that holds the interpreter's lock; the watchdog of
    `faulthandler` can. There is one of those in a process: a later watch, or pytest's own, takes the place of this one.

    Args:
        limit_s: How long may pass between two beats.
        file: An open file or its descriptor, where the stacks go; it must stay open.

    Raises:
        ArgumentError: `limit_s` is not greater than 0.
    """

    def __init__(self, *, limit_s: float, file: IO[str] | int) -> None:
        if not limit_s > 0:
            raise ArgumentError(f"limit_s must be greater than 0, got {limit_s!r}")
        self._limit_s = limit_s
        self._file = file

    def beat(self) -> None:
        """Work goes on: start to count anew."""
        faulthandler.dump_traceback_later(self._limit_s, exit=True, file=self._file)

    def __enter__(self) -> HangWatch:
        self.beat()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
