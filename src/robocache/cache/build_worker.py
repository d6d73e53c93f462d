"""A process that builds, started by `build_pool`.

It gets a `Job`, then runs of units, and answers each unit with `Finished` or `Failed`. When the other end closes, also
because its holder was killed, it ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from robocache.cache.layout import Contents
from robocache.cache.store import ShardStore
from robocache.cache.units import Recipe, Unit
from robocache.readers import Recording


@dataclass(frozen=True)
class Job:
    """What all units of a build share.

    Args:
        recipe: How shards are made.
        folder: Of the cache.
        limit_bytes: As for `ShardStore`.
    """

    recipe: Recipe
    folder: Path
    limit_bytes: int | None


@dataclass(frozen=True)
class Finished:
    """A unit whose shard is there.

    Args:
        unit: Which.
        frames: Of the episode.
        size_bytes: Of the shard.
        was_built: Or found.
        features: As the shard describes them.
    """

    unit: Unit
    frames: int
    size_bytes: int
    was_built: bool
    features: Any


@dataclass(frozen=True)
class Failed:
    """A unit that could not be built.

    Args:
        error: Why.
        text: Its traceback.
    """

    error: Exception
    text: str


class Builder:
    """Builds units one after the other; the recording is opened when the first one is missing, and kept open.

    Args:
        job: What they share.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = ShardStore(job.folder, job.limit_bytes)
        self._recording: Recording | None = None

    def build(self, unit: Unit) -> Finished:
        """See to it that a unit's shard is there and whole.

        Args:
            unit: Which.

        Raises:
            BuildError: The episode cannot be read or aligned.
            CacheError: The shard cannot be written.
        """
        with self._store.get_or_build(unit.key, lambda: self.contents(unit)) as shard:
            frames = len(shard.arrays["times_ns"])
            return Finished(unit, frames, shard.size_bytes, shard.was_built, shard.description["features"])

    def contents(self, unit: Unit) -> Contents:
        """What a unit's shard will hold.

        Args:
            unit: Which.

        Raises:
            BuildError: The episode cannot be read or aligned.
        """
        if self._recording is None:
            self._recording = self._job.recipe.open()
        return self._job.recipe.contents(self._recording, unit)

    def close(self) -> None:
        """Close the recording."""
        if self._recording is not None:
            self._recording.close()
        self._recording = None


def main(arguments: Sequence[str]) -> None:
    """Build what comes through the descriptor until its other end closes."""
    import torch

    descriptor = int(arguments[0])
    os.set_inheritable(descriptor, False)  # noqa: FBT003  takes nothing by name
    # Ctrl-C goes to all processes of a terminal; the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    with Connection(descriptor) as connection:
        try:
            sys.path[:] = connection.recv()
            _serve(connection, connection.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _serve(connection: Connection, job: Job) -> None:
    builder = Builder(job)
    try:
        while True:
            for unit in connection.recv():
                connection.send(_result(builder, unit))
    finally:
        builder.close()


def _result(builder: Builder, unit: Unit) -> Finished | Failed:
    try:
        return builder.build(unit)
    except Exception as error:  # noqa: BLE001  handed to the process that waits for it
        return Failed(_portable(error), traceback.format_exc())


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever an exception's own pickling raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
