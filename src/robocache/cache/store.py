"""A store of shards that any number of threads and processes use at once."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from robocache.cache import locks
from robocache.cache.folder import CacheFolder, ShardInfo, translated
from robocache.cache.key import ShardKey
from robocache.cache.layout import Contents, Pieces
from robocache.cache.shard import Shard, check_arrays, checked_header, locked_descriptor, map_shard
from robocache.cache.writing import write_shard
from robocache.errors import ArgumentError, DamagedShardError, ShardNotFoundError

Build = Callable[[], Contents | Mapping[str, NDArray[Any] | Pieces]]


@dataclass(frozen=True)
class CheckedShard:
    """What `verify` found.

    Args:
        info: The shard.
        problem: None if every byte is as it was written, else what is wrong, with file and place.
        is_removed: Whether it was damaged and has been removed.
    """

    info: ShardInfo
    problem: str | None
    is_removed: bool


@dataclass(frozen=True)
class Collected:
    """What `gc` did.

    Args:
        evicted: The shards that went.
        leftover_bytes: Size of what killed writers had left behind, and is gone.
        left_bytes: Size of the shards that stay; those that are open stay in any case.
    """

    evicted: tuple[ShardInfo, ...]
    leftover_bytes: int
    left_bytes: int


class ShardStore:
    """Named arrays on a local disk, each set under the hash of what it was made from.

    Args:
        folder: Where; it is made if need be. It must not hold anything else, nor lie on a network file system.
        limit_bytes: What the shards may weigh together, with those being written. Room is made by evicting the one
            used longest ago that nobody has open. None: until the disk is full.
        verify_arrays: Compare the arrays' checksums each time that a shard is opened. Without it only the header is
            checked, and a flipped bit in an array is not noticed.
        create: Make the folder if it is not there.

    A store holds no open file and no thread. Threads, forked and other processes may use one folder at the same time.

    Raises:
        ArgumentError: `limit_bytes` is not an integer of 1 or more.
        CacheError: The folder cannot be used.
    """

    def __init__(
        self, folder: Path | str, limit_bytes: int | None = None, *, verify_arrays: bool = True, create: bool = True
    ) -> None:
        if limit_bytes is not None and not _is_count(limit_bytes):
            raise ArgumentError(f"limit_bytes must be an integer of 1 or more, or None, got {limit_bytes!r}")
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self._verify_arrays = verify_arrays
        self._place = CacheFolder(self.folder, create=create)

    def get_or_build(self, key: ShardKey, build: Build) -> Shard:
        """The shard of a key, built if there is none or if it is damaged.

        Among all threads and processes one builds; the others wait for it. If it fails or is killed, the next one
        builds. A damaged shard is built anew with a `RuntimeWarning`, since a disk that damages files wants looking
        after.

        Args:
            key: Whose shard.
            build: Gives the arrays, or `Contents`. The same key must give the same. It must not ask for its own key.
                Large arrays may be `Pieces`, which are made while they are written.

        Returns:
            The shard, to be closed: `with store.get_or_build(key, build) as shard`.

        Raises:
            CacheFullError: There is no room for it.
            CacheError: It cannot be read or written.
        """
        with suppress(DamagedShardError):  # looked at again below, by one of us
            found = self._open(key)
            if found is not None:
                return found
        with ExitStack() as stack:
            with translated(self.folder):
                stack.enter_context(self._place.building(key.digest))
            try:
                found = self._open(key)
            except DamagedShardError as error:
                warnings.warn(f"built anew: {error}", RuntimeWarning, stacklevel=2)
            else:
                if found is not None:
                    return found
            built = build()
            contents = built if isinstance(built, Contents) else Contents(built)
            descriptor = write_shard(self._place, key.digest, contents, limit_bytes=self.limit_bytes)
            return self._mapped(key.digest, descriptor, was_built=True)

    def open(self, key: ShardKey) -> Shard:
        """The shard of a key.

        Args:
            key: Whose shard.

        Raises:
            ShardNotFoundError: There is none.
            DamagedShardError: Its bytes are not those that were written.
        """
        found = self._open(key)
        if found is None:
            raise ShardNotFoundError(f"{self.folder}: holds no shard {key.digest}; build it with get_or_build")
        return found

    def contains(self, key: ShardKey) -> bool:
        """Whether there is a file for the key; nothing is checked, and another process may evict it at any time.

        Args:
            key: Whose shard.
        """
        return self._place.shard_path(key.digest).is_file()

    def ls(self) -> list[ShardInfo]:
        """Every shard, the one used longest ago first."""
        with translated(self.folder):
            return self._place.infos()

    def verify(self, *, remove: bool = False) -> Iterator[CheckedShard]:
        """Compare every checksum of every shard, one shard a step; shards evicted meanwhile are left out.

        Args:
            remove: Remove those that are damaged, unless they are open.
        """
        with translated(self.folder):
            infos = self._place.infos(folders=True)
        for info in infos:
            problem, is_removed, descriptor = None, False, None
            path = self._place.shard_path(info.digest)
            with translated(self.folder), ExitStack() as stack:
                try:
                    descriptor = locked_descriptor(path)
                    if descriptor is None:
                        continue
                    stack.callback(os.close, descriptor)
                    check_arrays(path, checked_header(path, info.digest, descriptor), descriptor)
                except DamagedShardError as error:
                    problem = str(error)
                    if remove:
                        is_removed = self._remove(path, descriptor)
            yield CheckedShard(info, problem, is_removed)

    def gc(self, limit_bytes: int | None = None) -> Collected:
        """Remove what killed writers left behind, and shards, the one used longest ago first, down to a limit.

        Args:
            limit_bytes: What may stay, 0 for nothing; without it the store's own limit, if it has one.
        """
        limit_bytes = self.limit_bytes if limit_bytes is None else limit_bytes
        if limit_bytes is not None and not (limit_bytes == 0 or _is_count(limit_bytes)):
            raise ArgumentError(f"limit_bytes must be an integer of 0 or more, or None, got {limit_bytes!r}")
        with translated(self.folder), self._place.changing():
            leftover_bytes = self._place.sweep()
            everything = sum(info.size_bytes for info in self._place.infos())
            evicted, left_bytes = self._place.evict(everything if limit_bytes is None else limit_bytes)
        return Collected(tuple(evicted), leftover_bytes, left_bytes)

    def _open(self, key: ShardKey) -> Shard | None:
        with translated(self.folder):
            descriptor = locked_descriptor(self._place.shard_path(key.digest))
        if descriptor is None:
            return None
        return self._mapped(key.digest, descriptor, was_built=False)

    def _mapped(self, digest: str, descriptor: int, *, was_built: bool) -> Shard:
        path = self._place.shard_path(digest)
        try:
            with translated(self.folder):
                header = checked_header(path, digest, descriptor)
                if self._verify_arrays and not was_built:
                    check_arrays(path, header, descriptor)
                shard = map_shard(path, header, descriptor, was_built=was_built)
                with suppress(OSError):  # a folder that may only be read keeps no record of use
                    os.utime(descriptor, ns=(time.time_ns(),) * 2)
                return shard
        finally:
            os.close(descriptor)

    def _remove(self, path: Path, descriptor: int | None) -> bool:
        with self._place.changing():
            return locks.remove_complete(path) if descriptor is None else locks.remove_open(path, descriptor)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
