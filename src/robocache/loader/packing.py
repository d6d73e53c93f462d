"""All episodes in memory, one array a slot: how large that is, and the copying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.loader.episodes import Part, opened
from robocache.loader.joined import Integers, Joined, Key, array_of


@dataclass(frozen=True)
class Packing:
    """Where each episode's rows go.

    Args:
        first_row: By slot: [episode] its first row there, -1 where it has none.
        rows: By slot: in all.
        nbytes: Of everything.
    """

    first_row: Mapping[Key, Integers]
    rows: Mapping[Key, int]
    nbytes: int


def plan_packing(joined: Joined, most_bytes: int) -> Packing | None:
    """How everything packs, or None where it takes more than `most_bytes`.

    Episodes are opened only where images or points are to be counted, and only until the limit is passed.
    """
    counts = {key: np.where(_has(joined, key[1]), joined.lengths, 0) for key in joined.slots}
    counted = [key for key in joined.slots if not _is_by_frame(joined, key)]
    sizes = {key: slot.row_bytes for key, slot in joined.slots.items()}
    known = sum(int(counts[key].sum()) * sizes[key] for key in joined.slots if key not in counted)
    for key in counted:
        counts[key] = np.zeros_like(joined.lengths)
    for episode in range(len(joined.lengths) if counted else 0):
        if known > most_bytes:
            break
        context, arrays = opened(joined, episode)
        try:
            for key in counted:
                array = array_of(arrays, key) if joined.has(episode, key[1]) else None
                counts[key][episode] = 0 if array is None else len(array)
                known += int(counts[key][episode]) * sizes[key]
        finally:
            context.__exit__(None, None, None)
    if known > most_bytes:
        return None
    first = {key: np.where(_has(joined, key[1]), np.cumsum(count) - count, -1) for key, count in counts.items()}
    return Packing(first, {key: int(count.sum()) for key, count in counts.items()}, known)


def read_all(joined: Joined) -> Iterator[tuple[int, Key, npt.NDArray[Any]]]:
    """Every array of every episode; each is good until the next is asked for."""
    for episode in range(len(joined.lengths)):
        context, arrays = opened(joined, episode)
        try:
            for key in joined.slots:
                array = array_of(arrays, key) if joined.has(episode, key[1]) else None
                if array is not None:
                    yield episode, key, array
        finally:
            context.__exit__(None, None, None)


class PackedEpisodes:
    """Everything in RAM.

    Args:
        joined: The episodes.
        packing: How they lie.
    """

    def __init__(self, joined: Joined, packing: Packing) -> None:
        slots = joined.slots
        self._arrays = {key: np.empty((packing.rows[key], *slot.shape), slot.dtype) for key, slot in slots.items()}
        for episode, key, array in read_all(joined):
            first = int(packing.first_row[key][episode])
            self._arrays[key][first : first + len(array)] = array
        self._addresses = np.zeros((len(joined.lengths), len(slots)), np.int64)
        for place, (key, slot) in enumerate(slots.items()):
            first_row = packing.first_row[key]
            start = self._arrays[key].__array_interface__["data"][0]
            self._addresses[:, place] = np.where(first_row < 0, 0, start + first_row * slot.row_bytes)

    def parts(self, episodes: Integers) -> Iterator[Part]:
        """As `Episodes.parts`."""
        yield Part(None, self._addresses[episodes])

    def close(self) -> None:
        """Free the arrays."""
        self._arrays.clear()


def _has(joined: Joined, name: str) -> npt.NDArray[np.bool_]:
    has = np.array([not name or name in dataset.features for dataset in joined.datasets])
    return has[joined.dataset_of(np.arange(len(joined.lengths)))]


def _is_by_frame(joined: Joined, key: Key) -> bool:
    role, name = key
    return role != "offsets" and (role != "data" or joined.features[name].kind == "numbers")
