"""ROS 1 bags: the same numbers as the MCAP file they come from, and whatever is wrong is one error, soon."""

import bz2
import json
import re
import struct
from functools import cache

import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag1 import Reader, Writer
from rosbags.typesys import Stores, get_typestore
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.errors import ArgumentError, ClosedError, DamagedRecordingError, RecordingLimitError, UnknownStreamError
from robocache.readers import Limits, Recording, open_recording

from .bag_writing import (  # noqa: TID252 -- tests are not an installed package
    assert_same_streams,
    mcap_messages,
    write_ros1,
    write_small_mcap,
)
from .conftest import damaged, errors_in, open_files, read_all, recording  # noqa: TID252

COMPRESSIONS = [None, Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4]


@pytest.fixture
def small(tmp_path):
    return write_small_mcap(tmp_path / "small.mcap")


@pytest.mark.parametrize("chunk_bytes", [2_000, 2**20], ids=["many_chunks", "one_chunk"])
@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
def test_a_bag_is_what_the_mcap_file_is(tmp_path, small, compression, chunk_bytes):
    """Catches an alignment left in (`is_aligned`), seconds and nanoseconds exchanged, one clock for the other."""
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small), compression, chunk_bytes)
    assert_same_streams(path, small)
    with open_recording(path) as opened:
        assert isinstance(opened, Recording)
        assert (opened.format, opened.episode_names) == ("ros1", ("a",))
        attributes = opened.read_episode(0).attributes
    assert attributes["skipped"] == {}


def test_the_librarys_own_reading(tmp_path, small):
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small))
    store, rows = get_typestore(Stores.ROS1_NOETIC), []
    with Reader(path) as reader:
        for connection, log_ns, raw in reader.messages():
            if connection.topic == "/joints":
                message = store.deserialize_ros1(raw, connection.msgtype)
                if len(message.name) == 3:
                    stamp = message.header.stamp
                    rows.append((stamp.sec * 10**9 + stamp.nanosec, log_ns, *message.effort))
    rows.sort()
    with open_recording(path) as opened:
        stream = opened.read_episode(0, ["/joints#2.effort"]).streams["/joints#2.effort"]
    np.testing.assert_array_equal(stream.times_ns, [row[0] for row in rows])
    np.testing.assert_array_equal(stream.clocks["log"], [row[1] for row in rows])
    np.testing.assert_array_equal(stream.values, [row[2:] for row in rows])


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
def test_husky_as_a_bag(tmp_path, compression):
    original = recording("husky_mcap") / "husky.mcap"
    assert_same_streams(write_ros1(tmp_path / "h.bag", mcap_messages(original), compression), original)


def test_the_rules_of_every_reader(tmp_path, small):
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small))
    with pytest.raises(ArgumentError, match="has times of its own"):
        open_recording(path, rate_hz=10)
    before = open_files()
    with open_recording(path) as opened:
        with pytest.raises(UnknownStreamError, match=r"has no stream 'nope'; it has /joints\.position"):
            opened.read_episode(0, ["nope"])
        assert list(opened.read_episode(0, ["/points.points"]).streams) == ["/points.points"]
    with pytest.raises(ClosedError):
        opened.read_episode(0)
    with pytest.raises(DamagedRecordingError, match=r"version 2\.0"):
        open_recording(record_file(tmp_path / "b.bag", magic=b"#ROSBAG V1.2\n"))
    assert open_files() <= before
    with (
        open_recording(path, limits=Limits(episode_bytes=100)) as opened,
        pytest.raises(RecordingLimitError, match="the limit is 100"),
    ):
        opened.read_episode(0)


# ── damaged, or made to do damage ───────────────────────────────────────────────────────────────


def parts(**fields):
    texts = [name.encode() + b"=" + value for name, value in fields.items()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def record(op, content=b"", length=None, **fields):
    start = parts(op=bytes([op]), **fields)
    length = len(content) if length is None else length
    return struct.pack("<I", len(start)) + start + struct.pack("<I", length) + content


def number(value, size=4):
    return value.to_bytes(size, "little")


def chunk(content, compression=b"none", declared=None):
    declared = number(len(content) if declared is None else declared)
    return record(5, content, compression=compression, size=declared)


def connection(topic=b"/j", text=b"float64 data", kind=b"std_msgs/Float64"):
    return record(7, parts(type=kind, message_definition=text), conn=number(0), topic=topic)


def message(content=bytes(8), conn=0):
    return record(2, content, conn=number(conn), time=struct.pack("<II", 1, 5))


def record_file(path, *records, magic=b"#ROSBAG V2.0\n", index_pos=100, chunks=1, **fields):
    first = record(
        3, bytes(200), index_pos=number(index_pos, 8), conn_count=number(0), chunk_count=number(chunks), **fields
    )
    path.write_bytes(magic + first + b"".join(records))
    return path


AT = 13 + len(record(3, bytes(200), index_pos=bytes(8), conn_count=bytes(4), chunk_count=bytes(4)))
BOMB_BYTES = 250 * 2**20


@pytest.mark.parametrize(
    ("records", "kind", "says"),
    [
        ([b"\xff\xff\xff\xff" + bytes(9)], DamagedRecordingError, "the header of a record declares 4294967295 bytes"),
        ([record(2, b"", 2**32 - 1)], DamagedRecordingError, "declares 4294967295 bytes, but the file has 0 left"),
        ([b"\1"], DamagedRecordingError, "ends inside a record"),
        ([number(4) + b"\xff" * 4 + bytes(4)], DamagedRecordingError, "has a field of 4294967295 bytes"),
        ([number(9) + number(5) + b"hello" + bytes(4)], DamagedRecordingError, "a field without a name"),
        ([record(9)], DamagedRecordingError, "the type 0x09"),
        ([message()], DamagedRecordingError, "connection 0, which nothing before it defines"),
        ([record(6, bytes(3))], DamagedRecordingError, "no pairs of numbers"),
        ([record(5, b"", compression=b"none")], DamagedRecordingError, "has no size of 4 bytes"),
        ([chunk(b"abc", b"zstd")], DamagedRecordingError, "compressed with b'zstd', which is not bz2 or lz4"),
        ([chunk(b"abc", declared=2**32 - 1)], RecordingLimitError, "declares 4294967295 decompressed bytes"),
        ([chunk(b"abc", b"bz2")], DamagedRecordingError, "does not decompress with bz2"),
        ([chunk(b"abcdefgh" * 4, b"lz4")], DamagedRecordingError, "does not decompress with lz4"),
        ([chunk(b"\xff" * 8)], DamagedRecordingError, "at its decompressed byte 0, a record declares 4294967295"),
        ([chunk(b"abc")], DamagedRecordingError, "at its decompressed byte 0, it ends inside a record"),
        ([chunk(record(4))], DamagedRecordingError, "the type 0x04, which a chunk does not hold"),
        ([chunk(connection(b"\xff"))], DamagedRecordingError, "is no text"),
        ([chunk(connection() + connection(b"/k"))], DamagedRecordingError, "is '/k', but it was '/j' before"),
        ([chunk(record(7, b"", conn=bytes(4)))], DamagedRecordingError, "defines connection 0 without topic"),
        ([chunk(connection() + message())], DamagedRecordingError, "chunks in its index, but has 0: it was truncated"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_records_that_cannot_be(tmp_path, records, kind, says):
    error = read_all(record_file(tmp_path / "a.bag", *records))
    assert type(error) is kind
    assert re.search(says, str(error))
    assert error.offset in (AT, AT + sum(map(len, records)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"index_pos": 0}, "its recording never finished"),
        ({"index_pos": 2**60}, "index at byte 1152921504606846976, but has"),
        ({"index_pos": 10**6}, "index at byte 1000000, but has"),
        ({"chunks": 2**32 - 1}, "declares 4294967295 chunks, but has 0"),
        ({"encryptor": b"rosbag/AesCbcEncryptor"}, "encrypted"),
    ],
    ids=["unfinished", "2**60", "beyond", "chunks", "encrypted"],
)
def test_bag_headers_that_cannot_be(tmp_path, fields, says):
    assert says in str(read_all(record_file(tmp_path / "a.bag", **fields)))


@cache
def bomb(compression):
    return {"bz2": bz2, "lz4": lz4.frame}[compression].compress(bytes(BOMB_BYTES))


@pytest.mark.parametrize("declared", [BOMB_BYTES, 1_000], ids=["honest", "lying"])
@pytest.mark.parametrize("compression", ["bz2", "lz4"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, compression, declared):
    """Catches a `decompress` without `max_length`: 250 MB in one go."""
    error = read_all(record_file(tmp_path / "a.bag", chunk(bomb(compression), compression.encode(), declared)))
    assert type(error) is (RecordingLimitError if declared == BOMB_BYTES else DamagedRecordingError)
    assert error.offset == AT
    assert ("are allowed" if declared == BOMB_BYTES else "but has more than 1000") in error.problem


def test_definitions_that_ask_for_more_than_a_message_holds(tmp_path):
    for text in (
        b"float64[1000000000000] data",
        b"A[] data\n===\nMSG: std_msgs/A\nA[99] a",
        b"Empty[] data\n===\nMSG: std_msgs/Empty\n",
    ):
        path = record_file(tmp_path / "a.bag", chunk(connection(text=text) + message(b"\xff\xff\xff\x7f" * 5)))
        assert type(read_all(path)) is DamagedRecordingError


def test_a_lost_message_is_noticed(tmp_path, small):
    """Catches `check_counts` left out: the index says how many messages there were, and nothing else would."""
    path = write_ros1(tmp_path / "a.bag", list(mcap_messages(small)))
    data = path.read_bytes()
    at = data.rindex(number(0) + number(60))  # connection 0 in the record about the chunk
    path.write_bytes(data[: at + 4] + number(61) + data[at + 8 :])
    assert "messages, and its index tells otherwise" in str(read_all(path))


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_bags(tmp_path, kind, compression):
    small = write_small_mcap(tmp_path / "small.mcap", rows=12)
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small), compression, 4_000)
    data, found = path.read_bytes(), []
    for seed in range(25 if kind == "truncated" else 60):
        path.write_bytes(damaged(data, kind, seed))
        found.append(read_all(path))
    assert len(errors_in(found)) >= (25 if kind == "truncated" else 10)


def test_a_bag_that_ends_between_two_records(tmp_path, small):
    """Where only the counts in its first record tell that something is missing."""
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small), None, 4_000)
    data, at, ends = path.read_bytes(), 13, []
    while at < len(data):
        for _ in range(2):
            at += 4 + struct.unpack_from("<I", data, at)[0]
        ends.append(at)
    for end in ends[:-1]:
        path.write_bytes(data[:end])
        assert isinstance(read_all(path), DamagedRecordingError)


def test_inspect_shows_a_bag(tmp_path, small):
    path = write_ros1(tmp_path / "a.bag", mcap_messages(small))
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["format"]) == (0, "ros1")
    assert found["episodes"][0]["streams"]["/cmd.linear_velocity"]["samples"] == 60
    path.write_bytes(path.read_bytes()[:5000])
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 2
    assert f"{path} at byte" in "".join(result.stderr.split("\n"))
