"""A wary walk through an HDF5 file: hard links only, nothing outside the file, no size believed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.errors import BackendUnavailableError, ClosedError, DamagedRecordingError, RecordingLimitError
from robocache.readers.hdf5_texts import read_texts
from robocache.readers.limits import Limits

if TYPE_CHECKING:
    from h5py import Dataset, Group

MAX_OBJECTS = 100_000
MAX_DEPTH = 32
MAX_TEXT_BYTES = 2**20
NUMBERS = "fiub"
COPY = "copy or record it again"
# What h5py raises on a damaged file, whichever of HDF5's layers notices.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


@dataclass
class Tree:
    """What a file holds, by the full name without the leading slash.

    Args:
        datasets: Numbers with one or two axes, ready for `Hdf5File.read`.
        groups: All groups; the root is "".
        skipped: Everything else, with the reason.
        images: Pictures as [images, height, width, 3] uint8, or JPEG and PNG as one string of bytes each.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    images: dict[str, Dataset] = field(default_factory=dict)


class Hdf5File:
    """An open HDF5 file.

    Args:
        path: The file.
        limits: What it may make the reader allocate.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        try:
            import h5py
        except ModuleNotFoundError as error:
            message = f'{path} is an HDF5 file, but h5py is not installed; pip install "robocache[hdf5]"'
            raise BackendUnavailableError(message) from error
        self.path = path
        self.limits = limits
        self._h5py = h5py
        self._size = path.stat().st_size
        self._owners: tuple[str, ...] = ()
        self._texts: dict[str, dict[str, str]] | None = None
        self._is_closed = False
        with self.damage_named("file"):
            self._file = h5py.File(path, "r", locking="best-effort")

    def close(self) -> None:
        """Close the file."""
        self._is_closed = True
        self._file.close()

    def tree(self) -> Tree:
        """Everything in the file.

        Raises:
            DamagedRecordingError: A link to another file, a damaged object.
            RecordingLimitError: More objects, or deeper groups, than a recording has.
        """
        found = Tree()
        self._walk(self._file, "", 0, found, set())
        self._owners = (*found.groups, *found.datasets)
        return found

    def _walk(self, group: Group, prefix: str, depth: int, found: Tree, seen: set[int]) -> None:
        found.groups[prefix.rstrip("/")] = group
        with self.damage_named(prefix or "/"):
            names = list(group)
            if not all(isinstance(name, str) for name in names):
                raise ValueError("a name in it is not UTF-8")
        if depth > MAX_DEPTH or len(names) + len(seen) > MAX_OBJECTS:
            problem = f"has more than {MAX_DEPTH} levels or {MAX_OBJECTS} objects"
            raise RecordingLimitError(self.path, problem, place=f"group {prefix or '/'}", remedy=COPY)
        for name in names:
            full = prefix + name
            member = self._member(group, name, full, found)
            if member is None:
                continue
            with self.damage_named(full):
                address = int(self._h5py.h5o.get_info(member.id).addr)
            if address in seen:
                found.skipped[full] = "the same object under another name"
                continue
            seen.add(address)
            if isinstance(member, self._h5py.Group):
                self._walk(member, full + "/", depth + 1, found, seen)
            else:
                self._sort(member, full, found)

    def _member(self, group: Group, name: str, full: str, found: Tree) -> Group | Dataset | None:
        with self.damage_named(full):
            link = group.get(name, getlink=True)
        if isinstance(link, self._h5py.ExternalLink):
            raise self._outside(full, f"is a link to another file ({link.filename!r})")
        if not isinstance(link, self._h5py.HardLink):
            found.skipped[full] = "a soft link"
            return None
        with self.damage_named(full):
            return group[name]

    def _sort(self, member: Group | Dataset, full: str, found: Tree) -> None:
        if not isinstance(member, self._h5py.Dataset):
            found.skipped[full] = "neither a group nor a dataset"
            return
        with self.damage_named(full):
            is_outside = bool(member.external) or bool(member.is_virtual)
            shape, dtype = member.shape, member.dtype
        if is_outside:
            raise self._outside(full, "keeps its numbers in another file, or in another dataset")
        is_picture = shape is not None and len(shape) == 4 and shape[3] == 3 and dtype == np.uint8
        if is_picture or (dtype.kind == "S" and shape is not None and len(shape) == 1):
            found.images[full] = member
        elif shape is None:
            found.skipped[full] = "it has no values"
        elif dtype.kind not in NUMBERS or dtype.itemsize > 8:
            found.skipped[full] = f"its values are {dtype}, not numbers"
        elif len(shape) not in (1, 2):
            found.skipped[full] = f"it has {len(shape)} axes, not one or two"
        else:
            found.datasets[full] = member

    def _outside(self, full: str, problem: str) -> DamagedRecordingError:
        remedy = "a recording must be whole in one file: copy that data into it"
        return DamagedRecordingError(self.path, problem, place=f"object {full}", remedy=remedy)

    def rows(self, dataset: Dataset, full: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Some rows of a dataset, as they are.

        Raises:
            ClosedError: After `close`.
            RecordingLimitError: They, or a chunk, are larger than the limits allow.
            DamagedRecordingError: HDF5 cannot read it.
        """
        if self._is_closed:
            raise ClosedError(f"{self.path} is closed; open it again to read from it")
        with self.damage_named(full):
            row_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
            chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
        if max((stop - start) * row_bytes, chunk) > self.limits.block_bytes:
            problem = f"declares chunks of {chunk} bytes, or rows of {row_bytes}; {self.limits.block_bytes} are allowed"
            remedy = "open it with larger Limits(...) if you trust it"
            raise RecordingLimitError(self.path, problem, place=f"dataset {full}", remedy=remedy)
        with self.damage_named(full):
            return np.asarray(dataset[start:stop])

    def read(self, dataset: Dataset, full: str, rows: range) -> npt.NDArray[np.generic]:
        """Some rows of a dataset, [rows, dim], native byte order; one axis becomes a column.

        Args:
            dataset: From `tree`.
            full: Its full name.
            rows: Which, one after the other.

        Raises:
            RecordingLimitError: It declares more than the file, or the limits, can hold.
            DamagedRecordingError: HDF5 cannot read it.
        """
        with self.damage_named(full):
            shape, itemsize = dataset.shape, dataset.dtype.itemsize
            stored = int(dataset.id.get_storage_size())
            chunk = math.prod(dataset.chunks or (0,)) * itemsize
        declared, wanted = math.prod(shape) * itemsize, math.prod((len(rows), *shape[1:])) * itemsize
        # Chunks that were never written take no space in the file, and still have values.
        allowed = self.limits.decompressed_bytes(stored, of_block=False)
        possible = replace(self.limits, episode_bytes=max(declared, 1)).decompressed_bytes(stored, of_block=False)
        for what, size, limit in (
            ("stored", stored, self._size),
            ("decompressed", declared, allowed if len(rows) == shape[0] else possible),
            ("requested", wanted, allowed),
            ("chunk", chunk, self.limits.block_bytes),
        ):
            if size > limit:
                problem = f"declares {size} {what} bytes (shape {shape}), and {limit} are possible or allowed"
                remedy = "open it with larger Limits(...) if you trust it"
                raise RecordingLimitError(self.path, problem, place=f"dataset {full}", remedy=remedy)
        with self.damage_named(full):
            values = np.asarray(dataset[rows.start : rows.stop] if len(rows) < shape[0] else dataset[()])
        return values.reshape(len(values), -1 if values.size else math.prod(shape[1:])).astype(
            values.dtype.newbyteorder("="), copy=False
        )

    def number(self, owner: Group | Dataset, name: str) -> float | None:
        """A numeric attribute of a group or dataset; None where there is none of that name, or it is no number."""
        with self.damage_named(f"attribute {name}"):
            if name not in owner.attrs:
                return None
            attribute = owner.attrs.get_id(name)
            if math.prod(attribute.shape or (1,)) != 1 or attribute.dtype.kind not in NUMBERS:
                return None
            return float(np.asarray(owner.attrs[name]).reshape(-1)[0])

    def text(self, owner: Group | Dataset, name: str) -> str | None:
        """A text attribute of a group or dataset; None where there is none of that name, or it is no text."""
        with self.damage_named(f"attribute {name}"):
            if name not in owner.attrs:
                return None
            attribute = owner.attrs.get_id(name)
            if attribute.shape != () or attribute.dtype.kind not in "OS" or attribute.dtype.itemsize > MAX_TEXT_BYTES:
                return None
            if attribute.dtype.kind == "S":
                return bytes(owner.attrs[name]).decode("utf-8", "replace")
            full = str(owner.name).lstrip("/")
        if self._texts is None:
            self._texts = read_texts(self.path, self._owners)
        return self._texts.get(full, {}).get(name)

    @contextlib.contextmanager
    def damage_named(self, place: str) -> Iterator[None]:
        """Turn what h5py raises inside into one error that names the place."""
        try:
            yield
        except MemoryError as error:
            problem = "HDF5 asks for more memory than there is"
            remedy = "free memory or read it on a larger machine; a damaged size looks the same"
            raise RecordingLimitError(self.path, problem, place=place, remedy=remedy) from error
        except _DAMAGE as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise DamagedRecordingError(self.path, f"HDF5 cannot read it ({text})", place=place, remedy=COPY) from error
