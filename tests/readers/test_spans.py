"""A part of an episode is what the whole is, cut; and costs what the part costs."""

import tracemalloc

import h5py
import numpy as np
import pytest

from robocache.errors import ArgumentError
from robocache.readers import messages, open_recording

from .conftest import JOINT_STATE, START_NS, joint_message, recording, write_mcap  # noqa: TID252 -- not installed
from .every_reader import FORMATS, opener  # noqa: TID252


def assert_is_cut(part, whole, start_ns, end_ns):
    """Judged by a mask over the whole, scan by scan for clouds."""
    assert list(part.streams) == list(whole.streams)
    assert part.attributes == whole.attributes
    for name, stream in part.streams.items():
        full = whole.streams[name]
        inside = np.ones(len(full.times_ns), bool)
        inside &= full.times_ns >= start_ns if start_ns is not None else True
        inside &= full.times_ns < end_ns if end_ns is not None else True
        assert (stream.clock, stream.columns, stream.kind) == (full.clock, full.columns, full.kind)
        assert list(stream.clocks) == list(full.clocks)
        for clock, times in stream.clocks.items():
            np.testing.assert_array_equal(times, full.clocks[clock][inside])
        rows = inside if full.offsets is None else np.repeat(inside, np.diff(full.offsets))
        assert stream.values.dtype == full.values.dtype
        assert np.asarray(stream.values).tobytes() == full.values[rows].tobytes()
        assert stream.values.shape[1:] == full.values.shape[1:]
        if full.frames is not None:
            assert len(stream.frames) == len(full.frames)
            read = stream.frames.read(stream.values[:, 0])
            np.testing.assert_array_equal(read, full.frames.read(full.values[:, 0])[inside])
        if full.offsets is not None:
            np.testing.assert_array_equal(np.diff(stream.offsets), np.diff(full.offsets)[inside])


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_is_the_whole_cut(tmp_path, monkeypatch, name):
    """Catches `<=` for the end, a segment left out or read twice, header and log mixed up, rows not re-based."""
    monkeypatch.setattr(messages, "SEGMENT_BYTES", 2000)
    numbers = np.random.default_rng(7)
    with opener(name, tmp_path)() as opened:
        whole = opened.read_episode(0)
        stamps = np.unique(np.concatenate([stream.times_ns for stream in whole.streams.values()]))
        bounds = [(int(a), int(b)) for a, b in np.sort(numbers.choice(stamps, (8, 2)), axis=1)]
        bounds += [(None, int(stamps[1])), (int(stamps[-2]), None), (int(stamps[2]), int(stamps[2]))]
        bounds += [(int(stamps[0]), int(stamps[-1])), (-(2**70), 2**70), (0, 1), (2**61, 2**62)]
        for start_ns, end_ns in bounds:
            assert_is_cut(opened.read_episode(0, start_ns=start_ns, end_ns=end_ns), whole, start_ns, end_ns)
        first = next(iter(whole.streams))
        part = opened.read_episode(0, [first], start_ns=np.int64(stamps[1]), end_ns=int(stamps[-1]))
        assert list(part.streams) == [first]


@pytest.mark.parametrize("bounds", [{"start_ns": 1.5}, {"end_ns": True}, {"start_ns": 2, "end_ns": 1}], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_bounds_that_cannot_be(tmp_path, name, bounds):
    with opener(name, tmp_path)() as opened, pytest.raises(ArgumentError, match=r"(start|end)_ns must"):
        opened.read_episode(0, **bounds)


def test_the_header_of_husky_is_not_its_log():
    """Its IMU is logged 21 to 36 ms after its header: whoever takes the index of log times loses its last samples."""
    path = recording("husky_mcap")
    with open_recording(path) as opened:
        whole = opened.read_episode(0)
        stream = whole.streams["/imu/data.angular_velocity"]
        assert np.all(stream.clocks["log"] - stream.times_ns > 10_000_000)
        for row in (1, 5000, len(stream.times_ns) - 2):
            start_ns, end_ns = int(stream.times_ns[row - 1]), int(stream.times_ns[row + 1])
            assert_is_cut(opened.read_episode(0, start_ns=start_ns, end_ns=end_ns), whole, start_ns, end_ns)


def rows_and_peak(path, name, **bounds):
    with open_recording(path) as opened:
        tracemalloc.start()
        try:
            rows = len(opened.read_episode(0, [name], **bounds).streams[name].times_ns)
            return rows, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def big_mcap(path, rows=800):
    names = [f"j{number}" for number in range(500)]
    numbers = {key: np.arange(500.0).tolist() for key in ("position", "velocity", "effort")}
    message = joint_message(START_NS, names) | numbers
    made = []
    for row in range(rows):
        time_ns = START_NS + row * 10_000_000
        stamp = {"sec": time_ns // 10**9, "nanosec": time_ns % 10**9}
        made.append((time_ns + 30_000_000, message | {"header": {"stamp": stamp, "frame_id": "base"}}))
    return write_mcap(path, {"/joints": ("sensor_msgs/msg/JointState", JOINT_STATE, made)}), "/joints.position"


def big_hdf5(path, rows=400_000):
    with h5py.File(path, "w") as file:
        file.create_dataset("arm/pos", data=np.random.default_rng(0).normal(size=(rows, 24)), chunks=(1000, 24))
        file["arm/time"] = START_NS + np.arange(rows) * 10_000_000
    return path, "arm/pos"


@pytest.mark.parametrize("write", [big_mcap, big_hdf5])
def test_a_hundredth_takes_a_small_part_of_the_memory(tmp_path, write):
    """Catches a span that is only cut from the whole: that grows by as much as the whole does."""
    path, name = write(tmp_path / "big")
    all_rows, whole = rows_and_peak(path, name)
    start_ns = START_NS + all_rows // 2 * 10_000_000
    rows, part = rows_and_peak(path, name, start_ns=start_ns, end_ns=start_ns + all_rows // 100 * 10_000_000)
    assert rows == all_rows // 100
    assert part < whole / 3, (part, whole)
