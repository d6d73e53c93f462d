"""Streams that an episode does not have."""

from __future__ import annotations

import numpy as np
import pytest

from robocache.align import Align, Follow, From, Rate, align_episode
from robocache.errors import ArgumentError, UnknownStreamError
from robocache.policies import Previous, Window
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


class Grey:
    shape = (4, 6, 3)

    def __len__(self):
        return 20

    def read(self, numbers, *, size=None):
        return np.full((len(numbers), *(size or (4, 6)), 3), 128, np.uint8)


def recorded(name, values, **fields):
    count = len(values) if "offsets" not in fields else len(fields["offsets"]) - 1
    times_ns = EPOCH + np.arange(count, dtype=np.int64) * 10 * MS
    return RecordedStream(name, values, times_ns, {"header": times_ns}, "header", **fields)


@pytest.fixture
def streams():
    return {
        "arm": recorded("arm", np.ones((20, 3), np.float64)),
        "force": recorded("force", np.ones((20, 2), np.float32), columns=("x", "y")),
        "pose": recorded("pose", np.ones((20, 4), np.float64), kind="quaternion_wxyz"),
        "state": recorded("state", np.ones((20, 1), np.int16)),
        "imu": recorded("imu", np.ones((20, 6), np.float32)),
        "cam": recorded("cam", np.arange(20)[:, None], kind="image", frames=Grey()),
        "lidar": recorded("lidar", np.ones((40, 3), np.float32), kind="points", offsets=np.arange(21) * 2),
    }


@pytest.fixture
def spec(streams):
    policies = {"imu": Window("20ms", 2), "state": Previous()}
    return Align(Rate(100), {name: From(name, policies.get(name), optional=name != "arm") for name in streams})


def test_absent_streams_have_the_shape_of_the_others_and_are_never_valid(streams, spec):
    """Fails when a stand-in counts as a sample (without the line that clears `valid`, the first frame does), or when
    dtype, width or columns are not those of the stream it stands for."""
    full = align_episode(Episode("full", streams, "run.mcap"), spec)
    bare = align_episode(Episode("bare", {"arm": streams["arm"]}, "run.mcap"), spec, like=streams)
    assert full.absent == ()
    assert set(bare.absent) == set(streams) - {"arm"}
    assert list(bare.data) == list(full.data)
    assert (bare.slices, bare.columns) == (full.slices, full.columns)
    assert bare.fused.shape == full.fused.shape
    for name in full.data:
        assert (bare.data[name].shape, bare.data[name].dtype) == (full.data[name].shape, full.data[name].dtype)
    for name in bare.absent:
        assert bare.valid[name].shape == full.valid[name].shape
        assert not bare.valid[name].any()
        assert bool((bare.age_ns[name] == -1).all())
        assert full.valid[name].any()
    assert bool(bare.data["force"].isnan().all())
    assert not bare.data["state"].any()
    assert bare.valid["arm"].all()
    assert len(bare.scans["lidar"].points(3)) == 0
    assert bare.scans["lidar"].points(3).shape[1] == 3
    assert not bare.images["cam"].read(slice(0, 3)).any()
    assert bare.images["cam"].shape == full.images["cam"].shape


def test_an_absent_stream_that_is_like_nothing_known_is_left_out_and_listed(streams, spec):
    bare = align_episode(Episode("bare", {"arm": streams["arm"]}, "run.mcap"), spec)
    assert list(bare.valid) == ["arm"]
    assert len(bare.absent) == len(streams) - 1


def test_what_must_be_there_must_be_there(streams, spec):
    with pytest.raises(UnknownStreamError, match="no stream 'arm'"):
        align_episode(Episode("bare", {"imu": streams["imu"]}, "run.mcap"), spec, like=streams)
    follow = Align(Follow("cam"), spec.streams)
    with pytest.raises(ArgumentError, match="the clock follows 'cam', which bare does not have; leave the episode out"):
        align_episode(Episode("bare", {"arm": streams["arm"]}, "run.mcap"), follow, like=streams)
    with pytest.raises(ArgumentError, match="none of the streams is there: 'nothing'; name one that is"):
        align_episode(Episode("bare", streams, "run.mcap"), Align(Rate(5), {"n": From("nothing", optional=True)}))
