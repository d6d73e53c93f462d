"""Memory for batches, claimed from a byte budget before it is allocated, and used again when nobody has it any more."""

from __future__ import annotations

import os
import threading
import weakref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.errors import ClosedError
from robocache.loader.budget import ByteBudget, Claim

Bytes = npt.NDArray[np.uint8]


class Room:
    """What one iteration holds of the budget: every claim from the moment it is in line until its batch is delivered.

    Args:
        budget: Where bytes come from.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._claims: dict[Claim, None] = {}
        self.is_stopped = False

    def claim(self, size_bytes: int) -> Claim:
        """Get in line; the caller waits."""
        return self.adopt(self._budget.claim(size_bytes))

    def adopt(self, claim: Claim) -> Claim:
        """Answer for a claim that is held already."""
        self._claims[claim] = None
        if self.is_stopped:  # `stop` looked for claims before this one was there
            self.give_back(claim)
            raise ClosedError("the iteration was closed")
        return claim

    def give_back(self, claim: Claim) -> None:
        """The batch belongs to the consumer, or to nobody."""
        claim.release()
        self._claims.pop(claim, None)

    def stop(self) -> None:
        """Let nobody wait any more."""
        self.is_stopped = True
        for claim in list(self._claims):
            if claim.state == "waiting":
                self.give_back(claim)

    def release(self) -> None:
        """Give back what was not delivered."""
        self.is_stopped = True
        for claim in list(self._claims):
            self.give_back(claim)


class BufferPool:
    """Buffers that come back when the last tensor over them is gone, so that a kept batch is never written to.

    A buffer that waits for its next use is charged to the budget; where there is no room for it, it is freed.

    Args:
        budget: Where bytes come from.
        keeps: How many buffers may wait at most.
    """

    def __init__(self, budget: ByteBudget, keeps: int) -> None:
        self._budget = budget
        self._keeps = keeps
        self._process = os.getpid()
        # Reentrant: a garbage collection may bring a buffer back in the middle of `take`, on the same thread.
        self._lock = threading.RLock()
        self._free: list[tuple[Bytes, Claim]] = []
        self._watched: dict[int, weakref.ref[Bytes]] = {}  # by id: arrays cannot be hashed
        self._is_closed = False

    def take(self, room: Room, size_bytes: int) -> tuple[Tensor, Claim]:
        """A buffer and its claim; waits for room."""
        with self._lock:
            for place, (array, claim) in enumerate(self._free):
                if array.nbytes == size_bytes:
                    del self._free[place]
                    return self._watch(array), room.adopt(claim)
            self._drop()
            # In line before the lock is free: a buffer that comes back now may not take the room waited for here.
            claim = room.claim(size_bytes)
        claim.wait()
        return self._watch(np.empty(size_bytes, np.uint8)), claim

    def close(self) -> None:
        """Free those that wait; later ones are freed when they come back."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _drop(self) -> None:
        while self._free:
            self._free.pop()[1].release()

    def _watch(self, array: Bytes) -> Tensor:
        view = array[:]
        watch: weakref.ref[Bytes]

        def come_back(_: weakref.ref[Bytes]) -> None:
            self._watched.pop(id(watch), None)
            self._come_back(array)

        watch = weakref.ref(view, come_back)
        self._watched[id(watch)] = watch
        return torch.from_numpy(view)  # its storage holds the view, and with it every tensor made of it

    def _come_back(self, array: Bytes) -> None:
        if self._process != os.getpid():
            return
        with self._lock:
            if self._is_closed or len(self._free) >= self._keeps or self._budget.statistics().is_closed:
                return
            claim = self._budget.claim(array.nbytes)
            if claim.state == "held":
                self._free.append((array, claim))
            else:
                claim.release()
