"""The name of a shard: a hash of the bytes it is made from and of what is made of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robocache.cache.layout import FORMAT_VERSION, canonical_json
from robocache.errors import ArgumentError, RecordingError, RecordingNotFoundError

DIGEST = re.compile(r"[0-9a-f]{64}")
MEMO_ENTRIES = 65_536
# A file written again so soon after may have the same stamps: file systems count time in ticks.
_SETTLED_NS = 2 * 10**9
_Identity = tuple[str, int, int, int, int, int]


@dataclass(frozen=True, order=True)
class ShardKey:
    """Names a shard; made by `shard_key`.

    Args:
        digest: 64 lower-case hexadecimal digits, and so never a path.
    """

    digest: str

    def __post_init__(self) -> None:
        if DIGEST.fullmatch(str(self.digest)) is None:
            raise ArgumentError(f"digest must be 64 lower-case hexadecimal digits, got {self.digest!r}")


def shard_key(sources: Sequence[Path | str], description: Mapping[str, Any], version: int | str) -> ShardKey:
    """The key of what is built from `sources` as `description` says.

    Where a file lies and what it is called do not count, its bytes do. They are hashed once in a process: a file
    with the same size, stamps and inode is not read again.

    Args:
        sources: Files, in the order in which the builder takes them.
        description: What is made of them, as JSON can say it: a specification, an episode's name. The order of
            its keys does not count.
        version: Of the code that builds; another one gives other keys.

    Raises:
        RecordingError: A source cannot be read, or changed while it was read.
        ArgumentError: JSON cannot say `description`.
    """
    if isinstance(sources, str | os.PathLike):
        raise ArgumentError(f"sources must be a list of files, got {sources!r}")
    digests = [source_digest(Path(source)) for source in sources]
    parts = {"description": dict(description), "format": FORMAT_VERSION, "sources": digests, "version": version}
    text = canonical_json(parts, "description").encode("ascii")
    return ShardKey(hashlib.blake2b(text, digest_size=32, person=b"robocache-shard").hexdigest())


def source_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, from the memo if the file has not changed."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise RecordingError(path, "is not a file", remedy="name the files of a folder one by one")
        with path.open("rb") as file:
            before = _identity(path, file.fileno())
            known = _MEMO.get(before)
            if known is not None:
                return known
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
            is_settled = time.time_ns() - max(before[2], before[3]) > _SETTLED_NS
            if _identity(path, file.fileno()) != before:
                raise RecordingError(path, "changed while it was read", remedy="wait until it is complete")
    except FileNotFoundError as error:
        raise RecordingNotFoundError(path, "there is no such file") from error
    except OSError as error:
        raise RecordingNotFoundError(path, f"cannot be read ({error.strerror or error})") from error
    if is_settled:
        _MEMO.put(before, digest)
    return digest


def remembered(paths: Iterable[Path]) -> list[list[Any]]:
    """What this process knows of files, for `remember` in another one: JSON, one entry a file."""
    return [[*identity, digest] for identity, digest in _MEMO.entries({str(path.absolute()) for path in paths})]


def remember(entries: Iterable[Sequence[Any]]) -> None:
    """Believe what `remembered` gave; it counts only for files whose size, stamps and inode are still the same."""
    for path, size, modified_ns, changed_ns, inode, device, digest in entries:
        if DIGEST.fullmatch(digest):
            _MEMO.put((path, size, modified_ns, changed_ns, inode, device), digest)


class _Memo:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: OrderedDict[_Identity, str] = OrderedDict()

    def get(self, identity: _Identity) -> str | None:
        with self._lock:
            digest = self._digests.get(identity)
            if digest is not None:
                self._digests.move_to_end(identity)
            return digest

    def put(self, identity: _Identity, digest: str) -> None:
        with self._lock:
            self._digests[identity] = digest
            while len(self._digests) > MEMO_ENTRIES:
                self._digests.popitem(last=False)

    def entries(self, paths: Collection[str]) -> list[tuple[_Identity, str]]:
        with self._lock:
            return [(identity, digest) for identity, digest in self._digests.items() if identity[0] in paths]

    def renew_lock(self) -> None:
        # A fork may have copied the lock while another thread held it.
        self._lock = threading.Lock()


_MEMO = _Memo()
os.register_at_fork(after_in_child=_MEMO.renew_lock)


def _identity(path: Path, descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    stamps = (status.st_mtime_ns, status.st_ctime_ns)
    return (str(path.absolute()), status.st_size, *stamps, status.st_ino, status.st_dev)
