"""Many processes, some of which are killed: one builds, none sees a half, nobody loses what is open."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from contextlib import ExitStack

import numpy as np
import pytest

from robocache.cache import ShardStore
from robocache.testing.waiting import wait_until

KILLS = 50 if os.environ.get("ROBOCACHE_NIGHTLY") == "1" else 20
LIMIT_BYTES = 100_000


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_build_killed_at_random_moments_leaves_nothing_half_written(child, folder, key_of, arrays_of, tmp_path):
    """Fails when a shard is written in its place instead of aside, or a finished one gets lost.

    Seen to fail with `partial` set to the final path in `write_shard`: verify finds damage after a few kills.
    """
    generator = random.Random(0)
    finished, interrupted = [], 0
    store = ShardStore(folder)
    for _ in range(KILLS):
        with child("build", folder, len(finished), 10_000) as process:
            try:
                process.wait(timeout=generator.uniform(0, 0.04))
            except subprocess.TimeoutExpired:
                process.kill()  # SIGKILL: nothing of the child runs any more
            finished += [int(line) for line in process.stdout]
        interrupted += bool(names(folder / "partial"))
        there = {info.digest for info in store.ls()}
        assert {key_of(number).digest for number in finished} <= there
        assert [checked.problem for checked in store.verify() if checked.problem] == []
    assert interrupted > KILLS // 10, "hardly a kill came in the middle of a shard"
    store.get_or_build(key_of(len(finished)), lambda: arrays_of(len(finished), 10_000)).close()
    assert names(folder / "partial") == []
    fresh = ShardStore(tmp_path / "fresh")
    for number in range(len(finished)):
        fresh.get_or_build(key_of(number), lambda number=number: arrays_of(number, 10_000)).close()
    for path in (fresh.folder / "shards").iterdir():
        assert path.read_bytes() == (folder / "shards" / path.name).read_bytes()


def test_eight_processes_build_once(child, folder, arrays_of, tmp_path):
    """Fails when builders do not exclude each other, or do not look again once they are let in.

    Seen to fail with `building` giving a `nullcontext`, and without the second `_open` in `get_or_build`.
    """
    log = tmp_path / "log"
    with ExitStack() as stack:
        processes = [stack.enter_context(child("share", folder, log)) for _ in range(8)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        read = {process.stdout.readline().strip() for process in processes}
    expected = arrays_of(0)
    data = b"".join(expected[name].tobytes() for name in sorted(expected))
    assert read == {hashlib.sha256(data).hexdigest()}
    assert log.read_text() == "built\n"
    assert names(folder / "locks") == ["space"]


@pytest.mark.parametrize("keep", ["shard", "array"])
def test_what_another_process_has_open_is_not_evicted(child, store, key_of, arrays_of, keep):
    """Fails when eviction does not ask for the lock, or an array in use does not keep it.

    Seen to fail without the `flock` in `remove_open`; the second case with a `close` that closes the mapping.
    """
    for number in range(3):
        store.get_or_build(key_of(number), lambda number=number: arrays_of(number)).close()
    with child("hold", store.folder, keep) as process:
        evicted = {info.digest for info in store.gc(0).evicted}
        assert evicted == {key_of(1).digest, key_of(2).digest}
        assert store.contains(key_of(0))
        process.stdin.close()
        process.wait(timeout=60)
    assert [info.digest for info in store.gc(0).evicted] == [key_of(0).digest]


def test_the_lock_of_a_killed_builder_dies_with_it(child, folder, key_of, arrays_of):
    """Fails when a lock outlives its holder. Seen to fail, by its timeout, with a lock that is a file's existence."""
    with child("stall", folder) as process:
        assert names(folder / "locks") == [key_of(0).digest]
        process.kill()
        process.wait(timeout=60)
        with ShardStore(folder).get_or_build(key_of(0), lambda: arrays_of(0)) as shard:
            assert shard.was_built
    assert names(folder / "locks") == ["space"]


def test_a_waiting_process_takes_over_from_a_killed_one(child, folder, key_of, arrays_of):
    """Fails when whoever waits is not let in. Seen to fail, by its timeout, with a lock that is a file's existence."""
    with child("stall", folder) as first, child("build", folder, 0, 10) as second:
        first.kill()
        assert second.stdout.readline() == "0\n"
    with ShardStore(folder).open(key_of(0)) as shard:
        np.testing.assert_array_equal(shard.arrays["values"], arrays_of(0, 10)["values"])


def test_many_writers_keep_the_limit_at_every_moment(child, folder):
    """Fails when two make room for themselves at once. Seen to fail with `changing` giving a `nullcontext`."""
    store, looks, most = ShardStore(folder), 0, 0
    with ExitStack() as stack:
        processes = [stack.enter_context(child("crowd", folder, 100 * n, LIMIT_BYTES)) for n in range(4)]

        def all_ended():
            nonlocal looks, most
            with store._place.changing():
                there = [*(folder / "shards").iterdir(), *(folder / "partial").iterdir()]
                weight = sum(path.stat().st_size for path in there)
            looks, most = looks + 1, max(most, weight)
            assert weight <= LIMIT_BYTES
            return all(process.poll() is not None for process in processes)

        wait_until(all_ended, deadline_s=60, what="the end of the writers")
        refused = [int(process.stdout.readline()) for process in processes]
    assert looks > 10
    assert most > LIMIT_BYTES / 2
    assert sum(refused) < 40, "more than half of the shards found no room"
    assert [checked.problem for checked in store.verify() if checked.problem] == []
