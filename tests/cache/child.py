"""Another process that uses a cache, for the tests: `child.py WHAT FOLDER ...` prints "ready" and obeys stdin."""

import hashlib
import itertools
import os
import sys
import time
from functools import partial

import numpy as np

from robocache.cache import ShardStore, shard_key
from robocache.errors import CacheFullError


def say(text):
    print(text, flush=True)


def key_of(number):
    return shard_key([], {"number": number}, 1)


def arrays_of(number, size=1024):
    generator = np.random.default_rng(number)
    return {"values": generator.random((size, 2)), "times_ns": np.arange(size), "valid": generator.random(3) > 0.5}


def build(folder, start, size):
    """Shard after shard for ever; says which one is finished."""
    store = ShardStore(folder)
    say("ready")
    for number in itertools.count(int(start)):
        store.get_or_build(key_of(number), partial(arrays_of, number, int(size))).close()
        say(number)


def share(folder, log):
    """Build one shard at the same time as others; says what its arrays hold."""
    store = ShardStore(folder)

    def logged():
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b"built\n")
        os.close(descriptor)
        time.sleep(0.1)  # slow on purpose
        return arrays_of(0)

    say("ready")
    sys.stdin.readline()
    with store.get_or_build(key_of(0), logged) as shard:
        say(hashlib.sha256(b"".join(array.tobytes() for array in shard.arrays.values())).hexdigest())


def hold(folder, keep):
    """Have shard 0 open until stdin ends, or only one of its arrays."""
    with ShardStore(folder).open(key_of(0)) as shard:
        values = shard.arrays["values"] if keep == "array" else None
        if keep == "shard":
            say("ready")
            sys.stdin.readline()
    if values is not None:
        say("ready")
        sys.stdin.readline()


def stall(folder):
    """Never come back from building shard 0."""

    def never():
        say("ready")
        sys.stdin.readline()

    ShardStore(folder).get_or_build(key_of(0), never)


def crowd(folder, start, limit_bytes):
    """Write twenty shards under a limit that has room for a few; says how many times there was none."""
    store = ShardStore(folder, int(limit_bytes))
    say("ready")
    refused = 0
    for number in range(int(start), int(start) + 20):
        try:
            store.get_or_build(key_of(number), partial(arrays_of, number)).close()
        except CacheFullError:
            refused += 1
    say(refused)


def fill(folder):
    """Fill a small disk; says how many shards fitted, and what came after the last one."""
    store = ShardStore(folder)
    say("ready")
    for number in itertools.count():
        try:
            store.get_or_build(key_of(number), partial(arrays_of, number)).close()
        except CacheFullError as error:
            left = len(list((store.folder / "partial").iterdir()))
            say(f"{number} {error.needed_bytes} {error.available_bytes} {left}")
            break
    store.gc(0)
    store.get_or_build(key_of(number), partial(arrays_of, number)).close()
    say([checked.problem for checked in store.verify()])


globals()[sys.argv[1]](*sys.argv[2:])
