"""Reading ahead on a background thread, bounded in bytes."""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from robocache.errors import ArgumentError, ClosedError
from robocache.loader.budget import ByteBudget, Claim

Sample = TypeVar("Sample")

_EXIT_DEADLINE_S = 10.0  # how long the interpreter's exit waits for a reader that is stuck


@dataclass(frozen=True)
class PrefetchStatistics:
    """What a prefetcher did and holds.

    Args:
        has_read: Samples the reader has produced.
        has_delivered: Samples the consumer has taken.
        held_bytes: Bytes of the budget that read samples hold, those taken not counted.
        is_reading: The background thread lives.
        failure: What the reader failed with, also when the consumer stopped before it got there. None: nothing.
    """

    has_read: int
    has_delivered: int
    held_bytes: int
    is_reading: bool
    failure: str | None


class Prefetcher(Generic[Sample]):
    """Reads `samples` ahead on a thread of its own, as far as `budget` allows; yields them in order.

    ```python
    budget = ByteBudget(limit_bytes=256 * 2**20)
    with Prefetcher(read(path), size_of=lambda sample: sample.nbytes, budget=budget) as samples:
        for sample in samples: ...
    ```

    A sample is charged to the budget from the moment it is read until the consumer takes it. Its size is known only
    then, so the reader holds at most one sample beyond the budget: the one that waits for room. The thread starts on
    entering the `with` block and is joined on every way out of it; a generator given as `samples` is closed there.
    Several threads may consume one prefetcher, and then each sample goes to one of them.

    An exception of the reader is raised to the consumer, after all samples read before it. If the consumer leaves
    earlier, it is kept in `statistics().failure`; a generator that fails while it is closed makes `close` raise.

    Args:
        samples: Read once, only on the background thread.
        size_of: Bytes of one sample, 0 or more. An empty sample is charged as one byte, so that even those cannot
            pile up without limit.
        budget: Where the bytes come from; it may be shared with others, and is not closed here.
        interrupt: Called once by `close`, on the closing thread, so that a reader stuck in a read comes back, for
            example by closing its file or socket. Without it, `close` waits for the read to end by itself.

    Raises:
        ArgumentError: `samples` is not iterable.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        size_of: Callable[[Sample], int],
        budget: ByteBudget,
        interrupt: Callable[[], object] | None = None,
    ) -> None:
        if not isinstance(samples, Iterable):
            raise ArgumentError(f"samples must be iterable, got {type(samples).__name__}")
        self._samples = samples
        self._size_of = size_of
        self._budget = budget
        self._interrupt = interrupt
        self._process = os.getpid()
        self._state_lock = threading.Lock()
        # SimpleQueue is reentrant: a garbage collection on this thread may close another prefetcher at any point.
        self._ready: queue.SimpleQueue[tuple[Sample, Claim] | None] = queue.SimpleQueue()
        self._claims: dict[Claim, None] = {}  # every byte held here, so that close gives back all of it
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_finished = False
        self._has_read = 0
        self._has_delivered = 0
        self._error: BaseException | None = None
        self._failure: str | None = None
        self._close_error: BaseException | None = None

    def __enter__(self) -> Prefetcher[Sample]:
        """Start reading.

        Raises:
            ClosedError: It was entered before; a prefetcher reads once.
        """
        self._check_process()
        with self._state_lock:
            if self._thread is not None or self._is_closing:
                raise ClosedError("a Prefetcher reads once and was entered before; make a new one")
            # A daemon, so that a forgotten `close` cannot keep the process alive; atexit joins it in time, before
            # the interpreter takes the thread's world apart.
            self._thread = threading.Thread(target=self._read_ahead, name="robocache-prefetch", daemon=True)
            atexit.register(self._close_at_exit)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        """The next sample; waits for it.

        Raises:
            StopIteration: The reader has ended, and every sample was taken.
            ClosedError: Outside the `with` block, closed by another thread while waiting, in a forked process, or
                after the reader's exception was raised already.
            Exception: Whatever the reader raised, once, after the samples before it.
        """
        self._check_is_open()
        item = self._ready.get()
        if self._is_closing:
            self._ready.put(None)
            self._check_is_open()
        if item is None:
            self._ready.put(None)  # for the next call, and for every other consumer
            self._raise_end()
        else:
            sample, claim = item
            self._give_back(claim)
            with self._state_lock:
                self._has_delivered += 1
            return sample
        raise StopIteration

    def close(self) -> None:
        """Stop reading, join the thread, give back every byte, close a generator. Any thread may call it, repeatedly.

        Consumers that wait get `ClosedError`. In a forked process it does nothing.

        Raises:
            Exception: What the reader's own clean-up raised, once.
        """
        if self._process != os.getpid():
            return
        thread = self._thread
        try:
            self._stop()
        finally:
            # The reader may close what reads it, or a garbage collection may do so on its thread: it ends by itself.
            if thread is not None and thread is not threading.current_thread():
                thread.join()
                self._discard()
        error, self._close_error = self._close_error, None
        if error is not None:
            raise error

    def statistics(self) -> PrefetchStatistics:
        """What was read, taken and is held."""
        thread = self._thread
        return PrefetchStatistics(
            has_read=self._has_read,
            has_delivered=self._has_delivered,
            held_bytes=sum(claim.item_bytes for claim in list(self._claims) if claim.state == "held"),
            is_reading=thread is not None and thread.is_alive() and self._process == os.getpid(),
            failure=self._failure,
        )

    def _read_ahead(self) -> None:
        iterator: Iterator[Sample] | None = None
        try:
            samples, self._samples = self._samples, ()
            iterator = iter(samples)
            del samples
            while not self._is_closing and self._read_one(iterator):
                pass
        except BaseException as error:  # noqa: BLE001  # whatever it is, the consumer must get it
            self._fail(error)
        finally:
            self._close_iterator(iterator)
            self._is_finished = True
            self._ready.put(None)
            if self._is_closing:
                self._discard()

    def _read_one(self, iterator: Iterator[Sample]) -> bool:
        """Read one sample and hand it over; its own function, so that nothing here keeps it afterwards."""
        try:
            sample = next(iterator)
        except StopIteration:
            return False
        self._has_read += 1
        claim = self._budget.claim(max(1, self._size_of(sample)))
        self._claims[claim] = None
        if self._is_closing:  # close looked for claims before this one was there
            self._give_back(claim)
            return False
        try:
            claim.wait()
        except ClosedError:
            if self._is_closing:
                return False
            raise
        self._ready.put((sample, claim))
        return True

    def _close_iterator(self, iterator: Iterator[Sample] | None) -> None:
        close = getattr(iterator, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:  # noqa: BLE001  # raised by close(), on the thread that asked for it
            self._close_error = error

    def _fail(self, error: BaseException) -> None:
        self._failure = f"{type(error).__name__}: {error}"
        if isinstance(error, StopIteration):  # raised to the consumer, it would pass for the end of the samples
            error = RuntimeError("size_of raised StopIteration")
        if not self._is_closing:
            self._error = error

    def _raise_end(self) -> None:
        with self._state_lock:
            error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        if self._failure is not None:
            raise ClosedError(f"the reader failed before, with {self._failure}; there is nothing after that")

    def _stop(self) -> None:
        with self._state_lock:
            is_first, self._is_closing = not self._is_closing, True
        if not is_first:
            return
        for claim in list(self._claims):
            if claim.state == "waiting":
                self._give_back(claim)
        self._ready.put(None)
        if self._interrupt is not None and not self._is_finished:
            self._interrupt()

    def _discard(self) -> None:
        """Let go of what was read and not taken."""
        for claim in list(self._claims):
            self._give_back(claim)
        try:
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            self._ready.put(None)
        self._samples = ()
        self._error = None
        atexit.unregister(self._close_at_exit)

    def _give_back(self, claim: Claim) -> None:
        claim.release()
        self._claims.pop(claim, None)

    def _close_at_exit(self) -> None:
        if self._process != os.getpid():
            return
        self._stop()
        if self._thread is not None:
            self._thread.join(timeout=_EXIT_DEADLINE_S)

    def _check_is_open(self) -> None:
        self._check_process()
        if self._is_closing:
            raise ClosedError("the prefetcher is closed: take samples inside its `with` block only")
        if self._thread is None:
            raise ClosedError("the prefetcher has not started: take samples inside `with prefetcher:`")

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                f"this prefetcher reads on a thread of process {self._process}, which its fork {os.getpid()} does not "
                "have; make a Prefetcher in the process that uses it"
            )
