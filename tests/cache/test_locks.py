"""A lock holds for the file that its name leads to now, not for the one that it led to while we waited."""

from __future__ import annotations

import fcntl
import os

import pytest

from robocache.cache import locks


@pytest.fixture
def replaced_before_locking(tmp_path, monkeypatch):
    """A file that gives its name to another one after it was opened and before it is locked, once."""
    path = tmp_path / "file"
    path.write_text("old")
    real, calls = fcntl.flock, []

    def flock(descriptor, operation):
        if not calls:
            path.unlink()
            path.write_text("new")
        calls.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    return path


def is_locked(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize("remove", [False, True])
def test_an_exclusive_lock_is_of_the_named_file(replaced_before_locking, remove):
    """Fails when two hold one lock, each another file. Seen to fail without `is_named` in `exclusive`."""
    with locks.exclusive(replaced_before_locking, remove=remove):
        assert is_locked(replaced_before_locking)
    assert replaced_before_locking.exists() != remove


def test_a_shared_lock_is_of_the_named_file(replaced_before_locking):
    """Fails when a shard that was evicted meanwhile is opened. Seen to fail without `is_named` in `open_shared`."""
    with os.fdopen(locks.open_shared(replaced_before_locking)) as file:
        assert file.read() == "new"


def test_another_file_of_the_name_is_not_removed(replaced_before_locking):
    """Fails when a shard that was built anew meanwhile is evicted. Seen to fail without `is_named` in `remove_open`."""
    assert not locks.remove_unless_held(replaced_before_locking)
    assert replaced_before_locking.read_text() == "new"


def test_nobody_evicts_between_a_writers_two_locks(store, key_of, arrays_of, monkeypatch):
    """Fails when a new shard can go before its builder has it open: changing a lock gives it up for a moment.

    Seen to fail with the rename and the change of the lock taken out of `changing` in `write_shard`.
    """
    real, held = fcntl.flock, []

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_SH:
            held.append(is_locked(store.folder / "locks" / "space"))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    assert held == [True]
