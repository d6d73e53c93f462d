"""Videos of aligned images, as PyAV decodes them, and their metadata beside that of a dataset that LeRobot wrote."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from robocache.align import Align, From, Rate, Resize, align_episode
from robocache.align.lerobot import LeRobotWriter, feature_name
from robocache.errors import ArgumentError
from robocache.records import Episode, RecordedStream

VIDEO = "videos/observation.images.top/chunk-000/file-{:03d}.mp4"


class Grey:
    """Image k is of one grey, 5 k + 20."""

    shape = (48, 64, 3)

    def __len__(self):
        return 40

    def read(self, numbers, *, size=None):
        greys = (5 * numbers + 20).astype(np.uint8)
        return np.broadcast_to(greys[:, None, None, None], (len(numbers), *(size or (48, 64)), 3))


def episode(first=0, count=20):
    times = np.arange(count, dtype=np.int64) * 10**8
    numbers = np.arange(first, first + count)[:, None]
    camera = RecordedStream("/top", numbers, times, {"log": times}, "log", kind="image", frames=Grey())
    arm = RecordedStream("arm", np.ones((count, 2)), times, {"log": times}, "log")
    return Episode("e", {"/top": camera, "arm": arm}, "run.mcap")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    spec = Align(Rate(10), {"observation.images.top": From("/top", then=Resize(32, 36)), "arm": From("arm")})
    with LeRobotWriter(folder, Fraction(10)) as writer:
        for first in (0, 20):
            writer.add(align_episode(episode(first), spec))
    return folder


def test_frame_k_of_an_episodes_video_is_image_k(dataset):
    """Fails when a piece is lost or written twice, a size is not that of `then`, or the rate is wrong."""
    for index in (0, 1):
        with av.open(str(dataset / VIDEO.format(index))) as container:
            frames = list(container.decode(video=0))
        greys = [int(frame.to_ndarray(format="rgb24")[16, 18, 0]) for frame in frames]
        np.testing.assert_allclose(greys, 5 * np.arange(20 * index, 20 * index + 20) + 20, atol=3)
        assert (frames[0].height, frames[0].width) == (32, 36)
        np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 10, atol=1e-6)


def test_the_metadata_have_lerobots_keys(dataset, recordings):
    real = json.loads((recordings / "g1_lerobot_v30/meta/info.json").read_text())
    theirs = real["features"]["observation.images.cam_high"]
    mine = json.loads((dataset / "meta/info.json").read_text())["features"]["observation.images.top"]
    assert set(theirs) <= set(mine)
    assert set(theirs["info"]) == set(mine["info"])
    assert (mine["dtype"], mine["shape"], mine["names"]) == ("video", [32, 36, 3], theirs["names"])
    schema = pq.read_schema(recordings / "g1_lerobot_v30/meta/episodes/chunk-000/file-000.parquet")
    rows = pd.read_parquet(dataset / "meta/episodes/chunk-000/file-000.parquet")
    wanted = {name.replace("cam_high", "top") for name in schema.names if "images" in name}
    assert wanted <= set(rows.columns)
    assert rows["videos/observation.images.top/file_index"].tolist() == [0, 1]
    assert rows["videos/observation.images.top/to_timestamp"].tolist() == [2.0, 2.0]
    assert "observation.images.top" not in pd.read_parquet(dataset / "data/chunk-000/file-000.parquet")


def test_the_statistics_are_those_of_the_pixels(dataset):
    found = json.loads((dataset / "meta/stats.json").read_text())["observation.images.top"]
    greys = (5 * np.arange(40) + 20) / 255
    for key, want in {"min": greys.min(), "max": greys.max(), "mean": greys.mean(), "std": greys.std()}.items():
        np.testing.assert_allclose(found[key], np.full((3, 1, 1), want), rtol=1e-9)
    assert found["count"] == [40]


def test_odd_sides_are_refused_with_the_way_out(tmp_path):
    spec = Align(Rate(10), {"i": From("/top", then=Resize(31, 36))})
    writer = LeRobotWriter(tmp_path, Fraction(10))
    with pytest.raises(ArgumentError, match=r"'i' are 31 x 36, and .* must be even: say then=Resize\(32, 36\)$"):
        writer.add(align_episode(episode(), spec))


def test_images_lie_under_observation_images():
    names = ["/camera/image_raw", "observation.images.top", "images.top", "observation.cam"]
    want = ["camera_image_raw", "top", "top", "cam"]
    assert [feature_name(name, is_image=True) for name in names] == [f"observation.images.{name}" for name in want]
