"""No room on the disk: one clear error, nothing partial, and the cache goes on."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robocache.cache import ShardStore
from robocache.errors import CacheError, CacheFullError

CHILD = Path(__file__).with_name("child.py")
WRITES = ("open", "write", "ftruncate", "posix_fallocate", "fsync", "replace", "mkdir")


class FailingDisk:
    """Makes the n-th call that may write fail, once."""

    def __init__(self, monkeypatch, number, error_number):
        self.calls, self.failed = 0, None
        for name in WRITES:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name), number, error_number))

    def _wrapped(self, name, real, number, error_number):
        def call(*arguments, **named):
            self.calls += 1
            if self.calls == number:
                self.failed = name
                raise OSError(error_number, os.strerror(error_number))
            return real(*arguments, **named)

        return call


def failure(call):
    """What the call raised of ours, if anything."""
    try:
        call().close()
    except CacheError as error:
        return error
    return None


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_full_at_any_write(tmp_path, key_of, arrays_of, error_number):
    """Fails when one of the writes is not guarded: a partial file stays, a lock is held, or a bare OSError comes out.

    Seen to fail with the unlink taken out of `write_shard`, and with that of `_reserve`.
    """
    expected = ShardStore(tmp_path / "expected")
    expected.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    name = f"{key_of(0).digest}.shard"
    seen = set()
    for number in range(1, 100):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patched:
            disk = FailingDisk(patched, number, error_number)
            error = failure(lambda folder=folder: ShardStore(folder).get_or_build(key_of(0), lambda: arrays_of(0)))
        if disk.failed is None:
            assert error is None
            break
        assert isinstance(error, CacheFullError) == (error_number != errno.EIO)
        assert str(folder) in str(error)
        seen.add(disk.failed)
        store = ShardStore(folder)
        assert list((folder / "partial").iterdir()) == []
        assert [checked.problem for checked in store.verify() if checked.problem] == []
        store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
        assert (folder / "shards" / name).read_bytes() == (expected.folder / "shards" / name).read_bytes()
    assert seen == set(WRITES)


def test_a_write_in_small_parts(store, key_of, arrays_of, monkeypatch):
    """Fails when a write that took a part of the bytes counts as done."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:1000]))
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    with store.open(key_of(0)) as shard:
        np.testing.assert_array_equal(shard.arrays["values"], arrays_of(0)["values"])


def test_a_file_system_that_cannot_reserve(store, key_of, arrays_of, monkeypatch):
    """Fails when a file system without room to reserve is taken for a full one."""

    def cannot(descriptor, offset, length):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    assert [checked.problem for checked in store.verify()] == [None]


def test_a_limit_on_file_sizes(store, key_of, arrays_of):
    """Fails when the system's limit ends the build with a bare error: the shard needs more than a process may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(CacheFullError, match="File too large") as caught:
            store.get_or_build(key_of(0), lambda: arrays_of(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.needed_bytes > 4096
    assert list((store.folder / "partial").iterdir()) == []
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()


def test_a_disk_that_is_really_full(tmp_path):
    """Fails when a full file system leaves more than whole shards, or the cache cannot be emptied and used again."""
    unshare = shutil.which("unshare")
    probe = [unshare or "", "-rm", "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here; the other tests of this file make writes fail")
    script = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" "$3" fill "$1/cache"'
    command = [unshare, "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, str(CHILD)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    ready, full, after = ended.stdout.splitlines()
    fitted, needed, available, left = map(int, full.split())
    assert ready == "ready"
    assert fitted == 256 * 1024 // (28 * 1024)  # a shard takes seven pages of 4096 bytes
    assert available < needed
    assert left == 0
    assert after == "[None]"


def test_a_folder_that_may_only_be_read_serves_what_it_has(store, key_of, arrays_of, monkeypatch):
    """Fails when reading needs to write. Seen to fail without the `suppress` around `os.utime`."""
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    real = os.open

    def refuse(*arguments, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def read_only(path, flags, *mode, **named):
        writes = flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        return refuse() if writes else real(path, flags, *mode, **named)

    for name in ("utime", "ftruncate", "write", "unlink", "replace"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", read_only)
    same = ShardStore(store.folder)
    with same.get_or_build(key_of(0), lambda: pytest.fail("built")) as shard:
        np.testing.assert_array_equal(shard.arrays["values"], arrays_of(0)["values"])
    assert [checked.problem for checked in same.verify()] == [None]
    with pytest.raises(CacheError, match="Read-only file system"):
        same.get_or_build(key_of(1), lambda: pytest.fail("built"))
