"""The bytes of a shard, read by the words of the format alone; and what a forged header may not do."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest

from robocache.cache import Contents, ShardStore
from robocache.errors import ArgumentError, DamagedShardError, DTypeError

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
SHAPES = [(), (0,), (7,), (3, 0, 2), (5, 3), (2, 3, 4)]


def path_of(store, key):
    return store.folder / "shards" / f"{key.digest}.shard"


def forge(path, header, file_bytes=None):
    """A file whose checksums fit, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    filled = text + bytes(-len(text) % 64)
    body = filled + bytes(64)
    size = 64 + len(body) if file_bytes is None else file_bytes
    prelude = struct.pack("<8sIIQQ28x", b"RCSHARD\n", 1, zlib.crc32(filled), len(text), size)
    path.write_bytes(prelude + struct.pack("<I", zlib.crc32(prelude)) + body)


def entry(**changes):
    return {"crc32": zlib.crc32(bytes(64)), "dtype": "<f4", "name": "x", "offset": 0, "shape": [4]} | changes


def test_the_documented_layout_is_what_is_on_disk(store, key_of, arrays_of):
    """Fails when the file differs from what `cache/layout.py` and docs/cache.md say: a parser of its own reads it."""
    store.get_or_build(key_of(0), lambda: Contents(arrays_of(0), {"b": 1, "a": [None, "ö"]})).close()
    data = path_of(store, key_of(0)).read_bytes()
    magic, version, header_crc, header_bytes, file_bytes = struct.unpack_from("<8sIIQQ", data)
    assert (magic, version, file_bytes) == (b"RCSHARD\n", 1, len(data))
    assert data[32:60] == bytes(28)
    assert struct.unpack_from("<I", data, 60) == (zlib.crc32(data[:60]),)
    start = 64 + -(-header_bytes // 64) * 64
    assert header_crc == zlib.crc32(data[64:start])
    header = json.loads(data[64 : 64 + header_bytes].decode("ascii"))
    assert header["key"] == key_of(0).digest
    assert header["description"] == {"a": [None, "ö"], "b": 1}
    assert [one["name"] for one in header["arrays"]] == sorted(arrays_of(0))
    for one in header["arrays"]:
        expected = arrays_of(0)[one["name"]]
        offset = start + one["offset"]
        assert offset % 64 == 0
        assert np.dtype(one["dtype"]) == expected.dtype
        assert data[offset : offset + expected.nbytes] == expected.tobytes()
        end = offset + -(-expected.nbytes // 64) * 64
        assert zlib.crc32(data[offset:end]) == one["crc32"]
        assert set(data[offset + expected.nbytes : end]) <= {0}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_comes_back(store, key_of, shape):
    """Fails when a dtype, an empty axis, a missing axis, big-endian or strided input is stored as something else."""
    generator = np.random.default_rng(0)
    arrays = {}
    for dtype in DTYPES:
        array = generator.integers(0, 100, (*shape, 2)).astype(dtype)[..., 1]
        arrays |= {dtype: array, f">{dtype}": array.astype(array.dtype.newbyteorder(">"))}
    with store.get_or_build(key_of(0), lambda: arrays) as shard:
        assert shard.arrays.keys() == arrays.keys()
        for name, expected in arrays.items():
            assert shard.arrays[name].shape == expected.shape
            assert shard.arrays[name].dtype == expected.dtype.newbyteorder("<")
            np.testing.assert_array_equal(shard.arrays[name], expected)


def test_the_same_contents_give_the_same_bytes(tmp_path, key_of, arrays_of):
    """Fails when a clock, a process or the order of a mapping gets into the file."""
    files = []
    for turn, order in enumerate((sorted, lambda names: sorted(names, reverse=True))):
        store = ShardStore(tmp_path / str(turn))
        arrays = {name: arrays_of(0)[name] for name in order(arrays_of(0))}
        description = dict(order([("a", 1), ("b", 2)]))
        store.get_or_build(key_of(0), lambda arrays=arrays, said=description: Contents(arrays, said)).close()
        files.append(path_of(store, key_of(0)).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("arrays", "description", "problem", "kind"),
    [
        ({"x": np.array([object()])}, {}, "dtype object", DTypeError),
        ({"x": np.array(["a"])}, {}, "dtype <U1", DTypeError),
        ({"x": np.zeros(1, "f4,i4")}, {}, "dtype", DTypeError),
        ({"x": [1.0]}, {}, "must be a numpy array, got list", ArgumentError),
        ({"": np.zeros(1)}, {}, "name", ArgumentError),
        ({1: np.zeros(1)}, {}, "name", ArgumentError),
        ({}, {"a": float("nan")}, "description", ArgumentError),
        ({}, {"a": {1, 2}}, "description", ArgumentError),
    ],
)
def test_what_a_shard_cannot_hold(store, key_of, arrays, description, problem, kind):
    """Fails when something is pickled, or the message does not say what is wrong."""
    with pytest.raises(kind, match=problem):
        store.get_or_build(key_of(0), lambda: Contents(arrays, description))
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == ["robocache.cache"]


FORGERIES = {
    "more bytes than the file has": [entry(shape=[2**40])],
    "fewer than it has": [],
    "beyond an int64": [entry(shape=[2**33, 2**33])],
    "an empty array too large for numpy": [entry(shape=[0, 2**62 - 1, 2**61])],
    "a negative axis": [entry(shape=[-4])],
    "an axis that is no integer": [entry(shape=[4.0])],
    "a bool for an axis": [entry(shape=[True])],
    "too many axes": [entry(shape=[1] * 65)],
    "objects": [entry(dtype="|O")],
    "a record": [entry(dtype=[["a", "<f4"]])],
    "big-endian": [entry(dtype=">f4")],
    "an offset before the data": [entry(offset=-64)],
    "an offset behind a gap": [entry(offset=64)],
    "twins": [entry(shape=[0]), entry()],
    "names out of order": [entry(shape=[0]), entry(name="a")],
    "a checksum that is a text": [entry(crc32="0")],
    "one field more": [entry(extra=1)],
    "no entry": [7],
}


@pytest.mark.parametrize("arrays", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_header_is_not_believed(store, key_of, arrays_of, arrays):
    """Fails when a size, an offset or a dtype is used before it is checked: numpy would raise or read beyond."""
    key = key_of(0)
    store.get_or_build(key, lambda: arrays_of(0)).close()
    good = {"arrays": [entry()], "description": {}, "key": key.digest}
    forge(path_of(store, key), good)
    with store.open(key) as shard:
        np.testing.assert_array_equal(shard.arrays["x"], np.zeros(4, "f4"))
    forge(path_of(store, key), good | {"arrays": arrays})
    with pytest.raises(DamagedShardError, match="header: "):
        store.open(key)


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"key": 1, "description": {}, "arrays": []}'],
    ids=range(7),
)
def test_a_header_that_is_none(store, key_of, arrays_of, header):
    """Fails when JSON of another kind, or nested without end, is more than a damaged shard."""
    store.get_or_build(key_of(0), lambda: arrays_of(0)).close()
    forge(path_of(store, key_of(0)), header)
    with pytest.raises(DamagedShardError, match="header: "):
        store.open(key_of(0))
