"""Loaders that lose, double, pile up or swallow, and readers that are slow, stalled or broken."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from robocache.errors import DamagedRecordingError
from robocache.loader import ByteBudget, Prefetcher
from robocache.testing.faults.catalogue import fault, wrapped

_SCENARIO = "back-pressure"
_AT = 10  # the sample at which a reader goes wrong: after the budget was full once
_SLOW_S, _SLOW_SAMPLES = 0.6, 20  # longer than a consumer takes on a busy machine


@fault(
    "unbounded_queue",
    "the budget counts nothing, so that the reader never waits",
    scenario=_SCENARIO,
    reason="TimeoutError: a full budget and a waiting producer did not come",
)
def unbounded_queue(_: str) -> Iterator[None]:
    """Every claim is one of no bytes."""
    with wrapped(ByteBudget, "claim", lambda claim, budget, _: claim(budget, 0)):
        yield


@fault("lost_sample", "the loader drops one sample", scenario=_SCENARIO, reason=r"samples \[.*\] came, not 0 to")
def lost_sample(_: str) -> Iterator[None]:
    """The sixth."""

    def around(take: Callable[..., Any], self: Prefetcher[Any]) -> Any:  # noqa: ANN401
        sample = take(self)
        return take(self) if self.statistics().has_delivered == 6 else sample

    with wrapped(Prefetcher, "__next__", around):
        yield


@fault("doubled_sample", "the loader delivers one sample twice", scenario=_SCENARIO, reason=r"samples \[.*5, 5.*came")
def doubled_sample(_: str) -> Iterator[None]:
    """The sixth, in place of the seventh."""
    last: list[Any] = []

    def around(take: Callable[..., Any], self: Prefetcher[Any]) -> Any:  # noqa: ANN401
        sample = take(self)
        delivered = self.statistics().has_delivered
        if delivered == 6:
            last[:] = [sample]
        return last.pop() if delivered == 7 and last else sample

    with wrapped(Prefetcher, "__next__", around):
        yield


@fault(
    "reader_error_swallowed",
    "what the reader failed with does not reach the consumer",
    scenario=_SCENARIO,
    reason="the producer's exception did not arrive",
)
def reader_error_swallowed(_: str) -> Iterator[None]:
    """The samples just end."""
    with wrapped(Prefetcher, "_fail", lambda *_: None):
        yield


@fault(
    "slow_reader",
    "the reader is slower than the consumer",
    scenario=_SCENARIO,
    reason="the producer waited for room .* no back-pressure was there",
)
def slow_reader(_: str) -> Iterator[None]:
    """Nothing is wrong, but nothing is shown either."""
    read = itertools.count()

    def slowly(samples: Iterable[Any]) -> Iterator[Any]:
        for sample in samples:
            if next(read) < _SLOW_SAMPLES:
                threading.Event().wait(_SLOW_S)
            yield sample
            del sample

    with _reading(slowly):
        yield


@fault(
    "stalled_reader",
    "the reader hangs in a read until it is closed",
    scenario=_SCENARIO,
    reason=rf"only {_AT} samples came within",
)
def stalled_reader(_: str) -> Iterator[None]:
    """Closing ends the read, as it must."""
    is_closed = threading.Event()

    def stalling(samples: Iterable[Any]) -> Iterator[Any]:
        for number, sample in enumerate(samples):
            if number == _AT:
                is_closed.wait()
            yield sample
            del sample

    def close(original: Callable[..., Any], self: Prefetcher[Any]) -> None:
        is_closed.set()
        original(self)

    with _reading(stalling), wrapped(Prefetcher, "close", close):
        yield


@fault(
    "failing_reader",
    "the reader meets bytes that it cannot read",
    scenario=_SCENARIO,
    reason=r"DamagedRecordingError: injected\.mcap.*bytes are missing",
)
def failing_reader(_: str) -> Iterator[None]:
    """With the error of a real reader."""

    def failing(samples: Iterable[Any]) -> Iterator[Any]:
        for number, sample in enumerate(samples):
            if number == _AT:
                raise DamagedRecordingError("injected.mcap", "bytes are missing", offset=number)
            yield sample
            del sample

    with _reading(failing):
        yield


def _reading(through: Callable[[Iterable[Any]], Iterator[Any]]) -> Any:  # noqa: ANN401  a context manager
    """Every prefetcher reads its samples `through` this."""

    def around(start: Callable[..., Any], self: Prefetcher[Any], samples: Iterable[Any], **kwargs: Any) -> None:  # noqa: ANN401
        start(self, through(samples), **kwargs)

    return wrapped(Prefetcher, "__init__", around)
