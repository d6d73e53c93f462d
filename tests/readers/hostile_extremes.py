"""Small files that ask for the impossible: what writes each, what it is opened with, what is said of it.

Where nothing is said, the file is read, without what asked for it.
"""

import bz2
import json
import pickle
import shutil
import struct
import zlib
from functools import cache

import h5py
import lz4.frame
import numcodecs
import numpy as np
import zstandard

from .every_reader import write_zarr  # noqa: TID252 -- tests are not an installed package
from .hostile_datasets import LEROBOT  # noqa: TID252
from .hostile_images import IMAGES  # noqa: TID252
from .hostile_parquet import PARQUET  # noqa: TID252
from .test_hostile_mcap import chunk, mcap_file, record  # noqa: TID252
from .test_images import png_of  # noqa: TID252
from .test_rlds import block, episode_features, framed, varint, write  # noqa: TID252
from .test_zarr import changed  # noqa: TID252

ZEROS = bytes(256 * 2**20)
MAGIC = b"#ROSBAG V2.0\n"
RATE = {"rate_hz": 10.0}


class Harm:
    """Unpickled, it makes the file "harm" beside the recording."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return (open, (self._path, "w"))


@cache
def bomb_bz2():
    return bz2.compress(ZEROS)


@cache
def deflated(wbits):
    """A stream of zeros whose end, with the checksum, nobody should come to."""
    packer = zlib.compressobj(wbits=wbits)
    start = packer.compress(ZEROS[:1]) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(ZEROS[: 2**20]) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (len(ZEROS) // 2**20)


# ── HDF5 ────────────────────────────────────────────────────────────────────────────────────────


def hdf5(change):
    def written(folder):
        path = folder / "a.h5"
        with h5py.File(folder / "other.h5", "w") as other:
            other["secret"] = np.arange(50.0)
        with h5py.File(path, "w") as file:
            file.attrs["sampling_rate"] = 10.0
            file["numbers"] = np.arange(50.0)
            change(file, folder)
        return path

    return written


def _pickled(file, folder):
    file["pickled"] = np.void(pickle.dumps(Harm(folder / "harm")))
    file.attrs["task"] = np.void(pickle.dumps(Harm(folder / "harm")))
    texts = file.create_dataset("objects", (50,), h5py.special_dtype(vlen=bytes))
    texts[0] = pickle.dumps(Harm(folder / "harm")).replace(b"\0", b"")


def _linked(file, folder):
    file["x"] = h5py.ExternalLink(folder / "other.h5", "/secret")


def _virtual(file, folder):
    layout = h5py.VirtualLayout((50,), "f8")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "secret", (50,))
    file.create_virtual_dataset("virtual", layout)


def _deep(file, _):
    group = file
    for _ in range(400):
        group = group.create_group("g")


def _zipped(file, _):
    file.create_dataset("bomb", data=np.zeros(50 * 2**20), chunks=(2**20,), compression="gzip", compression_opts=1)


def _never_written(file, _):
    file.create_dataset("nothing", (2**57, 2), "f8", chunks=(1000, 2))


def _one_chunk(file, _):
    file.create_dataset("chunk", (2**28, 4), "f8", chunks=(2**26, 1), compression="gzip")


def _pictures_of_nothing(file, _):
    del file["numbers"]
    file.create_dataset("img", (2**29, 2, 2, 3), "u1", chunks=(1000, 2, 2, 3))


def _picture_chunks(file, _):
    file.create_dataset("img", (4000, 100, 100, 3), "u1", chunks=(4000, 100, 100, 3), compression="gzip")[0] = 1


HDF5 = {
    "external_link": (_linked, "link to another file"),
    "soft_links": (lambda file, _: file.update({"x": h5py.SoftLink("/numbers"), "y": h5py.SoftLink("/y")}), None),
    "external_storage": (
        lambda file, folder: file.create_dataset("x", (50,), "f8", external=[(str(folder / "other.h5"), 0, 400)]),
        "in another file",
    ),
    "virtual": (_virtual, "in another file, or in another dataset"),
    "pickled": (_pickled, None),
    "deep": (_deep, "has more than 32 levels"),
    "zipped": (_zipped, "decompressed bytes"),
    "never_written": (_never_written, "declares 2305843009213693952 decompressed bytes"),
    "one_chunk": (_one_chunk, "are possible or allowed"),
    "picture_chunks": (_picture_chunks, None),
    "pictures_of_nothing": (_pictures_of_nothing, "whose times alone are more"),
    "long_text": (lambda file, _: file.attrs.update({"task": "a" * 60_000}), None),
}  # fmt: skip


# ── MCAP and bags ───────────────────────────────────────────────────────────────────────────────


def many_chunks(pack, name):
    """Every chunk alone is allowed: 16 MB of an unused message, in 20 kB or less."""

    def written(folder):
        channel = struct.pack("<HH", 1, 0) + struct.pack("<I", 2) + b"/x" + struct.pack("<I", 4) + b"json" + bytes(4)
        message = record(5, struct.pack("<HIQQ", 1, 0, 0, 0) + bytes(15 * 2**20))
        packed = chunk(pack(message), name, declared=len(message))
        return mcap_file(folder / "a.mcap", record(4, channel), *[packed] * 150)

    return written


def ros1_chunk(bomb, name, declared):
    def written(folder):
        def part(fields, data):
            head = b"".join(struct.pack("<I", len(key) + 1 + len(value)) + key + b"=" + value for key, value in fields)
            return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data

        start = [(b"op", b"\3"), (b"index_pos", bytes(8)), (b"conn_count", bytes(4)), (b"chunk_count", b"\1\0\0\0")]
        blank = b" " * 4000
        packed = [(b"op", b"\5"), (b"compression", name), (b"size", struct.pack("<I", declared))]
        path, data = folder / "a.bag", part(packed, bomb())
        start[1] = (b"index_pos", struct.pack("<Q", len(MAGIC + part(start, blank) + data)))
        path.write_bytes(MAGIC + part(start, blank) + data)
        return path

    return written


MESSAGES = {
    "mcap_2_60": (lambda folder: mcap_file(folder / "a.mcap", record(5, b"", 2**60)), {}, f"declares {2**60} bytes"),
    "mcap_chunks_zstd": (many_chunks(zstandard.compress, b"zstd"), {}, None),
    "mcap_chunks_lz4": (many_chunks(lz4.frame.compress, b"lz4"), {}, None),
    "ros1_bz2": (ros1_chunk(bomb_bz2, b"bz2", len(ZEROS)), {}, "are allowed"),
    "ros1_bz2_lying": (ros1_chunk(bomb_bz2, b"bz2", 1000), {}, "has more than 1000"),
    "ros1_lz4": (ros1_chunk(lambda: lz4.frame.compress(ZEROS), b"lz4", len(ZEROS)), {}, "are allowed"),
    "ros1_lz4_lying": (ros1_chunk(lambda: lz4.frame.compress(ZEROS), b"lz4", 1000), {}, "has more than 1000"),
}  # fmt: skip


# ── RLDS ────────────────────────────────────────────────────────────────────────────────────────


def rlds(**features):
    return lambda folder: write(folder / "a.tfrecord", episode_features(6) | features)


def _raw_record(data, **options):
    def written(folder):
        path = folder / "a.tfrecord"
        path.write_bytes(framed(data, **options))
        return path

    return written


def _gzip_bomb(folder):
    """A record that declares 2 GiB, and zeros without end for it."""
    path = folder / "a.tfrecord"
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(framed(b"", length=2**31)[:12]) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(ZEROS[: 2**20]) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + zeros * 2**11)
    return path


RLDS = {
    "gzip": (_gzip_bomb, "become more than 200 times as many"),
    "record_2_60": (_raw_record(b"", length=2**60), "declares 1152921504606846976 bytes"),
    "feature_2_60": (_raw_record(varint(1 << 3 | 2) + varint(2**60) + bytes(50)), "a.tfrecord"),
    "picture": (rlds(**{"steps/rgb": [png_of(60000, 60000)] * 6}), "60000 x 60000 pixels"),
    "nested": (_raw_record(block(1, block(1, block(1, block(1, b"x" * 100) * 30) * 30))), "a.tfrecord"),
}


# ── Zarr ────────────────────────────────────────────────────────────────────────────────────────


def zarr(compressor, pack, shape=None):
    """A chunk of `data/action` that holds 400 MB; its array says so too, where `shape` is given."""

    def written(folder):
        path = write_zarr(folder / "a.zarr", 2)
        fields = {} if shape is None else {"shape": shape, "chunks": shape}
        changed(path, "data/action/.zarray", compressor={"id": compressor}, **fields)
        data = pack()
        for file in (path / "data/action").glob("0.*"):
            file.write_bytes(data)
        return path

    return written


def zarr_with(**fields):
    def written(folder):
        path = write_zarr(folder / "a.zarr", 2)
        changed(path, "data/action/.zarray", **fields)
        return path

    return written


def _rows_of_nothing_zarr(folder):
    path = write_zarr(folder / "a.zarr", 2)
    for name in ("action", "gripper", "img"):
        array = json.loads((path / "data" / name / ".zarray").read_text())
        changed(path, f"data/{name}/.zarray", shape=[2**29, *array["shape"][1:]])
    ends = path / "meta/episode_ends/0"
    changed(path, "meta/episode_ends/.zarray", compressor=None)
    for file in ends.parent.glob("[0-9]*"):
        file.write_bytes(struct.pack("<q", 2**29 if file.name == "1" else 30))
    return path


def _pictures_of_nothing_zarr(folder):
    path = _rows_of_nothing_zarr(folder)
    for name in ("action", "gripper"):
        shutil.rmtree(path / "data" / name)
    return path


ZARR_BOMBS = {
    "zlib": lambda: deflated(15), "gzip": lambda: deflated(31), "bz2": bomb_bz2,
    "zstd": lambda: zstandard.compress(ZEROS), "lz4": lambda: numcodecs.LZ4().encode(ZEROS),
    "blosc": lambda: numcodecs.Blosc("zstd").encode(ZEROS),
}  # fmt: skip
ZARR = {
    **{f"{name}_lying": (zarr(name, pack), "a.zarr, entry data/action") for name, pack in ZARR_BOMBS.items()},
    **{f"{name}_honest": (zarr(name, pack, [70, 2**18]), "a.zarr, ") for name, pack in ZARR_BOMBS.items()},
    "rows_of_nothing": (_rows_of_nothing_zarr, "are allowed"),
    "pictures_of_nothing": (_pictures_of_nothing_zarr, "whose times alone are more"),
    "outside": (zarr_with(dimension_separator="/../../"), "no description of an array"),
    "objects": (zarr_with(dtype="|O", filters=[{"id": "pickle"}]), None),
}


EXTREMES = {
    **{f"hdf5_{name}": (hdf5(change), {}, said) for name, (change, said) in HDF5.items()},
    **MESSAGES,
    **{f"rlds_{name}": (write_it, RATE, said) for name, (write_it, said) in RLDS.items()},
    **{f"zarr_{name}": (write_it, RATE, said) for name, (write_it, said) in ZARR.items()},
    **{f"lerobot_{name}": (write_it, {}, said) for name, (write_it, said) in LEROBOT.items()},
    **{f"parquet_{name}": (write_it, {"drop_in": True}, said) for name, (write_it, said) in PARQUET.items()},
    **{f"images_{name}": kind for name, kind in IMAGES.items()},
}
# Making these alone takes seconds.
SLOW = tuple(name for name in EXTREMES if "bz2" in name)
