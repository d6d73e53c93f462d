"""Waiting for a state, never for a duration."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_S = 0.001


def wait_until(condition: Callable[[], bool], *, deadline_s: float = 10.0, what: str = "the state") -> None:
    """Return as soon as `condition()` is true.

    Wait for a state that lasts (full, and waited for), not for one that passes (somebody is waiting): the second
    may be over before it is looked at.

    Args:
        condition: Called about every millisecond.
        deadline_s: When to give up.
        what: What was waited for, for the message.

    Raises:
        TimeoutError: It was still false at the deadline.
    """
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what} did not come within {deadline_s:g} s")
        time.sleep(_PAUSE_S)
