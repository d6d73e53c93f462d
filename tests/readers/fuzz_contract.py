"""What a target of fuzzing may do with any bytes: give a result or a RoboCacheError, within two seconds and 200 MB."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from .conftest import PEAK_BYTES, SECONDS  # noqa: TID252 -- tests are not an installed package

PAGE_BYTES = resource.getpagesize()
Run = Callable[[bytes], bool]


class FindError(AssertionError):
    """Bytes that take too long, or too much memory."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Args:
        opened: Gives a function that says of any bytes whether they were accepted; what it raises is a find.
        seeds: Valid inputs, written in an empty folder.
        needs: Packages without which there is nothing to fuzz.
    """

    opened: Callable[[], AbstractContextManager[Run]]
    seeds: Callable[[Path], list[bytes]]
    needs: tuple[str, ...] = ()


def judged(run: Run, data: bytes, seconds: float = SECONDS) -> bool:
    """Whether the bytes were accepted; what breaks the contract is raised.

    Where Linux does not let the peak of a process's memory be forgotten, what stays below an earlier one goes unseen.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    held = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    peak, begun = _peak_bytes(), time.process_time()
    accepted = run(data)
    took, grown = time.process_time() - begun, _peak_bytes() - held
    if took > seconds:
        raise FindError(f"took {took:.1f} s of processor time, and {seconds} are allowed")
    if _peak_bytes() > peak and grown > PEAK_BYTES:
        raise FindError(f"took {grown} bytes, and {PEAK_BYTES} are allowed")
    return accepted


def search(run: Run, seeds: list[bytes], tries: int, randomly: random.Random) -> bytes | None:
    """The first of some mutations that is a find; None where none is."""
    for seed in seeds:
        for data in mutations(seed, tries, randomly):
            try:
                judged(run, data)
            except Exception:  # noqa: BLE001 -- whatever it is, it is a find
                return data
    return None


def mutations(seed: bytes, count: int, randomly: random.Random) -> Iterator[bytes]:
    """Copies of a seed, cut or with a few bytes changed."""
    for _ in range(count):
        data = bytearray(seed[: randomly.randrange(len(seed))] if randomly.random() < 0.3 else seed)
        for _ in range(min(len(data), randomly.randrange(1, 5))):
            data[randomly.randrange(len(data))] = randomly.choice([0, 1, 127, 128, 255, randomly.randrange(256)])
        yield bytes(data)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
