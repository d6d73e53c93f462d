"""What makes two keys the same, and what makes them differ."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from robocache.cache import key as keys
from robocache.cache import shard_key
from robocache.errors import ArgumentError, RecordingError, RecordingNotFoundError

LONG_AGO_NS = 10**18


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "run.mcap"
    path.write_bytes(b"abc" * 100_000)
    return path


@pytest.fixture
def settled(monkeypatch):
    """Stamps count as old at once: a change time cannot be set from outside."""
    monkeypatch.setattr(keys, "_SETTLED_NS", -(10**12))


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files whose bytes are read, in order."""
    read = []
    real = hashlib.file_digest

    def record(file, digest):
        read.append(Path(file.name).name)
        return real(file, digest)

    monkeypatch.setattr(keys.hashlib, "file_digest", record)
    return read


def test_bytes_count_and_names_do_not(source, tmp_path):
    """Fails when a path gets into the key, or the order of a description's keys."""
    key = shard_key([source], {"a": 1, "b": [2, 3]}, 1)
    copy = tmp_path / "other" / "name"
    copy.parent.mkdir()
    shutil.copy(source, copy)
    assert shard_key([str(copy)], {"b": [2, 3], "a": 1}, 1) == key
    others = [
        shard_key([source, source], {"a": 1, "b": [2, 3]}, 1),
        shard_key([source], {"a": 1, "b": [2, 4]}, 1),
        shard_key([source], {"a": 1, "b": [2, 3]}, 2),
        shard_key([source], {"a": 1, "b": [2, 3]}, "1"),
        shard_key([], {"a": 1, "b": [2, 3]}, 1),
    ]
    copy.write_bytes(source.read_bytes()[:-1] + b"d")
    others += [shard_key([copy], {"a": 1, "b": [2, 3]}, 1), shard_key([source, copy], {}, 1)]
    others.append(shard_key([copy, source], {}, 1))
    assert len({key, *others}) == 1 + len(others)


def test_a_key_is_the_same_on_every_machine_and_day(tmp_path):
    """Fails when what is hashed changes without a new format version: every cache would be built anew."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    digest = hashlib.blake2b(b"abc", digest_size=32).hexdigest()
    text = f'{{"description":{{"rate_hz":50}},"format":1,"sources":["{digest}"],"version":3}}'
    expected = hashlib.blake2b(text.encode(), digest_size=32, person=b"robocache-shard").hexdigest()
    assert shard_key([path], {"rate_hz": 50}, 3).digest == expected


def test_an_unchanged_file_is_read_once(source, hashed, settled):
    """Fails when the memo is not asked, or believes a file whose size, stamp or inode is another one."""
    first = shard_key([source], {}, 1)
    assert shard_key([source], {}, 1) == first
    assert hashed == ["run.mcap"]
    data = source.read_bytes()
    source.write_bytes(b"x" + data[1:])
    os.utime(source, ns=(LONG_AGO_NS, LONG_AGO_NS))
    second = shard_key([source], {}, 1)
    replacement = source.with_name("new")
    replacement.write_bytes(b"y" + data[1:])
    os.utime(replacement, ns=(LONG_AGO_NS, LONG_AGO_NS))
    replacement.rename(source)
    assert len({first, second, shard_key([source], {}, 1)}) == 3
    assert hashed == ["run.mcap"] * 3


def test_a_file_written_just_now_is_not_remembered(source, hashed):
    """Fails when a second write within one tick of the file system's clock goes unnoticed."""
    shard_key([source], {}, 1)
    shard_key([source], {}, 1)
    assert hashed == ["run.mcap"] * 2


def test_the_memo_is_bounded(source, settled, monkeypatch):
    """Fails when a process of weeks remembers every file that it ever saw."""
    monkeypatch.setattr(keys, "MEMO_ENTRIES", 3)
    for number in range(5):
        path = source.with_name(str(number))
        path.write_bytes(b"x")
        shard_key([path], {}, 1)
    assert len(keys._MEMO._digests) == 3


def test_a_file_that_changes_while_it_is_read_is_refused(source, monkeypatch):
    """Fails when a key is made from bytes that never were in the file together."""
    real = hashlib.file_digest

    def change(file, digest):
        result = real(file, digest)
        with source.open("ab") as again:
            again.write(b"more")
        return result

    monkeypatch.setattr(keys.hashlib, "file_digest", change)
    with pytest.raises(RecordingError, match="changed while it was read"):
        shard_key([source], {}, 1)


def test_what_is_no_source(source, tmp_path):
    """Fails when a pipe is waited for, or a path is taken for a list of one-letter files."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordingNotFoundError, match="no such file"):
        shard_key([tmp_path / "gone"], {}, 1)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RecordingError, match="is not a file"):
            shard_key([path], {}, 1)
    with pytest.raises(ArgumentError, match="list of files"):
        shard_key(str(source), {}, 1)
    with pytest.raises(ArgumentError, match="description"):
        shard_key([source], {"x": object()}, 1)
