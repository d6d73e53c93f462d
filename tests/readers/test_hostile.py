"""Whatever is wrong with a file is one error that names it, soon, and without eating the machine."""

import builtins
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import tracemalloc

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as RawWriter

from robocache.errors import (
    BackendUnavailableError,
    DamagedRecordingError,
    RecordingError,
    RecordingLimitError,
    RecordingNotFoundError,
    UnknownFormatError,
)
from robocache.readers import open_recording

from .conftest import JOINT_STATE, START_NS, joint_message, write_mcap  # noqa: TID252 -- tests are not an installed package
from .test_lerobot import DATA, EPISODES, write_dataset  # noqa: TID252

SECONDS, PEAK_BYTES = 2, 200 * 2**20


def read_and_raise(path):
    """Every stream of every episode, read within the limits of processor time and memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with open_recording(path) as opened:
            episodes = [opened.read_episode(index) for index in range(len(opened.episode_names))]
        return [stream for episode in episodes for stream in episode.streams.values()]
    finally:
        took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took < SECONDS
        assert peak < PEAK_BYTES


def read_all(path):
    """The streams, or the one error that is allowed: one line, with the file and a remedy, that can be pickled."""
    try:
        return read_and_raise(path)
    except RecordingError as caught:
        error = caught
    text = str(error)
    assert str(path) in text
    assert "; " in text
    assert "\n" not in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    return error


def errors_in(results):
    return [result for result in results if isinstance(result, RecordingError)]


# ── nothing, or something else ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["missing.mcap", "missing/folder", "zero\0.mcap"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(RecordingNotFoundError, match="check the path"):
        open_recording(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", DamagedRecordingError, "is empty"),
        (b"\x89MC", DamagedRecordingError, "ends after 3 bytes, inside the signature"),
        (b"\x89HDF\r\n", DamagedRecordingError, "ends after 6 bytes, inside the signature"),
        (b"PAR1" + bytes(100), UnknownFormatError, r"single Parquet file; name the folder that holds meta/info\.json"),
        (b"#ROSBAG V2.0\n", UnknownFormatError, "no known signature; RoboCache reads MCAP"),
        (b"hello", UnknownFormatError, "no known signature"),
        (b"\x89MCAP0\r\n", DamagedRecordingError, "has only 8 bytes: it was truncated"),
        (b"\x89MCAP0\r\n" * 4, RecordingLimitError, "declares"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), DamagedRecordingError, "HDF5 cannot read it"),
    ],
    ids=["empty", "mcap_head", "hdf5_head", "parquet", "rosbag", "text", "mcap_only", "mcap_magic", "hdf5_magic"],
)
def test_wrong_content(tmp_path, content, kind, message):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    error = read_all(path)
    assert isinstance(error, kind)
    assert re.search(message, str(error))


def test_folders_that_are_no_recording(tmp_path, joints_mcap):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnknownFormatError, match="the folder holds no recording"):
        open_recording(empty)
    for name in ("a.mcap", "b.mcap"):
        (empty / name).write_bytes(joints_mcap.read_bytes())
    with pytest.raises(UnknownFormatError, match=r"holds 2 recordings \(a\.mcap, b\.mcap\); name one of them"):
        open_recording(empty)
    with pytest.raises(RecordingNotFoundError, match="neither a file nor a folder"):
        open_recording("/dev/null")


# ── truncated and flipped ───────────────────────────────────────────────────────────────────────


def damaged(data, kind, seed):
    chooser = random.Random(seed)
    data = bytearray(data)
    if kind == "truncated":
        return data[: len(data) * seed // 25]
    if kind == "sizes":
        at = chooser.randrange(len(data) - 8)
        data[at : at + 8] = chooser.choice([b"\xff" * 8, (2**60).to_bytes(8, "little"), bytes(8)])
        return data
    # Half of the flips go where the structure is.
    for _ in range(chooser.choice([1, 1, 4])):
        at = chooser.randrange(len(data) if chooser.random() < 0.5 else min(len(data), 4096))
        data[at] ^= 1 << chooser.randrange(8)
    return data


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_mcap(joints_mcap, kind):
    data, clean, found = joints_mcap.read_bytes(), read_and_raise(joints_mcap), []
    for seed in range(25 if kind == "truncated" else 120):
        joints_mcap.write_bytes(damaged(data, kind, seed))
        found.append(read_all(joints_mcap))
    assert len(errors_in(found)) >= len(found) // 2
    for streams in found:
        if isinstance(streams, list):  # a flip outside of the chunks, in an index or an unused field
            for stream, expected in zip(streams, clean, strict=True):
                np.testing.assert_array_equal(stream.values, expected.values)
                np.testing.assert_array_equal(stream.times_ns, expected.times_ns)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_hdf5(plain_hdf5, kind):
    data, found = plain_hdf5.read_bytes(), []
    for seed in range(25):
        plain_hdf5.write_bytes(damaged(data, kind, seed))
        found.append(read_all(plain_hdf5))
    assert len(errors_in(found)) >= (25 if kind == "truncated" else 1)


@pytest.mark.parametrize("file", [DATA, EPISODES, "meta/info.json"], ids=["data", "episodes", "info"])
@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_lerobot(tmp_path, file, kind):
    root = write_dataset(tmp_path / "d")
    data, found = (root / file).read_bytes(), []
    for seed in range(25):
        (root / file).write_bytes(damaged(data, kind, seed))
        found.append(read_all(root))
    assert len(errors_in(found)) >= (25 if kind == "truncated" else 1)


# ── MCAP, by hand ───────────────────────────────────────────────────────────────────────────────

MAGIC = b"\x89MCAP0\r\n"


def record(opcode, content, length=None):
    return struct.pack("<BQ", opcode, len(content) if length is None else length) + content


def chunk(data, compression=b"", declared=None, checksum=0, stored=None):
    fields = struct.pack("<QQQII", 0, 0, len(data) if declared is None else declared, checksum, len(compression))
    return record(6, fields + compression + struct.pack("<Q", len(data) if stored is None else stored) + data)


def mcap_file(path, *records):
    path.write_bytes(
        MAGIC + record(1, bytes(8)) + b"".join(records) + record(15, bytes(4)) + record(2, bytes(20)) + MAGIC
    )
    return path


BOMB = bytes(400 * 2**20)


@pytest.mark.parametrize(
    ("records", "kind", "message"),
    [
        ([record(5, b"", 2**60)], RecordingLimitError, "at byte 25: a record .* declares 1152921504606846976 bytes"),
        ([record(5, b"", 10_000)], DamagedRecordingError, "declares 10000 bytes, but the file has"),
        ([record(5, bytes(4))], DamagedRecordingError, "a message of 13 bytes is too short"),
        ([record(5, bytes(30))], DamagedRecordingError, "a message is of channel 0, which nothing before it defines"),
        ([record(4, bytes(3))], DamagedRecordingError, "a record of type 0x04 is malformed"),
        ([record(4, b"\1\0\1\0" + bytes(12))], DamagedRecordingError, "refers to schema 1"),
        ([record(0, b"")], DamagedRecordingError, "a record of type 0 comes before"),
        ([record(2, bytes(20))], DamagedRecordingError, "the summary comes before"),
        ([record(6, bytes(10))], DamagedRecordingError, "too short for its own header"),
        ([chunk(b"", declared=2**60)], RecordingLimitError, "declares 1152921504606846976 decompressed bytes"),
        ([chunk(b"abc", declared=2)], DamagedRecordingError, "declares 2 decompressed bytes, but has more than 2"),
        ([chunk(b"abc", stored=2**60)], DamagedRecordingError, "stored bytes, but has 3"),
        ([chunk(b"abc", b"lzma")], DamagedRecordingError, "compressed with b'lzma', which is not zstd or lz4"),
        ([chunk(b"abc", checksum=1)], DamagedRecordingError, "the checksum of a chunk"),
        ([chunk(b"abc")], DamagedRecordingError, "in the chunk there, at its decompressed byte 0, ends inside"),
        ([chunk(b"abc", b"zstd")], DamagedRecordingError, "does not decompress with zstd"),
        ([chunk(b"abcdefgh" * 4, b"lz4")], DamagedRecordingError, "does not decompress with lz4"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_records_that_cannot_be(tmp_path, records, kind, message):
    path = mcap_file(tmp_path / "a.mcap", *records)
    error = read_all(path)
    assert type(error) is kind
    assert re.search(message, str(error))
    assert error.offset == 25


@pytest.mark.parametrize("declared", [len(BOMB), 1_000], ids=["honest", "lying"])
@pytest.mark.parametrize("compression", [b"zstd", b"lz4"], ids=["zstd", "lz4"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, compression, declared):
    packed = zstandard.compress(BOMB) if compression == b"zstd" else lz4.frame.compress(BOMB)
    error = read_all(mcap_file(tmp_path / "a.mcap", chunk(packed, compression, declared=declared)))
    assert type(error) is (RecordingLimitError if declared == len(BOMB) else DamagedRecordingError)
    assert error.offset == 25
    assert ("are allowed" if declared == len(BOMB) else "but has more than 1000") in error.problem


def test_checksums_of_data_and_summary_are_verified(tmp_path):
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = RawWriter(file, use_chunking=False, compression=CompressionType.NONE, enable_data_crcs=True)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/JointState", "ros2msg", JOINT_STATE.encode())
        channel = writer.register_channel("/j", "cdr", schema)
        writer.add_message(channel, START_NS, b"\0\1\0\0" + bytes(40), START_NS)
        writer.finish()
    assert isinstance(read_all(path), list)
    data = bytearray(path.read_bytes())
    for at, message in [
        (data.find(b"\0\1\0\0") + 20, "checksum of the data"),
        (len(data) - 60, "checksum of the summary"),
    ]:
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        assert message in str(read_all(path))


def test_a_schema_that_asks_for_more_than_a_message_holds(tmp_path):
    for text in (
        "float64[1000000000000] position\nstring[] name",
        "A[] position\nstring[] name\n===\nMSG: sensor_msgs/A\nA[99] a",
    ):
        path = tmp_path / "a.mcap"
        with path.open("wb") as file:
            writer = RawWriter(file)
            writer.start()
            schema = writer.register_schema("sensor_msgs/msg/JointState", "ros2msg", text.encode())
            channel = writer.register_channel("/j", "cdr", schema)
            writer.add_message(channel, START_NS, b"\0\1\0\0" + b"\xff\xff\xff\x7f" * 20, START_NS)
            writer.finish()
        assert type(read_all(path)) is DamagedRecordingError


# ── libraries that are not there ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "extra"), [("h5py", "hdf5"), ("zstandard", "mcap"), ("lz4", "mcap")], ids=["h5py", "zstandard", "lz4"]
)
def test_a_missing_library_names_the_extra(tmp_path, plain_hdf5, monkeypatch, module, extra):
    kind = CompressionType.LZ4 if module == "lz4" else CompressionType.ZSTD
    topics = {"/j": ("sensor_msgs/msg/JointState", JOINT_STATE, [(START_NS, joint_message(START_NS))])}
    path = plain_hdf5 if module == "h5py" else write_mcap(tmp_path / "a.mcap", topics, compression=kind)
    real_import = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailableError, match=rf'pip install "robocache\[{extra}\]"'):
        read_and_raise(path)


def test_importing_the_readers_imports_no_format_library():
    program = "import robocache.readers, sys; print({'h5py', 'mcap', 'pyarrow', 'zstandard', 'lz4'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
