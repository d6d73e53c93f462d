"""Several datasets as one, and which arrays its episodes have."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.cache.dataset import Dataset, EpisodeArrays, Feature
from robocache.errors import ArgumentError, ShapeError

Integers = npt.NDArray[np.int64]
Key = tuple[str, str]
TIMES: Key = ("times", "")
_ROLES = ("data", "valid", "age", "row", "offsets")


@dataclass(frozen=True)
class Slot:
    """One array that every episode has of a feature.

    Args:
        role: "times", "data", "valid", "age", "row" or "offsets".
        name: The feature.
        dtype: Of the stored values.
        shape: Of one row.
    """

    role: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    @cached_property
    def key(self) -> Key:
        """What the slot is found by."""
        return self.role, self.name

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape)


def array_of(arrays: EpisodeArrays, key: Key) -> npt.NDArray[Any] | None:
    """An episode's array, or None where it has none."""
    role, name = key
    if role == "times":
        return arrays.times_ns
    found: Mapping[str, npt.NDArray[Any]] = {
        "data": arrays.data,
        "valid": arrays.valid,
        "age": arrays.age_ns,
        "row": arrays.row,
        "offsets": arrays.offsets,
    }[role]
    return found.get(name)


class Joined:
    """Datasets one after the other. A stream that one of them lacks is filled and masked there.

    Args:
        datasets: At least one.

    Raises:
        ArgumentError: There is none, or nothing in them.
        ShapeError: Two of them have a feature of one name that is not the same.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        if not datasets:
            raise ArgumentError("dataset must be a Dataset or a list of at least one, got an empty list")
        self.datasets = tuple(_as_dataset(dataset) for dataset in datasets)
        self.features: dict[str, Feature] = {}
        for place, dataset in enumerate(self.datasets):
            for name, feature in dataset.features.items():
                known = self.features.setdefault(name, feature)
                _check_same(name, known, feature, place)
        each = [np.asarray(dataset.lengths, np.int64) for dataset in self.datasets]
        self.lengths: Integers = np.concatenate(each)
        self.first_episode: Integers = np.cumsum([0, *map(len, each)])
        if self.lengths.size == 0:
            raise ArgumentError("dataset has no episodes")

    @cached_property
    def fingerprint(self) -> str:
        """Of all datasets, in their order."""
        return hashlib.sha256(repr([dataset.fingerprint for dataset in self.datasets]).encode()).hexdigest()[:32]

    def dataset_of(self, episodes: Integers) -> Integers:
        """Which dataset each episode is of."""
        return np.searchsorted(self.first_episode, episodes, side="right") - 1

    def open_episode(self, episode: int) -> AbstractContextManager[EpisodeArrays]:
        """One episode's arrays, until the context ends."""
        place = int(self.dataset_of(np.array(episode)))
        return self.datasets[place].open_episode(episode - int(self.first_episode[place]))

    def name(self, episode: int) -> str:
        """What an episode is called in a message."""
        place = int(self.dataset_of(np.array(episode)))
        number = episode - int(self.first_episode[place])
        names = getattr(self.datasets[place], "episode_names", None)
        called = f" ({names[number]})" if names is not None else ""
        return f"episode {number}{called}" + (f" of dataset {place}" if len(self.datasets) > 1 else "")

    def has(self, episode: int, feature: str) -> bool:
        """Whether the episode's dataset has the feature."""
        return not feature or feature in self.datasets[int(self.dataset_of(np.array(episode)))].features

    @cached_property
    def slots(self) -> dict[Key, Slot]:
        """All arrays, their dtypes and shapes: of valid and age as the first episode of each dataset has them."""
        found = {TIMES: Slot(*TIMES, np.dtype(np.int64))}
        for place, dataset in enumerate(self.datasets):
            if len(dataset.lengths) == 0:
                continue
            with dataset.open_episode(int(np.argmax(dataset.lengths))) as arrays:
                for feature in dataset.features.values():
                    for slot in _slots(feature, arrays):
                        known = found.setdefault(slot.key, slot)
                        if known.shape != slot.shape:
                            raise ShapeError(
                                f"{slot.role} of {slot.name!r} has rows of {slot.shape} in dataset {place}, "
                                f"but {known.shape} in another"
                            )
        return found


def _as_dataset(given: Any) -> Dataset:  # noqa: ANN401 -- whatever the caller gave
    dataset = given.aligned() if hasattr(given, "aligned") else given
    if not all(hasattr(dataset, name) for name in ("features", "lengths", "fingerprint", "open_episode")):
        what = repr(given) if isinstance(given, str) else type(given).__name__
        raise ArgumentError(f"dataset must be what robocache.open(source, spec) gives, or another Dataset; got {what}")
    return dataset  # type: ignore[no-any-return]


def _slots(feature: Feature, arrays: EpisodeArrays) -> list[Slot]:
    """A feature's arrays; whether valid and age have a value a frame or a value a sample only the arrays tell."""
    roles = {"numbers": _ROLES[:3], "image": _ROLES[:4], "points": _ROLES}[feature.kind]
    dtypes = {"data": np.dtype(feature.dtype), "valid": np.dtype(np.bool_)}
    slots = []
    for role in roles:
        shape = tuple(feature.shape) if role == "data" else ()
        if role in {"valid", "age"}:
            array = array_of(arrays, (role, feature.name))
            shape = () if array is None else array.shape[1:]
        slots.append(Slot(role, feature.name, dtypes.get(role, np.dtype(np.int64)), shape))
    return slots


def _check_same(name: str, known: Feature, feature: Feature, place: int) -> None:
    for what in ("kind", "dtype", "shape", "horizon", "columns", "grid"):
        own, other = getattr(feature, what), getattr(known, what)
        if own != other and not (what == "columns" and not (own and other)):
            raise ShapeError(
                f"feature {name!r} has {what} {own!r} in dataset {place}, but {other!r} in another; "
                "only features that are the same can be mixed"
            )
