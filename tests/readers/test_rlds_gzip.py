"""gzip'd TFRecords: the same episodes as in the plain file, in any order, without the content in memory."""

import gzip
import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers import Limits, open_recording
from robocache.readers.gzip_stream import MAX_FILES, GzipStreams

from .conftest import read_all, recording  # noqa: TID252 -- tests are not an installed package
from .every_reader import gzipped  # noqa: TID252
from .image_recordings import write_rlds_images  # noqa: TID252
from .test_rlds import BRIDGE, episode_features, framed, write  # noqa: TID252

RATE = {"rate_hz": 5.0}


def assert_same_episodes(path, plain, order):
    with open_recording(path, **RATE) as opened, open_recording(plain, **RATE) as other:
        assert opened.episode_names == other.episode_names
        for index in order:
            found, expected = opened.read_episode(index), other.read_episode(index)
            assert list(found.streams) == list(expected.streams)
            assert found.attributes["task"] == expected.attributes["task"]
            for name, stream in found.streams.items():
                np.testing.assert_array_equal(stream.values, expected.streams[name].values)
                if stream.frames is not None:
                    rows = stream.values[::-1, 0]
                    images = expected.streams[name].frames.read(rows)
                    np.testing.assert_array_equal(stream.frames.read(rows), images)


@pytest.mark.parametrize("members", [1, 3])
def test_a_gzip_file_holds_what_the_plain_one_does(tmp_path, members):
    """Catches offsets of the file taken for those of its content, and members after the first left out."""
    plain = write_rlds_images(tmp_path / "a.tfrecord")
    data = plain.read_bytes()
    cuts = [len(data) * part // members for part in range(members + 1)]
    path = tmp_path / "b.tfrecord.gz"
    path.write_bytes(b"".join(gzip.compress(data[a:b]) for a, b in itertools.pairwise(cuts)))
    assert_same_episodes(path, plain, [1, 0, 1])


def test_the_real_episodes_compressed(tmp_path):
    folder = recording(BRIDGE)
    files = sorted(file for file in folder.iterdir() if ".tfrecord" in file.name)
    for number, file in enumerate(files):
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes())
        if number % 2 == 0:  # plain and compressed ones side by side
            gzipped(copy)
    assert_same_episodes(tmp_path, folder, [24, 3, 11, 0])


def bytes_read():
    return int(Path("/proc/self/io").read_text().splitlines()[0].split()[1])


def test_a_place_near_by_is_where_reading_starts(tmp_path):
    """Judged by what the system counts as read. Catches places that are not kept, or not used."""
    noise = np.random.default_rng(0).bytes(40 * 2**20)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(noise, compresslevel=1))
    streams = GzipStreams(Limits())
    for offset, most in ((35 * 2**20, 42), (35 * 2**20 + 5, 6), (2**20, 2), (20 * 2**20, 6)):
        begun = bytes_read()
        with streams.opened(path.open("rb"), path) as stream:
            assert stream.seek(offset) == offset
            assert stream.read(100_000) == noise[offset : offset + 100_000]
        assert bytes_read() - begun < most * 2**20
    with streams.opened(path.open("rb"), path) as stream:
        for offset in (39 * 2**20, 100, 200, 7 * 2**20):
            stream.seek(offset)
            assert stream.read(10) == noise[offset : offset + 10]
        assert stream.seek(2**62) == len(noise)
        assert stream.read(1) == b""


def test_places_are_kept_of_few_files(tmp_path):
    path, streams = tmp_path / "a.gz", GzipStreams(Limits())
    path.write_bytes(gzip.compress(b"abc"))
    for number in range(MAX_FILES + 5):
        with streams.opened(path.open("rb"), tmp_path / str(number)) as stream:
            assert stream.read(9) == b"abc"
    assert len(streams._places) == MAX_FILES


def test_output_that_waits_inside_zlib(tmp_path):
    """The end of the file is fed long before its content is out. Catches what is fed but not unpacked being dropped."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(9 * 2**20)))
    with GzipStreams(Limits()).opened(path.open("rb"), path) as stream:
        assert stream.seek(2**40) == 9 * 2**20


# ── damaged ─────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_ends_early(tmp_path):
    path = gzipped(write(tmp_path / "a.tfrecord", episode_features(500), episode_features()))
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    error = read_all(path, **RATE)
    assert isinstance(error, DamagedRecordingError)
    assert "ends inside its gzip stream: it was truncated" in str(error)
    path.write_bytes(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])
    assert "does not decompress with gzip (Error -3 while decompressing data: incorrect" in str(read_all(path, **RATE))


def test_a_record_that_lies_about_its_length(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(framed(b"abc") + framed(b"abc", length=2**60)))
    error = read_all(path, **RATE)
    assert isinstance(error, RecordingLimitError)
    assert f"at byte 19: a record declares {2**60} bytes, but 3 are left" in str(error)


def test_a_file_that_expands_without_end(tmp_path):
    path = tmp_path / "a.tfrecord"
    packer = zlib.compressobj(wbits=31)
    head = framed(b"", length=2**31)[:12]
    path.write_bytes(packer.compress(head + bytes(2**26)) + packer.flush())
    error = read_all(path, **RATE)
    assert isinstance(error, RecordingLimitError)
    assert "become more than 200 times as many" in str(error)
    patient = read_all(path, **RATE, limits=Limits(expansion=2000))
    assert f"declares {2**31} bytes, but {2**26 - 4} are left" in str(patient)


def test_a_gzip_file_of_something_else(tmp_path):
    path = tmp_path / "a.tfrecord.gz"
    path.write_bytes(gzip.compress(b"hello" * 99))
    error = read_all(path, **RATE)
    assert isinstance(error, UnknownFormatError)
    assert "holds neither a CARMEN log nor TFRecords" in str(error)
