from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from robocache.cache import ShardStore, shard_key

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(folder):
    return ShardStore(folder)


@pytest.fixture
def key_of():
    return lambda number: shard_key([], {"number": number}, 1)


@pytest.fixture
def arrays_of():
    """Some 16 kB of any dtype, the same for the same number; `child.py` makes the same."""

    def make(number, size=1024):
        generator = np.random.default_rng(number)
        return {"values": generator.random((size, 2)), "times_ns": np.arange(size), "valid": generator.random(3) > 0.5}

    return make


@pytest.fixture
def child():
    """Start `child.py` in a process of its own; whatever happens, it ends with the block."""

    @contextmanager
    def start(*arguments):
        command = [sys.executable, str(CHILD), *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with process:
            try:
                assert process.stdout.readline() == "ready\n"
                yield process
            finally:
                process.kill()

    return start
