"""One iteration over an epoch: batches made ahead on a thread, delivered in order, ended on every way out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from robocache.errors import ClosedError
from robocache.loader.batch import Batch
from robocache.loader.budget import ByteBudget
from robocache.loader.buffers import Room
from robocache.loader.joined import Integers
from robocache.loader.making import Made, Maker, RecordMaker
from robocache.loader.nvtx import items_in_ranges
from robocache.loader.order import SampleOrder
from robocache.loader.prefetch import Prefetcher


@dataclass
class Progress:
    """What one iteration delivered.

    Args:
        batches: How many.
        samples: Of all of them.
        waited_s: How long the consumer waited for them.
        took_s: From the first time it asked to the last batch.
        failure: What the reader failed with; None: nothing.
    """

    batches: int = 0
    samples: int = 0
    waited_s: float = 0.0
    took_s: float = 0.0
    failure: str | None = None


class Running(Iterator[Batch]):
    """Batches of one epoch; made by `iter(loader)`.

    Args:
        keeps: What must live as long as the iteration does.
        order: Where the epoch stands.
        maker: Makes them.
        budget: Where their bytes come from.
        prefetch: How many to make ahead; 0 makes them in the calling thread.
    """

    def __init__(
        self, keeps: object, order: SampleOrder, maker: Maker | RecordMaker, budget: ByteBudget, prefetch: int
    ) -> None:
        self.progress = Progress()
        self._keeps: object = keeps
        self._room = Room(budget)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._began: float | None = None
        self._is_finished = False
        self._is_closed = False
        made = maker.made(order) if isinstance(maker, RecordMaker) else _made(order, maker, self._room)
        self._source: Iterator[Made] = items_in_ranges("robocache: make a batch", made)
        self._thread: Prefetcher[Made] | None = None
        if prefetch:
            # The bytes are claimed where they are allocated; the prefetcher's own budget counts batches.
            self._thread = Prefetcher(
                self._source, size_of=lambda _: 1, budget=ByteBudget(prefetch), interrupt=self._room.stop
            )
            self._source = self._thread.__enter__()

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            StopIteration: The epoch is over.
            ClosedError: The iteration, or its loader, was closed, or belongs to the process this one was forked from.
            Exception: What reading failed with.
        """
        if self._process != os.getpid():
            raise ClosedError(
                f"this loader reads in process {self._process}; make a Loader in the process that uses it"
            )
        if self._is_finished:
            raise StopIteration
        if self._is_closed:
            raise ClosedError("this iteration was closed; iterate over the loader again")
        start = time.perf_counter()
        try:
            made = next(self._source)
        except StopIteration:
            self._is_finished = True
            self.close()
            raise
        except BaseException as error:
            self.progress.failure = f"{type(error).__name__}: {error}"
            self.close()
            raise
        if made.claim is not None:
            self._room.give_back(made.claim)
        made.arrive()
        end = time.perf_counter()
        with self._lock:
            self._began = start if self._began is None else self._began
            self.progress.batches += 1
            self.progress.samples += made.batch.samples
            self.progress.waited_s += end - start
            self.progress.took_s = end - self._began
        return made.batch

    def close(self) -> None:
        """Stop making batches, join the thread, give back every byte. Any thread may call it, repeatedly."""
        self._is_closed = True
        if self._process != os.getpid():
            return
        try:
            if self._thread is not None:
                self._thread.close()
            elif not self._is_finished:
                self._room.stop()
        finally:
            self._room.release()
            self._keeps = None

    def __del__(self) -> None:
        if hasattr(self, "_source"):
            self.close()


def _made(batches: Iterable[Integers], maker: Maker, room: Room) -> Iterator[Made]:
    """Its own function, so that the thread that runs it keeps neither the iteration nor the loader alive."""
    try:
        for samples in batches:
            made = maker.make(samples, room)
            yield made
            del made
    finally:
        if room.is_stopped:
            room.release()
