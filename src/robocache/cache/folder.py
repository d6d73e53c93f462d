"""The folder of a cache: where things lie, who may change what, and what it weighs.

robocache.cache            says that the folder is ours
shards/<key>.shard         complete, never changed in place
partial/<key>.<random>     being written, locked by its writer; its length is the room that it will need
manifests/<name>.json      what is known of a data set whose episodes are shards; a memory, which may go
locks/<key>                locked by whoever builds that shard
locks/space                locked by whoever adds a shard or takes one away
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from robocache.cache import locks
from robocache.cache.key import DIGEST
from robocache.errors import CacheError, CacheFullError

MARKER = "robocache.cache"
_MARKER_TEXT = "Shards of RoboCache: aligned episodes that can be built again. See 'robocache cache --help'.\n"
UNFINISHED = "."  # begins the name of a manifest that is being written
_SUFFIX = ".shard"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ShardInfo:
    """A shard as `ls` shows it.

    Args:
        digest: Its key's digest.
        size_bytes: Length of its file.
        last_used_ns: When it was built or last opened, since 1970.
    """

    digest: str
    size_bytes: int
    last_used_ns: int


class CacheFolder:
    """Paths, locks and sizes.

    Args:
        root: The folder.
        create: Make it if it is not there.

    Raises:
        CacheError: It cannot be made, or something else lies there.
    """

    def __init__(self, root: Path, *, create: bool) -> None:
        self.root = root
        self.shards, self.partial, self.locks = root / "shards", root / "partial", root / "locks"
        self.manifests = root / "manifests"
        with translated(root):
            if create:
                self._create()
            elif not (root / MARKER).is_file():
                raise CacheError(f"{root}: is not a cache (no {MARKER}); name the folder of one")

    def shard_path(self, digest: str) -> Path:
        """Where a shard lies, or would."""
        return self.shards / f"{digest}{_SUFFIX}"

    def building(self, digest: str) -> AbstractContextManager[None]:
        """One builder at a time for each key."""
        return locks.exclusive(self.locks / digest, remove=True)

    def changing(self) -> AbstractContextManager[None]:
        """One change of what the folder holds at a time."""
        return locks.exclusive(self.locks / "space", remove=False)

    def infos(self, *, folders: bool = False) -> list[ShardInfo]:
        """Every shard, the one used longest ago first; with `folders`, also what is a folder in the place of one."""
        found = []
        for entry in _entries(self.shards, folders=folders):
            digest = entry.name.removesuffix(_SUFFIX)
            if entry.name.endswith(_SUFFIX) and DIGEST.fullmatch(digest):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # evicted while we looked
                    continue
                found.append(ShardInfo(digest, status.st_size, status.st_mtime_ns))
        return sorted(found, key=lambda info: (info.last_used_ns, info.digest))

    def sweep(self) -> int:
        """Remove what killed writers left behind; `changing` must be held. Returns the bytes that this freed."""
        freed = 0
        for entry in _entries(self.partial):
            size = entry.stat(follow_symlinks=False).st_size
            freed += size if locks.remove_unless_held(Path(entry.path)) else 0
        for entry in _entries(self.manifests):
            if entry.name.startswith(UNFINISHED):  # whoever writes one holds `changing`
                Path(entry.path).unlink(missing_ok=True)
        for entry in _entries(self.locks):
            if DIGEST.fullmatch(entry.name):
                locks.remove_unless_held(Path(entry.path))
        return freed

    def partial_bytes(self) -> int:
        """What is being written will need so much; `changing` must be held."""
        return sum(entry.stat(follow_symlinks=False).st_size for entry in _entries(self.partial))

    def evict(self, until_bytes: int) -> tuple[list[ShardInfo], int]:
        """Remove shards, the one used longest ago first, until so much is left; `changing` must be held.

        Those that are open anywhere stay, also if more is left then. Returns what went, and the bytes left.
        """
        infos = self.infos()
        left = sum(info.size_bytes for info in infos)
        evicted = []
        for info in infos:
            if left <= until_bytes:
                break
            if locks.remove_complete(self.shard_path(info.digest)):
                left -= info.size_bytes
                evicted.append(info)
        return evicted, left

    def _create(self) -> None:
        marker = self.root / MARKER
        if not marker.is_file():
            self.root.mkdir(parents=True, exist_ok=True)
            others = sorted(path.name for path in self.root.iterdir() if path.name != MARKER)
            # Another process may have made it a cache since.
            if others and not marker.is_file():
                raise CacheError(f"{self.root}: holds {others[0]!a} and is not a cache; name a new folder")
            marker.write_text(_MARKER_TEXT, encoding="ascii")
        for folder in (self.shards, self.partial, self.locks, self.manifests):
            folder.mkdir(exist_ok=True)


@contextmanager
def unmade_if_empty(root: Path) -> Iterator[None]:
    """Take a cache away again that the block made, with the folders above it, if the block fails and it holds no shard.

    Args:
        root: The folder of the cache.
    """
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError, CacheError):
            if root in made and _is_unmade(CacheFolder(root, create=False)):
                for path in made:
                    path.rmdir()
        raise


def _is_unmade(folder: CacheFolder) -> bool:
    """Remove all that a cache without shards consists of, unless somebody builds one."""
    with folder.changing():
        if [*folder.shards.iterdir(), *folder.partial.iterdir()]:
            return False
        for path in (folder.shards, folder.partial, folder.manifests, folder.locks):
            shutil.rmtree(path)
        (folder.root / MARKER).unlink()
    return True


@contextmanager
def translated(path: Path, *, needed_bytes: int = 0) -> Iterator[None]:
    """Turn what the operating system says into what a person can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise disk_full(path, error, needed_bytes) from error
        remedy = "name a folder that you may write to"
        where = f" at {error.filename}" if error.filename and Path(error.filename) != path else ""
        raise CacheError(f"{path}: the cache cannot be used ({error.strerror or error}{where}); {remedy}") from error


def disk_full(path: Path, error: OSError, needed_bytes: int) -> CacheFullError:
    """The error for a disk, a quota or a limit on file sizes that is used up."""
    try:
        status = os.statvfs(path)
        available = status.f_bavail * status.f_frsize
    except OSError:  # the folder itself could not be made
        available = 0
    return CacheFullError(
        f"{path}: no room for a shard ({error.strerror}): it needs {needed_bytes} bytes, {available} are available; "
        f"free some space, or shrink the cache with 'robocache cache gc --limit SIZE {path}'",
        needed_bytes=needed_bytes,
        available_bytes=available,
    )


def _entries(folder: Path, *, folders: bool = False) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if folders or not entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
