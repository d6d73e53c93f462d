"""Where the arrays of episodes lie: those open in a file, or all of them packed in memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from robocache.cache.dataset import EpisodeArrays
from robocache.errors import ClosedError, EpisodeError
from robocache.loader.joined import Integers, Joined, Slot, array_of
from robocache.loader.reading import LEAST_ROW_BYTES, place_of

Where = Integers | None


class Part(NamedTuple):
    """Samples whose arrays are at hand together.

    Args:
        where: Which samples; None: all.
        addresses: [sample, slot] where arrays begin, 0 where an episode has no such array.
        files: [sample, slot] descriptors of files that rows are to be read from; the address is then the array's offset
            there. -1: the array is in memory. None: all are.
    """

    where: Where
    addresses: Integers
    files: Integers | None = None


_MOST_OPEN = 256


class Episodes(Protocol):
    """Addresses of the arrays of episodes."""

    def parts(self, episodes: Integers) -> Iterator[Part]:
        """The samples in parts, each good until the next is asked for.

        Args:
            episodes: [sample] which episode each is of.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def most_open() -> int:
    """How many episodes may be open at once: a quarter of the descriptors that the process may have, at most 256."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_MOST_OPEN, soft // 4)) if soft != resource.RLIM_INFINITY else _MOST_OPEN


class OpenEpisodes:
    """Episodes opened when they are needed; of more than `limit` the longest unused is closed.

    Args:
        joined: Where they come from.
        limit: How many may be open.
    """

    def __init__(self, joined: Joined, limit: int) -> None:
        self._joined = joined
        self._limit = limit
        self._place = np.full(len(joined.lengths), -1)
        self._addresses = np.zeros((limit, len(joined.slots)), np.int64)
        self._files = np.full((limit, len(joined.slots)), -1)
        self._used = np.zeros(limit, np.int64)
        self._held: list[tuple[int, AbstractContextManager[EpisodeArrays], EpisodeArrays] | None] = [None] * limit
        self._tick = 0
        self._is_closed = False

    @property
    def open_count(self) -> int:
        """How many are open now."""
        return sum(held is not None for held in self._held)

    def parts(self, episodes: Integers) -> Iterator[Part]:
        """As `Episodes.parts`."""
        places = self._place[episodes]
        if not (places < 0).any():
            self._tick += 1
            self._used[places] = self._tick
            yield Part(None, self._addresses[places], self._files[places])
            return
        wanted = np.unique(episodes)
        for start in range(0, len(wanted), self._limit):
            group = wanted[start : start + self._limit]
            self._have(group)
            where = None if len(wanted) <= self._limit else np.flatnonzero(np.isin(episodes, group))
            chosen = episodes if where is None else episodes[where]
            places = self._place[chosen]
            yield Part(where, self._addresses[places], self._files[places])

    def close(self) -> None:
        """Close all of them; an error of one comes after the others are closed."""
        self._is_closed = True
        errors: list[BaseException] = []
        for place in range(self._limit):
            try:
                self._release(place)
            except BaseException as error:  # noqa: BLE001  # raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _have(self, group: Integers) -> None:
        self._tick += 1
        there = self._place[group]
        self._used[there[there >= 0]] = self._tick
        for episode in group[there < 0].tolist():
            if self._is_closed:
                raise ClosedError("the loader was closed")
            place = int(np.argmin(self._used))
            self._release(place)
            context, arrays = opened(self._joined, episode)
            self._held[place] = (episode, context, arrays)
            self._addresses[place] = addresses(self._joined, episode, arrays)
            self._files[place] = -1
            for number, (key, slot) in enumerate(self._joined.slots.items()):
                array = array_of(arrays, key) if _is_read(self._joined, slot) else None
                found = None if array is None else place_of(array)
                if found is not None:
                    self._files[place, number], self._addresses[place, number] = found
            self._place[episode], self._used[place] = place, self._tick

    def _release(self, place: int) -> None:
        held, self._held[place] = self._held[place], None
        self._used[place] = 0
        if held is not None:
            episode, context, arrays = held
            self._place[episode] = -1
            del held, arrays
            context.__exit__(None, None, None)


def opened(joined: Joined, episode: int) -> tuple[AbstractContextManager[EpisodeArrays], EpisodeArrays]:
    """An open episode whose arrays are what its features say; closed again where they are not.

    Raises:
        EpisodeError: It names the episode; what went wrong is its cause.
    """
    try:
        context = joined.open_episode(episode)
        arrays = context.__enter__()
    except Exception as error:
        raise EpisodeError(f"{joined.name(episode)} cannot be read: {type(error).__name__}: {error}") from error
    try:
        for slot in joined.slots.values():
            if joined.has(episode, slot.name):
                _check(joined, episode, slot, arrays)
        for feature in joined.features.values():
            if feature.kind != "numbers" and joined.has(episode, feature.name):
                _check_rows(joined, episode, feature.name, arrays)
    except BaseException:
        context.__exit__(None, None, None)
        raise
    return context, arrays


def addresses(joined: Joined, episode: int, arrays: EpisodeArrays) -> list[int]:
    """Where each slot's array begins, 0 where the episode's dataset has none."""
    found = (array_of(arrays, key) if joined.has(episode, key[1]) else None for key in joined.slots)
    return [0 if array is None else array.__array_interface__["data"][0] for array in found]


def _is_read(joined: Joined, slot: Slot) -> bool:
    """Whether rows are read from the file: large images, whose mapped pages would be the dataset in memory."""
    is_image = slot.role == "data" and joined.features[slot.name].kind == "image"
    return is_image and slot.row_bytes >= LEAST_ROW_BYTES


def _check(joined: Joined, episode: int, slot: Slot, arrays: EpisodeArrays) -> None:
    array = array_of(arrays, slot.key)
    frames = int(joined.lengths[episode])
    problem = None
    if array is None:
        problem = "is missing"
    elif array.dtype != slot.dtype or array.shape[1:] != slot.shape:
        problem = f"has rows of {array.dtype} {array.shape[1:]}, but the dataset says {slot.dtype} {slot.shape}"
    elif not array.flags.c_contiguous:
        problem = "is not contiguous"
    elif _is_by_frame(joined, slot) and len(array) != frames:
        problem = f"has {len(array)} rows, but the dataset says that the episode has {frames} frames"
    if problem is not None:
        what = "times_ns" if slot.role == "times" else f"{slot.role} of {slot.name!r}"
        raise EpisodeError(f"{joined.name(episode)}: {what} {problem}")


def _is_by_frame(joined: Joined, slot: Slot) -> bool:
    return slot.role != "offsets" and (slot.role != "data" or joined.features[slot.name].kind == "numbers")


def _check_rows(joined: Joined, episode: int, name: str, arrays: EpisodeArrays) -> None:
    """Rows and offsets become addresses, so none may point outside."""
    row, data, offsets = arrays.row[name], arrays.data[name], arrays.offsets.get(name)
    is_image = joined.features[name].kind == "image"
    count = len(data) if is_image or offsets is None else len(offsets) - 1
    if row.size and row.max() >= count:
        raise EpisodeError(f"{joined.name(episode)}: row of {name!r} points to {row.max()}, but there are {count}")
    if not is_image and offsets is not None:
        steps: npt.NDArray[Any] = np.diff(offsets)
        if len(offsets) == 0 or offsets[0] < 0 or offsets[-1] > len(data) or (steps < 0).any():
            raise EpisodeError(f"{joined.name(episode)}: offsets of {name!r} do not ascend from 0 to {len(data)}")
