"""MCAP files that are damaged, or made to do damage."""

import re
import struct

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as RawWriter

from robocache.errors import (
    DamagedRecordingError,
    RecordingLimitError,
)

from .conftest import (  # noqa: TID252 -- tests are not an installed package
    JOINT_STATE,
    POINT_CLOUD,
    START_NS,
    cloud_message,
    damaged,
    errors_in,
    joint_message,
    read_all,
    read_and_raise,
    write_mcap,
)

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


@pytest.mark.parametrize(("kind", "second"), [("int64", "q"), ("float64", "d")])
def test_a_schema_whose_stamps_fit_no_time(tmp_path, kind, second):
    """Without the check the sum leaves int64, and the stream stands at a wrong time in silence."""
    path = tmp_path / "a.mcap"
    text = "std_msgs/Header header\nfloat64 temperature\n===\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\n"
    text += f"===\nMSG: builtin_interfaces/Time\n{kind} sec\nuint32 nanosec"
    with path.open("wb") as file:
        writer = RawWriter(file)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/Temperature", "ros2msg", text.encode())
        channel = writer.register_channel("/t", "cdr", schema)
        writer.add_message(channel, START_NS, b"\0\1\0\0" + struct.pack(f"<{second}IId", 2**60, 0, 1, 1.0), START_NS)
        writer.finish()
    error = read_all(path)
    assert type(error) is DamagedRecordingError
    assert "in its header's stamp, which fit no time" in str(error)


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


@pytest.mark.parametrize("kind", ["flipped", "sizes"])
def test_damaged_mcap_without_checksums(tmp_path, kind):
    """Every flip reaches the decoder: it may read another number, but raises nothing else than its own errors."""
    cloud = np.arange(20.0).reshape(5, 4)
    topics = {
        "/j": ("sensor_msgs/msg/JointState", JOINT_STATE, [(START_NS, joint_message(START_NS))]),
        "/p": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, [(START_NS, cloud_message(START_NS, cloud))]),
    }
    path = write_mcap(tmp_path / "a.mcap", topics, compression=CompressionType.NONE)
    data = bytearray(path.read_bytes())
    at = len(MAGIC)
    while data[at] != 6:  # to the chunk, whose checksum is 33 bytes on
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    data[at + 33 : at + 37] = bytes(4)
    path.write_bytes(data)
    assert isinstance(read_all(path), list)
    found = []
    for seed in range(400):
        path.write_bytes(damaged(data, kind, seed))
        found.append(read_all(path))
    assert 40 < len(errors_in(found)) < 400


def test_a_point_of_four_billion_numbers(tmp_path):
    """Catches the limit on columns left out: naming them all takes an hour."""
    message = cloud_message(START_NS, np.arange(20.0).reshape(5, 4))
    message["fields"][3]["count"] = message["point_step"] = 2**32 - 1
    topics = {"/p": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, [(START_NS, message)])}
    error = read_all(write_mcap(tmp_path / "a.mcap", topics))
    assert "has 4294967295 numbers in fields[3], and 10000 columns are allowed" in str(error)


def test_a_point_of_four_billion_bytes(tmp_path):
    """Catches the limit on a point's bytes left out: numpy's own ValueError then comes through. Tried."""
    message = cloud_message(START_NS, np.arange(20.0).reshape(5, 4))
    message["point_step"] = 2**32 - 1
    topics = {"/p": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, [(START_NS, message)])}
    error = read_all(write_mcap(tmp_path / "a.mcap", topics))
    assert "has points of 4294967295 bytes, and 2147483647 are allowed" in str(error)
