"""RLDS episodes: written by an encoder of this file, judged by RFC 3720's checksums and by features.json.

Each of these edits was tried, and made a test fail: checksums of lengths, or of data, not compared; the mask's
rotation by 16; the zeros of `crc32c` left out; varints shifted by 8; unpacked lists ignored; the first flag alone
counted; t = k / rate in float32; no limit on a record.
"""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers import Limits, open_recording
from robocache.readers.tf_example import read_features
from robocache.readers.tfrecord import crc32c

from .conftest import damaged, errors_in, read_all, recording  # noqa: TID252 -- tests are not an installed package

BRIDGE = "bridge_rlds/tests/debug_dataset/bridge_dataset/1.0.0"


# ── an encoder, bit by bit and byte by byte ─────────────────────────────────────────────────────


def checksum_bit_by_bit(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def framed(data, *, length=None, checksum=checksum_bit_by_bit):
    def masked(part):
        found = checksum(part)
        return struct.pack("<I", ((found >> 15 | found << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)

    head = struct.pack("<Q", len(data) if length is None else length)
    return head + masked(head) + data + masked(data)


def varint(number):
    number %= 2**64
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def block(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values, *, packed=True):
    """A Feature of bytes, floats or integers, after the type of the first value."""
    if isinstance(values[0], bytes):
        return block(1, b"".join(block(1, value) for value in values))
    number, tag = (2, b"\x0d") if isinstance(values[0], float) else (3, b"\x08")
    raw = [struct.pack("<f", value) if number == 2 else varint(value) for value in values]
    return block(number, block(1, b"".join(raw)) if packed else b"".join(tag + part for part in raw))


def example(features, *, packed=True):
    entries = (
        block(1, name.encode()) + block(2, values if isinstance(values, bytes) else feature(values, packed=packed))
        for name, values in features.items()
    )
    return block(1, b"".join(block(1, entry) for entry in entries))


def episode_features(steps=6, seed=0):
    numbers = np.random.default_rng(seed)
    return {
        "steps/is_first": [int(step == 0) for step in range(steps)],
        "steps/is_last": [int(step == steps - 1) for step in range(steps)],
        "steps/action": numbers.normal(size=steps * 3).astype(np.float32).tolist(),
        "steps/observation/joints": numbers.integers(-(2**63), 2**63 - 1, steps * 2).tolist(),
        "steps/observation/image": [b"\xff\xd8\xff" + bytes(9)] * steps,
        "steps/language_instruction": [b"pick it up"] * steps,
        "episode_metadata/episode_id": [seed],
        "episode_metadata/file_path": [b"/a/b"],
    }


def write(path, *episodes):
    path.write_bytes(b"".join(framed(example(features)) for features in episodes))
    return path


# ── values ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
    ids=["zeros", "ones", "up", "down", "check", "empty"],
)
def test_checksums_of_rfc_3720(data, expected):
    assert crc32c(data) == expected


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 1300))
def test_checksums_of_any_length(data, zeros):
    data = data + bytes(zeros) + data
    assert crc32c(data) == checksum_bit_by_bit(data)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.lists(st.floats(width=32), min_size=1), st.booleans())
def test_numbers_come_back(integers, floats, packed):
    found = read_features(example({"i": integers, "f": floats}, packed=packed))
    assert found["i"].numbers().tolist() == integers
    np.testing.assert_array_equal(found["f"].numbers(), np.array(floats, np.float32))


def test_many_numbers_over_the_edges_of_chunks():
    integers = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 50_000) >> np.arange(50_000) % 64
    np.testing.assert_array_equal(read_features(example({"i": integers.tolist()}))["i"].numbers(), integers)


def test_a_real_data_set_is_what_its_features_say():
    folder = recording(BRIDGE)
    [file] = folder.glob("*.tfrecord*")
    data = file.read_bytes()
    declared = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]["steps"]["sequence"]
    steps = declared["feature"]["featuresDict"]["features"]
    count = int(json.loads((folder / "dataset_info.json").read_text())["splits"][0]["shardLengths"][0])
    flat = steps | {f"observation/{k}": v for k, v in steps.pop("observation")["featuresDict"]["features"].items()}
    with open_recording(folder, rate_hz=5) as opened:
        episodes = [opened.read_episode(index) for index in range(len(opened.episode_names))]
    assert (opened.format, len(episodes)) == ("rlds", count)
    for episode in episodes:
        assert {name for name, stream in episode.streams.items() if stream.kind == "vector"} == {
            name for name, kind in flat.items() if "tensor" in kind
        }
        assert {name for name, stream in episode.streams.items() if stream.kind == "image"} == {
            name for name, kind in flat.items() if "image" in kind
        }
        for name, stream in episode.streams.items():
            if stream.kind == "image":
                continue
            width = np.prod([int(size) for size in flat[name]["tensor"]["shape"].get("dimensions", ())], dtype=int)
            dtype = flat[name]["tensor"]["dtype"].replace("bool", "int64")
            assert (stream.values.shape, stream.values.dtype, stream.clock) == ((10, width), dtype, "synthetic")
            # What a stream holds are bytes of the file, with the flags packed into one byte each.
            packed = stream.values.astype(np.uint8) if dtype == "int64" else stream.values
            assert packed.tobytes() in data
            np.testing.assert_array_equal(stream.times_ns, np.arange(10) * 200_000_000)
        assert episode.attributes["task"].encode() in data
        assert str(episode.attributes["episode_metadata/file_path"]).startswith("/nfs/")
    np.testing.assert_array_equal(episodes[0].streams["is_first"].values[:, 0], [1] + [0] * 9)


def test_files_of_a_folder_follow_each_other(tmp_path):
    for shard in (1, 0):
        write(tmp_path / f"robot-train.tfrecord-0000{shard}-of-00002", episode_features(seed=shard), episode_features())
    with open_recording(tmp_path, rate_hz=3) as opened:
        assert opened.episode_names == tuple(f"episode_00000{index}" for index in range(4))
        third = opened.read_episode(2)
        only = opened.read_episode(2, ["action"])
    assert list(only.streams) == ["action"]
    assert third.attributes["episode_metadata/episode_id"] == 1
    assert third.attributes["file"].endswith("00001-of-00002")
    assert third.attributes["language_instruction"] == third.attributes["task"] == "pick it up"
    assert third.attributes["skipped"] == {
        "observation/image": "its first image is a JPEG with 0x00 at byte 6, where a marker should be"
    }
    expected = episode_features(seed=1)
    np.testing.assert_array_equal(third.streams["action"].values.ravel(), expected["steps/action"])
    np.testing.assert_array_equal(
        third.streams["observation/joints"].values.ravel(), expected["steps/observation/joints"]
    )
    np.testing.assert_array_equal(third.streams["action"].times_ns[:4], [0, 333333333, 666666667, 1000000000])


def test_what_is_neither_text_nor_number(tmp_path):
    odd = {
        "steps/raw": [b"\xff\xfe"] * 6,
        "steps/long": [b"a" * 5000] * 6,
        "steps/none": b"",
        "episode_metadata/m": [1, 2],
        "steps/list/ragged_flat_values": [1, 2, 3, 4],
    }
    path = write(tmp_path / "a", episode_features() | odd | {"steps/language_instruction": [b"one"] * 3 + [b"two"] * 3})
    with open_recording(path, rate_hz=1) as opened:
        attributes = opened.read_episode(0).attributes
    assert attributes["language_instruction"] == ("one", "two")
    assert attributes["task"] is None
    left_out = {"raw", "long", "none", "episode_metadata/m", "observation/image", "list/ragged_flat_values"}
    assert set(attributes["skipped"]) == left_out


# ── whatever is wrong ───────────────────────────────────────────────────────────────────────────


def test_without_a_rate(tmp_path):
    error = read_all(write(tmp_path / "a", episode_features()))
    assert isinstance(error, UnknownFormatError)
    assert "--source-rate" in str(error)


GOOD = example(episode_features())
FLAGS = block(1, block(1, block(1, b"steps/is_first") + block(2, feature([1, 0]))))


def other(name, content):
    return framed(FLAGS + block(1, block(1, block(1, name) + block(2, content))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (framed(GOOD)[:-1], "are left: it was truncated"),
        (framed(GOOD, length=2**60), f"declares {2**60} bytes"),
        (framed(GOOD) + framed(GOOD)[:7], "ends inside the header of a record"),
        (framed(GOOD) + bytes(99), "a record's length, 0, does not have its checksum"),
        (framed(GOOD)[:-4] + bytes(4), "data do not have their checksum"),
        (framed(b""), "no step with is_first"),
        (framed(example({"steps/action": [1.0]})), "no step with is_first, is_last"),
        (framed(example({"steps/is_first": [1, 0], "steps/is_last": [1]})), "steps/is_last has 1 values"),
        (framed(example({"steps/is_first": [1, 0], "steps/action": [1.0] * 3})), "action has 3 values for 2 steps"),
        (framed(b"\x0a" + varint(2**60)), f"declares {2**60} bytes, but 0 are left"),
        (framed(b"\x0a" + b"\xff" * 20), "a number does not end"),
        (framed(b"\x0b"), "wire type 3, which is none"),
        (framed(b"\x02\x00"), "the number 0"),
        (other(b"\xff", feature([1])), "name is not UTF-8"),
        (other(b"steps/a", block(2, block(1, b"123"))), "3 bytes are no whole number of float32"),
        (other(b"steps/a", block(2, b"\x08\x01")), "a value of float32 has the wire type 0"),
        (other(b"steps/a", block(3, block(1, b"\xff" * 9))), "an int64 does not end; "),
        (other(b"steps/a", block(3, block(1, b"\xff" * 10 + b"\x01"))), "an int64 does not end"),
        (b"".join([framed(b"")] * 100_001), "more than 100000 records"),
        (other(b"steps/a", block(1, b"\x0a\x00" * 100_001)), "has more than 100000 fields"),
    ],
    ids=lambda value: value.replace(" ", "_")[:40] if isinstance(value, str) else "record",
)
def test_a_wrong_record_is_named(tmp_path, content, message):
    path = tmp_path / "a"
    path.write_bytes(content)
    error = read_all(path, rate_hz=10)
    assert isinstance(error, DamagedRecordingError | RecordingLimitError)
    assert message in str(error)
    assert error.offset is not None


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_files(tmp_path, kind):
    """Everything is under a checksum: no damage is read as a number."""
    path = write(tmp_path / "a", episode_features(), episode_features(seed=1))
    data = path.read_bytes()
    for seed in range(25):
        broken = damaged(data, kind, seed)
        path.write_bytes(broken)
        assert broken == data or errors_in([read_all(path, rate_hz=10)])


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damage_under_a_right_checksum(tmp_path, kind):
    """What a hostile writer makes: the message is damaged, and its checksum belongs to it."""
    found = []
    for seed in range(60):
        path = tmp_path / "a"
        path.write_bytes(framed(bytes(damaged(GOOD, kind, seed % 25 if kind == "truncated" else seed))))
        found.append(read_all(path, rate_hz=10))
    assert len(errors_in(found)) >= 10


def test_an_empty_file_among_others(tmp_path):
    write(tmp_path / "a.tfrecord-00000-of-00002", episode_features())
    (tmp_path / "a.tfrecord-00001-of-00002").touch()
    with pytest.raises(DamagedRecordingError, match="00001-of-00002: is empty"):
        open_recording(tmp_path, rate_hz=1)


def test_limits(tmp_path):
    path = write(tmp_path / "a", episode_features())
    for limits, message in (
        (Limits(block_bytes=100), r"a record has \d+ bytes, and the limit is 100"),
        (Limits(episode_bytes=100), r"streams take up to \d+ bytes, and the limit is 100"),
    ):
        with (
            open_recording(path, rate_hz=1, limits=limits) as opened,
            pytest.raises(RecordingLimitError, match=message),
        ):
            opened.read_episode(0)
