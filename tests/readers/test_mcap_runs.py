"""MCAP: messages reach their topics in runs, and are what they are one by one."""

import struct

import numpy as np
import pytest
from mcap.writer import CompressionType, Writer

from robocache.readers import mcap, open_recording

from .conftest import START_NS, WRENCH, recording  # noqa: TID252 -- tests are not an installed package
from .test_mcap import decoded, stamp_ns  # noqa: TID252


def wrench(stamp_ns, number):
    """Plain CDR: the stamp, an empty frame, force and torque."""
    return struct.pack("<BBBBiIIBxxx6d", 0, 1, 0, 0, *divmod(stamp_ns, 10**9), 1, 0, *[float(number)] * 6)


@pytest.fixture
def twice(tmp_path):
    """One topic of two channels, message after message in turn, each four with one stamp; a third is no number."""
    path = tmp_path / "twice.mcap"
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE, chunk_size=1000)
        writer.start()
        stamped = writer.register_schema("geometry_msgs/msg/WrenchStamped", "ros2msg", WRENCH.encode())
        text = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channels = [writer.register_channel("/ft", "cdr", stamped, {"from": name}) for name in "ab"]
        log = writer.register_channel("/log", "cdr", text)
        for number in range(200):
            time_ns = START_NS + number // 4 * 1_000_000
            writer.add_message(channels[number % 2], time_ns, wrench(time_ns, number), time_ns)
            writer.add_message(log, time_ns, b"\0\1\0\0\1\0\0\0\0", time_ns)
        writer.finish()
    return path


@pytest.mark.parametrize("run_bytes", [1, 300, 4 * 2**20])
def test_messages_of_two_channels_stay_in_the_order_of_the_file(twice, monkeypatch, run_bytes):
    """Judged by the format's own library. Fails when each channel has a run of its own: of the samples with one stamp,
    the last in the file counts, and that would be another one then."""
    monkeypatch.setattr(mcap, "RUN_BYTES", run_bytes)
    with open_recording(twice) as opened:
        episode = opened.read_episode(0)
    messages = [message for _, _, message in decoded(twice)["/ft"]]
    np.testing.assert_array_equal(episode.streams["/ft.force"].values[:, 0], [each.wrench.force.x for each in messages])
    np.testing.assert_array_equal(episode.streams["/ft.force"].times_ns, [stamp_ns(each) for each in messages])
    assert list(episode.attributes["skipped"]) == ["/log"]


@pytest.mark.parametrize("run_bytes", [1, 1000])
def test_runs_of_any_length_give_the_same_bytes(monkeypatch, run_bytes):
    """Fails when a run that is full is not given to its topic, or a message between two runs is lost."""
    path = recording("husky_mcap") / "husky.mcap"
    with open_recording(path) as opened:
        whole = opened.read_episode(0).streams
    monkeypatch.setattr(mcap, "RUN_BYTES", run_bytes)
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
    assert list(streams) == list(whole)
    for name, stream in streams.items():
        assert stream.values.tobytes() == whole[name].values.tobytes()
        assert {clock: stamps.tobytes() for clock, stamps in stream.clocks.items()} == {
            clock: stamps.tobytes() for clock, stamps in whole[name].clocks.items()
        }
