"""A recording that ros2 bag split into several MCAP files is one episode: that of the file it was."""

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import StoragePlugin
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.errors import DamagedRecordingError
from robocache.readers import open_recording, open_recordings
from robocache.testing import check_reader

from .bag_writing import mcap_messages, write_rosbag2, write_small_mcap  # noqa: TID252 -- tests are not installed
from .conftest import read_all  # noqa: TID252


@pytest.fixture
def whole(tmp_path):
    return write_small_mcap(tmp_path / "whole.mcap")


@pytest.fixture(params=[1000, 2**20], ids=["many_chunks", "one_chunk"])
def split(tmp_path, whole, request):
    """Three files, channels numbered in an order of its own in each; the library's metadata, with three names."""
    folder = write_rosbag2(tmp_path / "run", mcap_messages(whole), storage_plugin=StoragePlugin.MCAP)
    (folder / "run.mcap").unlink()
    with whole.open("rb") as file:
        messages = list(make_reader(file).iter_messages(log_time_order=False))
    names = ["run_0.mcap", "run_1.mcap", "run_10.mcap"]
    for number, name in enumerate(names):
        with (folder / name).open("wb") as file:
            writer = Writer(file, compression=CompressionType.ZSTD, chunk_size=request.param)
            writer.start()
            channels = {channel.topic: (schema, channel) for schema, channel, _ in messages}
            numbers = {}
            for topic in sorted(channels, reverse=number % 2 == 1):
                schema, channel = channels[topic]
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                numbers[topic] = writer.register_channel(topic, channel.message_encoding, known)
            for _, channel, message in messages[number * len(messages) // 3 : (number + 1) * len(messages) // 3]:
                writer.add_message(numbers[channel.topic], message.log_time, message.data, message.publish_time)
            writer.finish()
    metadata = folder / "metadata.yaml"
    listed = "".join(f"  - {name}\n" for name in names)
    text = metadata.read_text()
    assert "  - run.mcap\n" in text
    metadata.write_text(text.replace("  - run.mcap\n", listed, 1))
    return folder


def test_it_is_the_episode_of_the_whole_file(split, whole):
    """Catches channels of one file taken for another's, and clouds or images read from the wrong file."""
    with open_recordings(split) as opened, open_recording(whole) as original:
        assert (opened.format, opened.episode_names) == ("mcap", ("run",))
        for span in ({}, {"start_ns": None}):
            found, expected = (each.read_episode(0, **span).streams for each in (opened, original))
            assert sorted(found) == sorted(expected)
            for name, stream in found.items():
                other = expected[name]
                assert (stream.columns, stream.kind, stream.clock) == (other.columns, other.kind, other.clock)
                np.testing.assert_array_equal(stream.values, other.values)
                for clock, times in other.clocks.items():
                    np.testing.assert_array_equal(stream.clocks[clock], times)
                if other.frames is not None:
                    numbers = np.arange(len(other.frames))
                    np.testing.assert_array_equal(stream.frames.read(numbers), other.frames.read(numbers))


def test_it_keeps_a_readers_promises(split):
    """Catches a span that loses the files between its ends."""
    check_reader(lambda: open_recording(split))


def test_damage_is_that_of_its_file(split):
    path = split / "run_1.mcap"
    path.write_bytes(path.read_bytes()[:-300])
    error = read_all(split)
    assert isinstance(error, DamagedRecordingError)
    assert str(path) in str(error)


def test_files_that_the_metadata_does_not_list_are_told(split):
    (split / "run_1.mcap").rename(split / "other.mcap")
    error = read_all(split)
    assert "lists 'run_1.mcap', which is not there" in str(error)
    assert "or name one .mcap file" in str(error)
    done = CliRunner().invoke(app, ["inspect", str(split)])
    assert done.exit_code == 2, done.output
    (split / "metadata.yaml").unlink()
    with open_recordings(split) as opened:  # without it, a folder of three recordings
        assert opened.episode_names == ("other/other", "run_0/run_0", "run_10/run_10")
