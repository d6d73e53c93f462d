"""What one process may expect of a store."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robocache.cache import Contents, ShardKey, ShardStore
from robocache.errors import (
    ArgumentError,
    CacheError,
    CacheFullError,
    ClosedError,
    DamagedShardError,
    ShardNotFoundError,
)


def refuse():
    raise AssertionError("it is there and need not be built")


def path_of(store, key):
    return store.folder / "shards" / f"{key.digest}.shard"


def test_built_once_and_then_mapped(store, key_of, arrays_of):
    """Fails when a shard is built again, an array may be written to, or lies at no multiple of 64 bytes."""
    key = key_of(0)
    assert not store.contains(key)
    with store.get_or_build(key, lambda: Contents(arrays_of(0), {"episode": "ö", "rate_hz": 50})) as built:
        assert built.was_built
    assert store.contains(key)
    with store.get_or_build(key, refuse) as shard:
        assert not shard.was_built
        assert shard.description == {"episode": "ö", "rate_hz": 50}
        assert list(shard.arrays) == ["times_ns", "valid", "values"]
        for name, expected in arrays_of(0).items():
            array = shard.arrays[name]
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == expected.dtype
            assert array.ctypes.data % 64 == 0
            with pytest.raises(ValueError, match="read-only"):
                array[:1] = 0
    with pytest.raises(ClosedError, match="closed"):
        _ = shard.arrays


def test_an_array_outlives_its_shard(store, key_of, arrays_of):
    """Fails, by a crash, when closing a shard unmaps what somebody still looks at."""
    with store.get_or_build(key_of(0), lambda: arrays_of(0)) as shard:
        values = shard.arrays["values"]
    np.testing.assert_array_equal(values, arrays_of(0)["values"])


def test_damage_anywhere_is_noticed_and_built_anew(store, key_of, arrays_of):
    """Fails when a byte is covered by no checksum. Seen to fail with checksums, both sides, that leave out padding."""
    key = key_of(0)
    with store.get_or_build(key, lambda: arrays_of(0)) as shard:
        padding_end = store.ls()[0].size_bytes - shard.arrays["values"].nbytes  # that of the three bools before
    store.open(key).close()
    path = path_of(store, key)
    whole = path.read_bytes()
    generator = random.Random(0)
    places = [generator.randrange(8 * len(whole)) for _ in range(180)]
    # Most bytes are values: make sure of the first ones and of padding.
    places += [generator.randrange(8 * 64) for _ in range(10)]
    places += [8 * padding_end - 1 - generator.randrange(8 * 60) for _ in range(10)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedShardError, match=key.digest):
            store.open(key)
    with pytest.warns(RuntimeWarning, match="built anew"), store.get_or_build(key, lambda: arrays_of(0)) as shard:
        assert shard.was_built
    assert path.read_bytes() == whole


def test_a_file_of_another_length_is_damaged(store, key_of, arrays_of):
    """Fails when a length is believed: mapping beyond a file's end would crash."""
    key = key_of(0)
    store.get_or_build(key, lambda: arrays_of(0)).close()
    path = path_of(store, key)
    whole = path.read_bytes()
    for data in (b"", whole[:63], whole[:64], whole[:200], whole[:-1], whole + b"\0", b"\0" * len(whole)):
        path.write_bytes(data)
        for any_store in (store, ShardStore(store.folder, verify_arrays=False)):
            with pytest.raises(DamagedShardError, match="start: "):
                any_store.open(key)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_followed(store, key_of, arrays_of, tmp_path, kind):
    """Fails when a link leads out of the folder, or opening a pipe waits for ever."""
    key, outside = key_of(0), tmp_path / "outside"
    store.get_or_build(key, lambda: arrays_of(0)).close()
    path = path_of(store, key)
    path.replace(outside)
    make = {"link": lambda: path.symlink_to(outside), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}
    make[kind]()
    with pytest.raises(DamagedShardError, match="not a"):
        store.open(key)
    assert [checked.is_removed for checked in store.verify(remove=True)] == [True]
    store.get_or_build(key, lambda: arrays_of(0)).close()
    path.unlink()
    make[kind]()
    with pytest.warns(RuntimeWarning, match="built anew"):
        store.get_or_build(key, lambda: arrays_of(0)).close()
    assert outside.exists()


def test_a_folder_with_something_in_it_stays(store, key_of, arrays_of):
    """Fails when `verify` passes over what is no file, or a person's files are removed with the folder."""
    path = path_of(store, key_of(0))
    path.mkdir()
    (path / "thesis.tex").write_text("x")
    assert [(one.problem is None, one.is_removed) for one in store.verify(remove=True)] == [(False, False)]
    with pytest.warns(RuntimeWarning), pytest.raises(CacheError, match="shard: is a folder with something in it"):
        store.get_or_build(key_of(0), lambda: arrays_of(0))
    assert (path / "thesis.tex").exists()


# Run without the capability of root to read everything: mode 0 then means what it says.
UNREADABLE = """
import sys, warnings
import numpy as np
from robocache.cache import ShardKey, ShardStore
store = ShardStore(sys.argv[1])
warnings.simplefilter("error", ResourceWarning)
print([(one.problem or "").split(": ")[-1].split(";")[0] for one in store.verify()])
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    store.get_or_build(ShardKey(sys.argv[2]), lambda: {"values": np.zeros(3)}).close()
print([str(one.message).split(":")[0] for one in warned])
store._place.shard_path(sys.argv[2]).chmod(0)
print(store.gc(0).left_bytes)
"""


def test_a_shard_that_may_not_be_read_is_damaged(store, key_of, arrays_of):
    """Fails when one such shard ends `verify`, `gc` and every build under a limit, with an error that names the folder,
    to which one may write."""
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    path_of(store, key_of(0)).chmod(0)
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if bare and shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and there is no setpriv to go without")
    command = [*bare, sys.executable, "-c", UNREADABLE, str(store.folder), key_of(0).digest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["['it cannot be read (Permission denied)']", "['built anew']", "0"]


def test_a_shard_under_another_name_is_damaged(store, key_of, arrays_of):
    """Fails when a shard is served for a key that it was not built for."""
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    path_of(store, key_of(0)).rename(path_of(store, key_of(1)))
    with pytest.raises(DamagedShardError, match="belongs to the key"):
        store.open(key_of(1))
    with pytest.raises(ShardNotFoundError, match=key_of(0).digest):
        store.open(key_of(0))


def test_verify_names_what_is_damaged_and_removes_it(store, key_of, arrays_of):
    for number in range(3):
        store.get_or_build(key_of(number), lambda number=number: arrays_of(number)).close()
    path = path_of(store, key_of(1))
    data = bytearray(path.read_bytes())
    data[-1000] ^= 4
    path.write_bytes(data)
    damaged = [checked for checked in store.verify() if checked.problem]
    assert [checked.info.digest for checked in damaged] == [key_of(1).digest]
    assert "array 'values'" in damaged[0].problem
    assert store.contains(key_of(1))
    assert sum(checked.is_removed for checked in store.verify(remove=True)) == 1
    assert [checked.problem for checked in store.verify()] == [None, None]


def test_the_one_used_longest_ago_goes_first(store, key_of, arrays_of):
    """Fails when eviction goes by age, or opening a shard does not count as use."""
    for number in range(4):
        store.get_or_build(key_of(number), lambda number=number: arrays_of(number)).close()
    store.open(key_of(0)).close()
    one = store.ls()[0].size_bytes
    limited = ShardStore(store.folder, 4 * one)
    limited.get_or_build(key_of(4), lambda: arrays_of(4)).close()
    assert [info.digest for info in limited.ls()] == [key_of(number).digest for number in (2, 3, 0, 4)]
    assert store.gc(2 * one).left_bytes == 2 * one
    assert [info.digest for info in limited.ls()] == [key_of(number).digest for number in (0, 4)]


def test_no_room_is_said_with_both_sizes(folder, key_of, arrays_of):
    """Fails when the limit is exceeded where all is open, or a shard evicts others that it cannot fit beside."""
    with ShardStore(folder).get_or_build(key_of(0), lambda: arrays_of(0)) as held:
        size = held.size_bytes
        store = ShardStore(folder, 2 * size - 1)
        with pytest.raises(CacheFullError, match="in use") as caught:
            store.get_or_build(key_of(1), lambda: arrays_of(1))
        assert (caught.value.needed_bytes, caught.value.available_bytes) == (size, size - 1)
    with pytest.raises(CacheFullError, match="raise the cache's limit"):
        ShardStore(folder, size - 1).get_or_build(key_of(1), lambda: arrays_of(1))
    assert [info.digest for info in store.ls()] == [key_of(0).digest]
    del held
    store.get_or_build(key_of(1), lambda: arrays_of(1)).close()
    assert [info.digest for info in store.ls()] == [key_of(1).digest]


def test_what_is_being_written_counts(folder, key_of, arrays_of, monkeypatch):
    """Fails when two make room for the same bytes. Seen to fail without `partial_bytes` in `_make_room`."""
    size = ShardStore(folder).get_or_build(key_of(9), lambda: arrays_of(9)).size_bytes
    store, is_writing, may_end, real = ShardStore(folder, 2 * size - 1), threading.Event(), threading.Event(), os.fsync

    def fsync(descriptor):
        is_writing.set()
        assert may_end.wait(timeout=10)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: store.get_or_build(key_of(0), lambda: arrays_of(0)).close())
        assert is_writing.wait(timeout=60)
        try:
            with pytest.raises(CacheFullError, match="in use"):
                store.get_or_build(key_of(1), lambda: arrays_of(1))
        finally:
            may_end.set()
        first.result(timeout=60)
    assert [info.digest for info in store.ls()] == [key_of(0).digest]


def test_a_builder_that_fails_leaves_nothing(store, key_of, arrays_of):
    """Fails when a failed build keeps its lock: the second call would wait for ever."""

    def fail():
        raise OSError("the recording is gone")

    with pytest.raises(OSError, match="the recording is gone"):
        store.get_or_build(key_of(0), fail)
    with store.get_or_build(key_of(0), lambda: arrays_of(0)) as shard:
        assert shard.was_built


def test_threads_of_one_process_build_once(store, key_of, arrays_of):
    """Fails when locks hold between processes only, as `fcntl.lockf` does."""
    built, together = [], threading.Barrier(8)

    def one(_):
        together.wait(timeout=60)
        with store.get_or_build(key_of(0), lambda: built.append(1) or arrays_of(0)) as shard:
            return shard.arrays["values"].sum()

    with ThreadPoolExecutor(8) as pool:
        sums = set(pool.map(one, range(8)))
    assert (len(built), len(sums)) == (1, 1)


def test_a_folder_with_something_else_is_refused(tmp_path, folder):
    """Fails when a cache settles among a person's files, or looking at one makes it."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CacheError, match=r"holds 'thesis\.tex'"):
        ShardStore(tmp_path)
    with pytest.raises(CacheError, match="is not a cache"):
        ShardStore(folder, create=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("limit_bytes", [0, -1, 1.5, True, "20GB"])
def test_a_limit_that_cannot_be_right(folder, limit_bytes):
    with pytest.raises(ArgumentError, match="limit_bytes"):
        ShardStore(folder, limit_bytes)


@pytest.mark.parametrize("digest", ["", "../" * 21 + "a", "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
def test_a_key_is_never_a_path(digest):
    """Fails when a digest is not matched as a whole."""
    with pytest.raises(ArgumentError, match="hexadecimal"):
        ShardKey(digest)
