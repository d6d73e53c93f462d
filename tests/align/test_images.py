"""Images on a clock, what becomes of them, and streams that an episode does not have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import robocache as rc
from robocache.align import Align, Follow, From, Rate, Resize, Voxelize, align_episode
from robocache.errors import ArgumentError
from robocache.policies import Linear, Nearest, Previous, Window
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000


class Numbered:
    """Images whose every pixel is the image's number; keeps what was asked for."""

    def __init__(self, count, shape=(4, 6, 3)):
        self.count, self.shape, self.asked = count, shape, []

    def __len__(self):
        return self.count

    def read(self, numbers, *, size=None):
        self.asked.append((numbers.tolist(), size))
        height, width = size or self.shape[:2]
        return np.broadcast_to(numbers[:, None, None, None], (len(numbers), height, width, 3)).astype(np.uint8)


def recorded(name, times_ns, values, **fields):
    times_ns = np.asarray(times_ns, dtype=np.int64)
    return RecordedStream(name, values, times_ns, {"header": times_ns}, "header", **fields)


def camera(times_ns, first=100):
    """The numbers are not the rows: frame k of the stream is image first + k of the file."""
    numbers = np.arange(first, first + len(times_ns))[:, None]
    return recorded("cam", times_ns, numbers, kind="image", frames=Numbered(first + len(times_ns)))


def cloud(count=4):
    offsets = np.arange(count + 1) * 2
    return recorded("lidar", EPOCH + np.arange(count) * 50 * MS, np.ones((2 * count, 3), np.float32), kind="points",
                    offsets=offsets)  # fmt: skip


def arm(count=40, dtype=np.float32):
    return recorded("arm", EPOCH + np.arange(count) * 5 * MS, np.ones((count, 2), dtype), columns=("a", "b"))


def episode(*streams):
    return Episode("e0", {stream.name: stream for stream in streams}, "run.mcap")


@pytest.mark.parametrize(("policy", "direction"), [(Previous(), "backward"), (Nearest(), "nearest")])
def test_a_frame_uses_the_image_that_pandas_merge_asof_finds(policy, direction):
    """Fails when rows are taken for numbers, or a policy for the other."""
    times = EPOCH + np.cumsum(np.random.default_rng(0).integers(21, 45, 30)) * MS
    aligned = align_episode(episode(camera(times), arm(250)), Align(Rate(50), {"i": From("cam", policy)}))
    right = pd.DataFrame({"t": times, "number": np.arange(100, 130)})
    want = pd.merge_asof(pd.DataFrame({"t": aligned.times_ns}), right, on="t", direction=direction)["number"]
    images = aligned.images["i"].read()
    assert images.shape == (len(want), 4, 6, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], want)
    assert list(aligned.data) == []
    assert aligned.fused.shape[1] == 0


def test_images_are_nearest_within_one_and_a_half_periods_unless_told_otherwise():
    times = EPOCH + np.delete(np.arange(30), np.s_[10:20]) * 40 * MS
    aligned = align_episode(episode(camera(times)), Align(Rate(100)))
    assert aligned.policies["cam"] == Nearest(max_gap=60 * MS)
    distance = np.abs(aligned.times_ns[:, None] - times).min(axis=1)
    np.testing.assert_array_equal(aligned.valid["cam"], distance <= 60 * MS)
    np.testing.assert_array_equal(np.abs(aligned.age_ns["cam"]), distance)


def test_reading_decodes_only_the_images_asked_for_each_once_and_resized():
    """Fails when reading decodes an image twice, or all of them."""
    stream = camera(EPOCH + np.arange(10) * 40 * MS)
    spec = Align(Rate(50), {"i": From("cam", Previous(), then=Resize(2, 3))})
    images = align_episode(episode(stream), spec).images["i"]
    assert images.shape == (2, 3, 3)
    assert stream.frames.asked == []
    got = images.read(np.array([5, 4, 4, 1]))
    assert stream.frames.asked == [([100, 102], (2, 3))]
    assert got.shape == (4, 2, 3, 3)
    assert got[:, 0, 0, 0].tolist() == [102, 102, 102, 100]
    assert images.read(slice(0, 4)).shape == (4, 2, 3, 3)


def test_a_clock_may_follow_images():
    times = EPOCH + np.arange(10) * 40 * MS
    streams = {"i": From("cam", then=Resize(2, 2), latency="3ms"), "arm": From("arm", horizon=16)}
    aligned = align_episode(episode(camera(times), arm(100)), Align(Follow("i"), streams))
    np.testing.assert_array_equal(aligned.times_ns, times[1:] - 3 * MS)
    np.testing.assert_array_equal(aligned.images["i"].row, np.arange(1, 10))
    assert aligned.horizons == {"i": 1, "arm": 16}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (From("cam", Linear()), r"^streams\['x'\] holds images, between .*: use Nearest or Previous, not Linear$"),
        (From("cam", Window("1s", 2)), r"use Nearest or Previous, not Window$"),
        (From("lidar", Window("1s", 2)), r"is a point cloud, .* use Nearest or Previous, not Window$"),
        (From("ticks", Linear()), r"^streams\['x'\] holds int64, .* use Nearest, Previous or Window, not Linear$"),
        (From("arm", then=Resize(2, 2)), r"^streams\['x'\] holds float32 numbers, and Resize is for images: leave "),
        (
            From("cam", then=Voxelize(1, range=((0, 0, 0), (1, 1, 1)))),
            r"holds images, and Voxelize is for point clou",
        ),
        (From("lidar", then=Resize(2, 2)), r"holds point clouds, and Resize is for images"),
        (
            From("lidar", then=Voxelize(1, range=((0, 0, 0), (1, 1, 1)), mode="mean")),
            r"no feature: use mode='occupancy' or 'count'$",
        ),
    ],
)
def test_what_does_not_fit_a_stream_is_refused_with_its_name_and_the_way_out(source, message):
    ticks = recorded("ticks", EPOCH + np.arange(4) * MS, np.arange(4)[:, None])
    whole = episode(camera(EPOCH + np.arange(4) * 40 * MS), cloud(), arm(), ticks)
    with pytest.raises(ArgumentError, match=message):
        align_episode(whole, Align(Rate(50), {"x": source}))


def test_a_voxel_range_becomes_the_grid_that_covers_it():
    """Fails when 1.1 m / 0.1 m, which is 11.000000000000005 in floats, becomes 12 voxels."""
    box = rc.Voxelize(size=0.1, range=((-6.4, -6.4, -6.4), (6.4, 6.4, -5.3)), mode="count")
    assert box.arguments["grid_size"] == (128, 128, 11)
    assert box.arguments["grid_min"] == (-6.4, -6.4, -6.4)
    grid = rc.voxelize_pointcloud(torch.tensor([[6.39, 0.0, -5.35]]), **box.arguments)
    assert int(grid.sum()) == 1
    same = rc.Voxelize(size=0.1, grid_min=(-6.4, -6.4, -6.4), grid_size=(128, 128, 11), mode="count")
    assert same.arguments == box.arguments
    aligned = align_episode(episode(cloud()), Align(Rate(20), {"v": From("lidar", Previous(), then=box)}))
    assert aligned.scans["v"].voxelize == box


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0.1}, "either range, or grid_min and grid_size"),
        ({"size": 0.1, "grid_min": (0, 0, 0)}, "either range, .* got range=None, grid_min"),
        ({"size": 0, "range": ((0, 0, 0), (1, 1, 1))}, "size must be greater than 0, got 0"),
        ({"size": float("nan"), "range": ((0, 0, 0), (1, 1, 1))}, "size must be three finite numbers"),
        ({"size": 1, "range": ((0, 0, 0), (1, 0, 1))}, "range must end above where it begins"),
        ({"size": 1, "range": (0, 1)}, "range's lowest corner must be three finite numbers, got 0"),
        ({"size": 1e-9, "range": ((0, 0, 0), (1, 1, 1))}, "more than 2\\*\\*31"),
        ({"size": 1, "grid_min": (0, 0, 0), "grid_size": (2, 0, 2)}, "grid_size must be three whole numbers"),
        ({"size": 1, "grid_min": (0, 0, 0), "grid_size": (10**400, 1, 1)}, "fits no memory"),
        ({"size": 1, "range": ((0, 0, 0), (1, 1, 1)), "mode": "median"}, "mode must be one of occupancy, "),
        ({"size": 1, "range": ((0, 0, 0), (1, 1, 1)), "outside": "keep"}, "outside must be 'drop' or 'clamp'"),
    ],
)
def test_a_grid_that_cannot_be_right_says_what_is_wrong(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Voxelize(**arguments)


@pytest.mark.parametrize("size", [(0, 5), (5, 2.0), (True, 5), (5, 10**6)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ArgumentError, match="must be a whole number from 1 to 65536"):
        Resize(*size)
