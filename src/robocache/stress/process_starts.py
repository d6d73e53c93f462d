"""Processes forked and spawned while a loader is at work: each has its own loader, with the same batches."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

from robocache.errors import ClosedError
from robocache.loader import Loader
from robocache.stress.abandoned_loaders import small_dataset
from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings

FORKS, SPAWNS = 6, 1
_DEADLINE_S = 60.0
_NO_ANSWER = f"no answer within {_DEADLINE_S:g} s"
_BATCH, _MEMORY = 4, "64KB"


def fork_and_spawn(
    settings: Settings,
    lines: Lines = silent,
    *,
    forks: int = FORKS,
    spawns: int = SPAWNS,
    heartbeat: Callable[[], object] = int,
) -> Report:
    """Children made while the parent is in the middle of an epoch, by each way that Python has.

    A failure of the report is a child that hangs, dies or sees other batches than its parent, a loader of the parent
    that a forked child can use as if it were its own, or a parent whose epoch is not whole afterwards. Children use the
    CPU: a GPU cannot be used after a fork.

    Args:
        settings: The seed.
        lines: Gets one line.
        forks: How many children by fork.
        spawns: How many by spawn, which takes seconds each.
        heartbeat: Called after each child.
    """
    started = time.monotonic()
    expected = epoch_digest(settings.seed)
    failures = []
    with Loader(small_dataset(settings.seed), batch_size=_BATCH, window=2, device="cpu", memory=_MEMORY) as loader:
        batches = iter(loader)
        taken = 0
        for number, way in enumerate(["fork"] * forks + ["spawn"] * spawns):
            taken += next(batches, None) is not None
            inherited = loader if way == "fork" else None
            said = _child(way, settings.seed, inherited)
            if said != (expected, "refused" if way == "fork" else "none"):
                failures.append(f"child {number} by {way}: {said[0][:100]}, its parent's loader: {said[1]}")
            heartbeat()
            if said[0] == _NO_ANSWER:
                break  # the others would take as long
        taken += sum(1 for _ in batches)
        if taken != len(loader):
            failures.append(f"the parent got {taken} batches, an epoch has {len(loader)}")
    lines(f"{forks} children by fork, {spawns} by spawn: {len(failures)} failures")
    return Report(
        "fork-and-spawn",
        "cpu",
        iterations=forks + spawns,
        seconds=time.monotonic() - started,
        failures=tuple(failures),
    )


def epoch_digest(seed: int) -> str:
    """Of every batch of an epoch, in order.

    Args:
        seed: Of the data.
    """
    digest = hashlib.blake2b(digest_size=8)
    with Loader(small_dataset(seed), batch_size=_BATCH, window=2, device="cpu", memory=_MEMORY) as loader:
        for batch in loader:
            for name in sorted(batch):
                digest.update(batch[name].numpy().tobytes())
    return digest.hexdigest()


def _child(way: str, seed: int, inherited: Loader | None) -> tuple[str, str]:
    context = multiprocessing.get_context(way)
    ours, theirs = context.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what is tried here
        process = context.Process(target=_answer, args=(theirs, seed, inherited))  # type: ignore[attr-defined]
        process.start()
    theirs.close()
    try:
        if not ours.poll(_DEADLINE_S):
            return _NO_ANSWER, "unknown"
        said: tuple[str, str] = ours.recv()
    except EOFError:
        process.join()
        return f"it ended with exit code {process.exitcode}", "unknown"
    else:
        return said
    finally:
        ours.close()
        if process.is_alive():
            process.join(1.0)
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def _answer(connection: Connection, seed: int, inherited: Loader | None) -> None:
    refused = "none"
    if inherited is not None:
        try:
            next(iter(inherited))
            refused = "used"
        except ClosedError:
            refused = "refused"
    connection.send((epoch_digest(seed), refused))
    connection.close()
