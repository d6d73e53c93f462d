"""Compressed rosbag2 folders: the same streams as the MCAP file, and bombs, damage and full disks are one error."""

import tempfile
from pathlib import Path

import pytest
import zstandard
from rosbags.rosbag2 import CompressionMode

from robocache.errors import ClosedError, DamagedRecordingError, OutputError, RecordingLimitError
from robocache.readers import Limits, open_recording, open_recordings, rosbag2_compression
from robocache.testing import check_reader

from .bag_writing import (  # noqa: TID252 -- tests are not an installed package
    assert_same_streams,
    mcap_messages,
    write_rosbag2,
    write_small_mcap,
)
from .conftest import read_all  # noqa: TID252


@pytest.fixture
def small(tmp_path):
    return write_small_mcap(tmp_path / "small.mcap")


@pytest.fixture(params=[CompressionMode.FILE, CompressionMode.MESSAGE], ids=["file", "message"])
def bag(tmp_path, small, request):
    return write_rosbag2(tmp_path / "bag", mcap_messages(small), compression=request.param)


@pytest.fixture
def file_bag(tmp_path, small):
    return write_rosbag2(tmp_path / "bag", mcap_messages(small), compression=CompressionMode.FILE)


def temporary_folders():
    return set(Path(tempfile.gettempdir()).glob("robocache-bag-*"))


def test_a_compressed_bag_is_what_the_mcap_file_is(bag, small):
    """Catches messages that are decompressed twice, or not when they are read again for a span, a cloud, an image."""
    before = temporary_folders()
    assert_same_streams(bag, small)
    with open_recordings(bag.parent / "b*") as opened:
        assert opened.format == "rosbag2"
    assert temporary_folders() == before
    check_reader(lambda: open_recording(bag))


def test_a_file_of_compressed_messages_needs_no_metadata(tmp_path, small):
    bag = write_rosbag2(tmp_path / "bag", mcap_messages(small), compression=CompressionMode.MESSAGE)
    assert_same_streams(bag / "bag.db3", small)


def test_nothing_is_left_when_it_is_closed_or_cannot_be_opened(file_bag):
    before = temporary_folders()
    opened = open_recording(file_bag)
    assert len(temporary_folders() - before) == 1
    opened.close()
    opened.close()
    with pytest.raises(ClosedError):
        opened.read_episode(0)
    (file_bag / "bag.db3.zstd").write_bytes(b"no zstd at all")
    with pytest.raises(DamagedRecordingError, match=r"bag.db3.zstd: does not decompress with zstd"):
        open_recording(file_bag)
    assert temporary_folders() == before


@pytest.mark.parametrize("percent", range(0, 100, 9))
def test_a_file_cut_anywhere_is_one_error(file_bag, percent):
    path = file_bag / "bag.db3.zstd"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    error = read_all(file_bag)
    assert isinstance(error, DamagedRecordingError)


def test_a_bomb_is_stopped(file_bag):
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(300_000_000))
    (file_bag / "bag.db3.zstd").write_bytes(bomb)
    error = read_all(file_bag)  # within 200 MB
    assert isinstance(error, RecordingLimitError)
    assert "decompresses to more than the 16777216 bytes that are allowed" in str(error)


def test_a_bomb_in_a_message_is_stopped(tmp_path):
    path, data = tmp_path / "a.db3", zstandard.compress(bytes(100_000_000))
    with pytest.raises(RecordingLimitError, match=r"messages row 7.*more than the 16777216 bytes"):
        rosbag2_compression.plain_message(path, 7, data, Limits())
    with pytest.raises(DamagedRecordingError, match=r"messages row 7.*does not decompress"):
        rosbag2_compression.plain_message(path, 7, data[:9] + b"?" * 20, Limits())


def test_a_full_disk_is_an_error_that_names_the_way_out(file_bag, monkeypatch):
    def full(self, *arguments, **options):
        if self.name == "bag.db3":
            raise OSError(28, "No space left on device")
        return opened(self, *arguments, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"No space left on device.*TMPDIR"):
        open_recording(file_bag)
