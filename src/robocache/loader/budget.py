"""A hard limit on bytes in flight, shared by any number of threads.

Whoever wants to hold memory claims its bytes first and waits until they are free. Claims are served strictly in the
order in which they were made: a large one is never overtaken for ever by small ones behind it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from robocache.errors import ArgumentError, BudgetError, ClosedError

State = Literal["waiting", "held", "released", "closed"]


@dataclass(frozen=True)
class BudgetStatistics:
    """What a budget held at one instant.

    Args:
        limit_bytes: What may be held at most.
        used_bytes: What is held now.
        peak_bytes: The most that was ever held; never more than `limit_bytes`.
        waiting: Claims that wait for room now.
        waiting_bytes: What those claims ask for together.
        waits: Claims that ever had to wait.
        granted: Claims that ever got their bytes.
        is_full_and_waited_for: The next claim in line does not fit. This state lasts until somebody gives bytes
            back, so a test can wait for it; "somebody waits" alone would also be true of a thread already woken.
        is_closed: No claim will be served any more.
    """

    limit_bytes: int
    used_bytes: int
    peak_bytes: int
    waiting: int
    waiting_bytes: int
    waits: int
    granted: int
    is_full_and_waited_for: bool
    is_closed: bool


class ByteBudget:
    """At most `limit_bytes` held at any time, first come first served.

    Args:
        limit_bytes: The limit, 1 or more.

    Use it through `acquire` and `release`, or through `claim`, whose result gives its own bytes back on leaving a
    `with` block. A `with` block over the budget itself closes it. A budget belongs to the process that made it: after
    a fork, the child makes its own.

    Raises:
        ArgumentError: `limit_bytes` is not an integer of 1 or more.
    """

    def __init__(self, limit_bytes: int) -> None:
        if not _is_count(limit_bytes) or limit_bytes < 1:
            raise ArgumentError(f"limit_bytes must be an integer of 1 or more, got {limit_bytes!r}")
        self._limit_bytes = limit_bytes
        self._process = os.getpid()
        # Reentrant, and waiters are woken through bare locks: a garbage collection may close an abandoned loop, and
        # so release its bytes, in the middle of any of the methods below, on the same thread.
        self._lock = threading.RLock()
        self._line: deque[_Place] = deque()
        self._used_bytes = 0
        self._peak_bytes = 0
        self._waits = 0
        self._granted = 0
        self._is_closed = False

    @property
    def limit_bytes(self) -> int:
        """What may be held at most."""
        return self._limit_bytes

    def claim(self, item_bytes: int) -> Claim:
        """Get in line for `item_bytes` without waiting; `Claim.wait` waits.

        Raises:
            ArgumentError: `item_bytes` is not an integer of 0 or more.
            BudgetError: More than the limit: it could never be served.
            ClosedError: The budget is closed, or belongs to the process this one was forked from.
        """
        if not _is_count(item_bytes) or item_bytes < 0:
            raise ArgumentError(f"item_bytes must be an integer of 0 or more, got {item_bytes!r}")
        if item_bytes > self._limit_bytes:
            raise BudgetError(
                f"one item of {item_bytes} bytes can never fit a budget of {self._limit_bytes}; raise limit_bytes"
            )
        self._check_process()
        place = _Place(item_bytes)
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"{item_bytes} bytes were claimed from a budget that is closed")
            self._line.append(place)
            self._serve()
            self._waits += place.state == "waiting"
        return Claim(place, self._give_back)

    def acquire(self, item_bytes: int, *, timeout_s: float | None = None) -> bool:
        """Wait until `item_bytes` are free and take them; give them back with `release`.

        Args:
            item_bytes: How many, from 0 to the limit.
            timeout_s: How long to wait at most; None: as long as it takes.

        Returns:
            True when they were taken, False when the time ran out (then nothing is held).

        Raises:
            ArgumentError: `item_bytes` is not an integer of 0 or more.
            BudgetError: More than the limit: it could never be served.
            ClosedError: The budget was closed, before or during the wait.
        """
        claim = self.claim(item_bytes)
        is_granted = False
        try:
            is_granted = claim.wait(timeout_s=timeout_s)
        finally:
            if not is_granted:  # also when Ctrl-C interrupts the wait: nothing may stay behind in the line
                claim.release()
        return is_granted

    def release(self, item_bytes: int) -> None:
        """Give back `item_bytes` taken by `acquire`; possible after `close` too.

        Raises:
            ArgumentError: It is not an integer of 0 or more, or more than is held.
            ClosedError: The budget belongs to the process this one was forked from.
        """
        if not _is_count(item_bytes) or item_bytes < 0:
            raise ArgumentError(f"item_bytes must be an integer of 0 or more, got {item_bytes!r}")
        self._check_process()
        with self._lock:
            if item_bytes > self._used_bytes:
                raise ArgumentError(f"{item_bytes} bytes were given back, but only {self._used_bytes} are held")
            self._used_bytes -= item_bytes
            self._serve()

    def close(self) -> None:
        """Serve nobody any more: whoever waits, or claims later, gets `ClosedError`. Held bytes stay counted."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            while self._line:
                self._line.popleft().settle("closed")

    def statistics(self) -> BudgetStatistics:
        """What is held, who waits, and what ever happened, all of one instant."""
        self._check_process()
        with self._lock:
            return BudgetStatistics(
                limit_bytes=self._limit_bytes,
                used_bytes=self._used_bytes,
                peak_bytes=self._peak_bytes,
                waiting=len(self._line),
                waiting_bytes=sum(place.item_bytes for place in self._line),
                waits=self._waits,
                granted=self._granted,
                is_full_and_waited_for=len(self._line) > 0,  # those who fit are served at once, so the first does not
                is_closed=self._is_closed,
            )

    def __enter__(self) -> ByteBudget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ByteBudget({self._used_bytes} of {self._limit_bytes} bytes held, {len(self._line)} waiting)"

    def _serve(self) -> None:
        while self._line and self._used_bytes + self._line[0].item_bytes <= self._limit_bytes:
            place = self._line.popleft()
            self._used_bytes += place.item_bytes
            self._peak_bytes = max(self._peak_bytes, self._used_bytes)
            self._granted += 1
            place.settle("held")

    def _give_back(self, place: _Place) -> None:
        if self._process != os.getpid():
            return
        with self._lock:
            if place.state == "held":
                self._used_bytes -= place.item_bytes
                place.state = "released"
            elif place.state == "waiting":
                self._line.remove(place)
                place.settle("released")
            self._serve()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                f"this budget belongs to process {self._process}, and process {os.getpid()} is a fork of it; "
                "make a ByteBudget in the process that uses it"
            )


@dataclass(eq=False)
class _Place:
    """One claim's place in the line; changed only under the budget's lock."""

    item_bytes: int
    state: State = "waiting"
    unsettled: threading.Lock = field(default_factory=threading.Lock)  # taken while waiting: to wait is to acquire it

    def __post_init__(self) -> None:
        self.unsettled.acquire()

    def settle(self, state: State) -> None:
        self.state = state
        self.unsettled.release()


class Claim:
    """Bytes asked for in a budget: first waiting, then held, in the end given back.

    Made by `ByteBudget.claim`. A `with` block waits for the bytes and gives them back.
    """

    def __init__(self, place: _Place, give_back: Callable[[_Place], None]) -> None:
        self._place = place
        self._give_back = give_back

    @property
    def item_bytes(self) -> int:
        """How many bytes are claimed."""
        return self._place.item_bytes

    @property
    def state(self) -> State:
        """Where the claim stands; "closed" when the budget was closed before it was served."""
        return self._place.state

    def wait(self, *, timeout_s: float | None = None) -> bool:
        """Wait until the bytes are held.

        Returns:
            True when they are, False when `timeout_s` ran out (the claim stays in line).

        Raises:
            ClosedError: The budget was closed, or the claim was released, also by another thread while this one waits.
        """
        place = self._place
        if place.state == "waiting":
            if not place.unsettled.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
                return False
            place.unsettled.release()  # for others that wait for the same claim
        if place.state == "closed":
            raise ClosedError(f"the budget was closed before {place.item_bytes} bytes were free in it")
        if place.state == "released":
            raise ClosedError(f"the claim of {place.item_bytes} bytes was released")
        return True

    def release(self) -> None:
        """Give the bytes back, or leave the line. Doing it twice is the same as once."""
        self._give_back(self._place)

    def __enter__(self) -> Claim:
        is_granted = False
        try:
            is_granted = self.wait()
        finally:
            if not is_granted:  # also when Ctrl-C interrupts the wait: nothing may stay behind in the line
                self.release()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Claim({self.item_bytes} bytes, {self.state})"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
