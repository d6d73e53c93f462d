"""Writing a shard: room first, then aside, then to the disk, then into place."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from pathlib import Path

from robocache.cache import locks
from robocache.cache.draft import Draft
from robocache.cache.folder import CacheFolder, translated
from robocache.cache.layout import Contents
from robocache.errors import CacheError, CacheFullError

_MOVED_BYTES = 2**20


def write_shard(folder: CacheFolder, digest: str, contents: Contents, *, limit_bytes: int | None) -> int:
    """Write a shard and put it in its place, where there may be a damaged one; `building` must be held.

    Returns:
        A descriptor of it with a shared lock: from its first moment on it is open, and nobody evicts it.

    Raises:
        CacheFullError: There is no room for it.
        CacheError: It cannot be written.
    """
    draft = Draft(digest, contents)
    head = draft.longest_head()
    size_bytes = len(head) + draft.data_bytes
    path = folder.shard_path(digest)
    partial = folder.partial / f"{digest}.{secrets.token_hex(8)}"
    with translated(folder.root, needed_bytes=size_bytes):
        descriptor = _reserve(folder, path, partial, size_bytes, limit_bytes)
    try:
        _write(folder, descriptor, draft, head)
        with translated(folder.root, needed_bytes=size_bytes):
            os.fsync(descriptor)
            # Under the lock of those who evict: between the two locks of one descriptor there is a moment without.
            with folder.changing():
                partial.replace(path)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            _sync_folder(folder.shards)
    except BaseException:
        partial.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return descriptor


def _reserve(folder: CacheFolder, path: Path, partial: Path, size_bytes: int, limit_bytes: int | None) -> int:
    """A new file of the full length, locked: whoever counts bytes from now on counts these."""
    with folder.changing():
        folder.sweep()
        if not locks.remove_complete(path) and path.is_dir():
            problem = "is a folder with something in it, in the place of a shard"
            raise CacheError(f"{path}: {problem}; move it away, the cache must hold nothing else")
        if limit_bytes is not None:
            _make_room(folder, size_bytes, limit_bytes)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.ftruncate(descriptor, size_bytes)
        except BaseException:
            partial.unlink()
            os.close(descriptor)
            raise
        return descriptor


def _make_room(folder: CacheFolder, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise CacheFullError(
            f"{folder.root}: one shard needs {size_bytes} bytes, the whole cache may hold {limit_bytes}; "
            "raise the cache's limit",
            needed_bytes=size_bytes,
            available_bytes=limit_bytes,
        )
    until_bytes = limit_bytes - size_bytes - folder.partial_bytes()
    _, left_bytes = folder.evict(until_bytes)
    if left_bytes > until_bytes:
        available_bytes = max(0, size_bytes + until_bytes - left_bytes)
        raise CacheFullError(
            f"{folder.root}: a shard needs {size_bytes} bytes, but of the {limit_bytes} that the cache may hold only "
            f"{available_bytes} are available, the others being in use; close shards, or raise the cache's limit",
            needed_bytes=size_bytes,
            available_bytes=available_bytes,
        )


def _write(folder: CacheFolder, descriptor: int, draft: Draft, head: bytes) -> None:
    """Write head and arrays. What makes the pieces of one fails with its own errors, not with those of the cache."""
    size_bytes = len(head) + draft.data_bytes
    with translated(folder.root, needed_bytes=size_bytes):
        try:
            # A full disk is noticed here, before anything has been written.
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can
                raise
        _write_all(descriptor, memoryview(head))
    for name in draft.arrays:
        for part in draft.parts(name):
            with translated(folder.root, needed_bytes=size_bytes):
                _write_all(descriptor, part)
    if draft.has_pieces:
        with translated(folder.root, needed_bytes=size_bytes):
            _put_head(descriptor, draft, len(head))


def _put_head(descriptor: int, draft: Draft, room_bytes: int) -> None:
    """The head with all checksums; where it is shorter than the room that it was given, the arrays move up."""
    head = draft.head()
    if len(head) < room_bytes:
        moved = 0
        os.lseek(descriptor, len(head), os.SEEK_SET)
        while data := os.pread(descriptor, _MOVED_BYTES, room_bytes + moved):
            _write_all(descriptor, memoryview(data))
            moved += len(data)
        os.ftruncate(descriptor, len(head) + draft.data_bytes)
    os.lseek(descriptor, 0, os.SEEK_SET)
    _write_all(descriptor, memoryview(head))


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    # Without it a power cut could forget the new name.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
