"""Clouds stay in their file until they are sliced: numpy's own results, in the memory of a few scans."""

import struct
import tracemalloc

import numpy as np
import pytest
import torch  # noqa: F401  what is imported while memory is watched would be counted
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer

import robocache as rc
from robocache.errors import ClosedError, RecordingLimitError
from robocache.readers import Limits, open_recording, stream_statistics
from robocache.readers.stored_points import StoredPoints, scan_runs

from .conftest import POINT_CLOUD, START_NS, cloud_message, write_mcap  # noqa: TID252

COUNTS = np.array([3, 0, 5, 1, 0, 4])
OFFSETS = np.concatenate([[0], np.cumsum(COUNTS)])
WHOLE = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)
NUMBERS = np.array([5, 0, 2, 1, 3, 4])  # where each scan lies in the file
MB = 10**6
SCAN_POINTS, SCANS, PERIOD_NS = 20_000, 300, 100_000_000  # 24 MB a minute at 10 Hz is what small lidars give


def stored(asked=None):
    def fetch(numbers):
        if asked is not None:
            asked.append(numbers.tolist())
        for number in numbers.tolist():
            scan = NUMBERS.tolist().index(number)
            yield WHOLE[OFFSETS[scan] : OFFSETS[scan + 1]]

    return StoredPoints("a file", NUMBERS, OFFSETS, WHOLE.dtype, 4, fetch, Limits())


PLACES = st.one_of(st.none(), st.integers(-15, 15))
ROWS = st.one_of(
    st.builds(slice, PLACES, PLACES),
    st.builds(slice, PLACES, PLACES, st.sampled_from([1, 2, -1])),
    st.integers(-13, 12),
    st.lists(st.integers(0, 12), max_size=4),
    st.just(Ellipsis),
)
KEYS = st.one_of(ROWS, st.tuples(ROWS, st.one_of(st.integers(0, 3), st.builds(slice, st.integers(0, 4)))))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(KEYS)
def test_every_key_gives_what_numpy_gives(key):
    """Fails when a scan at the edge of a slice is cut wrongly, or scans are put in the file's order."""
    try:
        expected = WHOLE[key]
    except IndexError:
        with pytest.raises(IndexError):
            stored()[key]
        return
    np.testing.assert_array_equal(stored()[key], expected)


def test_numpy_takes_it_for_an_array():
    points = stored()
    assert (points.shape, points.ndim, points.size, len(points)) == (WHOLE.shape, 2, WHOLE.size, len(WHOLE))
    np.testing.assert_array_equal(np.asarray(points, np.float64), WHOLE.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(points), np.isnan(WHOLE))
    mask = WHOLE[:, 0] > 0
    np.testing.assert_array_equal(points[mask], WHOLE[mask])
    with pytest.raises(IndexError):
        points[13]


def test_only_the_scans_of_a_slice_are_read_and_in_the_order_of_the_file():
    """Fails when a chunk would be read for each of its scans, or all scans for one."""
    asked = []
    points = stored(asked)
    np.testing.assert_array_equal(points[2:9], WHOLE[2:9])
    np.testing.assert_array_equal(points.ordered(np.array([3, 2]))[:], np.concatenate([WHOLE[8:9], WHOLE[3:8]]))
    assert asked == [[1, 2, 5], [1, 2]]


def test_runs_of_scans_cover_those_that_are_wanted_once():
    for wanted in ([], [0], [0, 1, 2, 3, 4, 5], [0, 2, 3, 5]):
        for points in (1, 4, 100):
            runs = list(scan_runs(np.array(wanted, np.int64), OFFSETS, points))
            assert [scan for first, after in runs for scan in range(first, after)] == wanted
            assert all(OFFSETS[after] - OFFSETS[first] <= points or after == first + 1 for first, after in runs)
    assert list(scan_runs(np.arange(6), OFFSETS, 100)) == [(0, 6)]


@pytest.fixture(scope="module")
def lidar(tmp_path_factory):
    """120 MB of points in 30 seconds; the bytes of each scan are those of one that the library encoded, shuffled."""
    folder = tmp_path_factory.mktemp("lidar")
    random = np.random.default_rng(1)
    cloud = np.c_[random.normal(size=(SCAN_POINTS, 3)), np.arange(SCAN_POINTS) % 16].astype(np.float32)
    topics = {"/points": ("sensor_msgs/msg/PointCloud2", POINT_CLOUD, [(START_NS, cloud_message(START_NS, cloud))])}
    with write_mcap(folder / "one.mcap", topics).open("rb") as file:
        schema, channel, message = next(make_reader(file).iter_messages())
    start = len(message.data) - 20 * SCAN_POINTS - 1  # `is_dense` is the last byte
    points = np.frombuffer(message.data, np.uint8, 20 * SCAN_POINTS, start).reshape(SCAN_POINTS, 20)
    path = folder / "lidar.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        number = writer.register_channel(
            channel.topic, channel.message_encoding, writer.register_schema(schema.name, schema.encoding, schema.data)
        )
        for scan in range(SCANS):
            time_ns = START_NS + scan * PERIOD_NS
            data = bytearray(message.data)
            struct.pack_into("<iI", data, 4, time_ns // 10**9, time_ns % 10**9)
            data[start:-1] = np.roll(points, scan, axis=0).tobytes()
            writer.add_message(number, time_ns, bytes(data), time_ns)
        writer.finish()
    return path, cloud


def peak_bytes(work):
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_recording_is_read_in_the_memory_of_a_few_scans(lidar):
    """Fails when a pass over the file, a span, one scan, or the count of NaNs holds all points."""
    path, cloud = lidar

    def read():
        with open_recording(path) as opened:
            stream = opened.read_episode(0).streams["/points.points"]
            part = opened.read_episode(0, start_ns=START_NS + 2 * PERIOD_NS, end_ns=START_NS + 200 * PERIOD_NS)
            cut = part.streams["/points.points"]
            scan = cut.values[cut.offsets[5] : cut.offsets[6]]
            return stream.values.shape, cut.values.shape, scan, stream_statistics(stream).nan_fraction

    (whole, part, scan, nan_fraction), peak = peak_bytes(read)
    assert (whole, part) == ((SCANS * SCAN_POINTS, 4), (198 * SCAN_POINTS, 4))
    np.testing.assert_array_equal(scan, np.roll(cloud, 7, axis=0))
    assert nan_fraction == 0
    assert peak < 60 * MB


def test_a_cache_of_more_points_than_memory_is_built(lidar, tmp_path):
    """Fails when the points of an episode are put together before they are written."""
    path, cloud = lidar

    def build():
        return rc.open(path, rc.Align(rc.Rate(10.0)), cache=tmp_path, workers=1).build()

    built, peak = peak_bytes(build)
    assert built.size_bytes > SCANS * SCAN_POINTS * 16
    assert peak < 60 * MB
    with rc.open(path, rc.Align(rc.Rate(10.0)), cache=tmp_path).open_episode(0) as arrays:
        points, offsets = arrays.data["/points.points"], arrays.offsets["/points.points"]
        for scan in (0, 150, SCANS - 1):
            np.testing.assert_array_equal(points[offsets[scan] : offsets[scan + 1]], np.roll(cloud, scan, axis=0))


def test_all_points_at_once_are_refused_beyond_the_limit(lidar):
    path, _ = lidar
    with open_recording(path, limits=Limits(episode_bytes=MB)) as opened:
        stream = opened.read_episode(0).streams["/points.points"]
        assert len(stream.values[:1000]) == 1000
        with pytest.raises(RecordingLimitError, match="6000000 points take 96000000 bytes") as error:
            np.asarray(stream.values)
    assert str(path) in str(error.value)
    assert "read fewer scans at once" in str(error.value)


def test_points_of_a_recording_that_is_closed_are_refused(lidar):
    with open_recording(lidar[0]) as opened:
        stream = opened.read_episode(0).streams["/points.points"]
    with pytest.raises(ClosedError, match="is closed; open it again"):
        stream.values[:1]
