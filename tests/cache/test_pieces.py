"""Arrays that are made while they are written: the same file as from the whole array, in the memory of a piece."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from robocache.cache import Contents, Pieces, ShardStore
from robocache.errors import ArgumentError, CacheFullError, DTypeError

BUILD_HALF_A_GIGABYTE = """
import resource, sys
import numpy as np
from robocache.cache import Pieces, ShardStore, shard_key
def pieces():
    for number in range(128):
        yield np.full((4, 2**20), number, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = Pieces(np.dtype(np.uint8), (512, 2**20), pieces)
with ShardStore(sys.argv[1], verify_arrays=False).get_or_build(shard_key([], {}, 1), lambda: {"x": made}) as shard:
    assert shard.arrays["x"].shape == (512, 2**20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def cut(array, *places):
    return Pieces(array.dtype, array.shape, lambda: iter(np.split(array, places)))


def bytes_of(folder, key, arrays, description):
    ShardStore(folder).get_or_build(key, lambda: Contents(arrays, description)).close()
    return (folder / "shards" / f"{key.digest}.shard").read_bytes()


def test_pieces_give_the_bytes_of_the_whole(tmp_path, key_of, monkeypatch):
    """Fails when the arrays stay where a head with a longer checksum would have ended."""
    arrays = (np.random.default_rng(seed).random((48, 4)).astype("<f4") for seed in range(1000))
    whole = next(array for array in arrays if zlib.crc32(array.tobytes()) < 10**9)  # one digit fewer than there may be
    cut_at, shortened = os.ftruncate, []
    for number in range(64):  # so that for one length, the digit fewer is a line of the file fewer
        rest, description = {"b": np.arange(5), "z": np.arange(3)}, {"text": "x" * number}
        one = bytes_of(tmp_path / "one", key_of(number), {"m": whole, **rest}, description)
        with monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", lambda *call: shortened.append(call) or cut_at(*call))
            pieces = {"m": cut(whole, 1, 1, 20), **rest}
            assert bytes_of(tmp_path / "two", key_of(number), pieces, description) == one
    assert len(shortened) == 64 + 1
    assert [checked.problem for checked in ShardStore(tmp_path / "two").verify() if checked.problem] == []


@pytest.mark.parametrize(
    ("pieces", "error", "message"),
    [
        ([np.zeros((2, 3), "f4")], ArgumentError, "pieces of 2 rows together, not 4"),
        ([np.zeros((5, 3), "f4")], ArgumentError, "pieces of 5 rows together, not 4"),
        ([np.zeros((4, 2), "f4")], ArgumentError, r"has shape \(4, 2\), not rows of \(3,\)"),
        ([np.zeros((4, 3), "f8")], DTypeError, "has dtype float64, not float32"),
    ],
)
def test_pieces_of_another_array_are_refused(store, key_of, pieces, error, message):
    """Fails when a file is believed that does not hold what its header says, or a partial one stays."""
    declared = Pieces(np.dtype("f4"), (4, 3), lambda: iter(pieces))
    with pytest.raises(error, match=message):
        store.get_or_build(key_of(0), lambda: {"x": declared})
    assert list((store.folder / "partial").iterdir()) == store.ls() == []


def test_what_makes_pieces_fails_with_its_own_error(store, key_of):
    """Fails when a camera that cannot be read is called a full disk, or room is made only after the work."""

    def broken():
        yield np.zeros((2, 3), "f4")
        raise OSError(28, "of the source")

    with pytest.raises(OSError, match="of the source"):
        store.get_or_build(key_of(0), lambda: {"x": Pieces(np.dtype("f4"), (4, 3), broken)})
    assert list((store.folder / "partial").iterdir()) == []
    asked = Pieces(np.dtype("f4"), (400, 3), lambda: pytest.fail("made before there was room"))
    with pytest.raises(CacheFullError):
        ShardStore(store.folder, 1000).get_or_build(key_of(0), lambda: {"x": asked})


def test_half_a_gigabyte_is_written_in_the_memory_of_a_piece(tmp_path):
    """Fails when pieces are put together before they are written."""
    command = [sys.executable, "-c", BUILD_HALF_A_GIGABYTE, str(tmp_path / "cache")]
    grown_mb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown_mb < 64
