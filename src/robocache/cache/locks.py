"""Locks between processes: `flock` on files, which the system releases when their holder dies.

Each holder has a descriptor of its own, so that threads of one process exclude each other too. A name is only as good
as the file behind it: whoever gets a lock looks whether the name still leads to the file that is locked.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusive(path: Path, *, remove: bool) -> Iterator[None]:
    """Wait until nobody else holds the lock file, and hold it for the block.

    Args:
        path: The lock file; it is made if need be.
        remove: Take the file away at the end, so that there are never more of them than holders.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not is_named(path, descriptor):  # its last holder took the name away while we waited
                continue
            try:
                yield
            finally:
                if remove:
                    path.unlink(missing_ok=True)
                # A process forked meanwhile holds a copy of the descriptor: closing ours would leave it locked.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            return
        finally:
            os.close(descriptor)


def open_shared(path: Path) -> int | None:
    """A descriptor that holds a shared lock of a file, or None if there is no such file; closing it unlocks."""
    while True:
        descriptor = _open(path)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if is_named(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def remove_unless_held(path: Path) -> bool:
    """Remove a file that nobody has locked, or a link in its place; True if it is gone by our hand."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return True
    descriptor = _open(path)
    if descriptor is None:
        return False
    try:
        return remove_open(path, descriptor)
    finally:
        os.close(descriptor)


def remove_complete(path: Path) -> bool:
    """As `remove_unless_held`, of a file that is never changed in place.

    One that may not be read goes too: nobody can open it any more, and whoever has it open keeps its bytes.
    """
    try:
        return remove_unless_held(path)
    except PermissionError:
        path.unlink(missing_ok=True)
        return True


def remove_open(path: Path, descriptor: int) -> bool:
    """Remove the very file that is open here, unless somebody else has locked it; its shared lock is given up.

    A folder goes if it is empty.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not is_named(path, descriptor):
        return False
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            path.rmdir()
        return not path.exists()
    path.unlink()
    return True


def is_named(path: Path, descriptor: int) -> bool:
    """Whether the name leads to the open file."""
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def _open(path: Path) -> int | None:
    # Neither a link out of the folder nor a pipe that would make us wait.
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
