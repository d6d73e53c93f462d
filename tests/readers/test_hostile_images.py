"""Recordings with images, damaged or lying about their size: one error that names the file, and soon."""

import h5py
import numpy as np
import pytest

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers import Limits, open_recording

from .bag_writing import IMAGE  # noqa: TID252 -- tests are not an installed package
from .conftest import IS_NIGHTLY, SEEDS, START_NS, damaged, errors_in, read_all, write_mcap  # noqa: TID252
from .every_reader import FORMATS, write_zarr  # noqa: TID252
from .image_recordings import WITH_IMAGES  # noqa: TID252
from .test_images import raw_message  # noqa: TID252
from .test_zarr import changed  # noqa: TID252


def file_with_images(name, folder):
    """What to open, and which file of it holds the images."""
    path = WITH_IMAGES[name][0](folder)
    held = [path] if path.is_file() else [*path.rglob("*.db3"), *path.rglob("*.mp4"), *path.glob("data/*/*")]
    return path, held[0]


@pytest.mark.parametrize("name", WITH_IMAGES)
@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_recordings_with_images(tmp_path, name, kind):
    """Fails with any error but a RecordingError, from an image as from what stands around it."""
    path, file = file_with_images(name, tmp_path)
    data, found = file.read_bytes(), []
    for seed in SEEDS:
        file.write_bytes(damaged(data, kind, seed))
        found.append(read_all(path, **FORMATS[name][1]))
    # The last cut of a video may spare all that its rows show.
    assert len(errors_in(found)) >= (len(SEEDS) - 5 if kind == "truncated" else int(IS_NIGHTLY))


def written_nowhere(path, side):
    """Pictures of gigabytes in 2 kB."""
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = 10.0
        file.create_dataset("img", (3, side, side, 3), np.uint8)
        file["numbers"] = np.zeros(3)
    return path


def declared_by_a_message(path, side):
    message = {**raw_message(0, "rgb8"), "height": side, "width": side}
    return write_mcap(path, {"img": ("sensor_msgs/msg/Image", IMAGE, [(START_NS, message)])})


def declared_by_metadata(path, side):
    folder = write_zarr(path, 2)
    changed(folder, "data/img/.zarray", shape=[70, side, side, 3])
    return folder


@pytest.mark.parametrize("write", [written_nowhere, declared_by_a_message, declared_by_metadata])
def test_images_that_no_memory_holds(tmp_path, write):
    """Fails with a MemoryError or ValueError where room is made for images by what they declare."""
    options = {"rate_hz": 10} if write is declared_by_metadata else {}
    error = read_all(write(tmp_path / "a", 60_000), **options)
    assert isinstance(error, RecordingLimitError)
    assert "declares 60000 x 60000 pixels, and 16777216 are allowed" in str(error)
    (tmp_path / "b").mkdir()
    with open_recording(write(tmp_path / "b" / "a", 2**29), **options) as opened:
        episode = opened.read_episode(0)
    assert "img" in episode.attributes["skipped"]
    assert not any(stream.kind == "image" for stream in episode.streams.values())


def test_more_images_than_there_is_memory_for_their_times(tmp_path):
    """Fails with a MemoryError where times are made for as many images as are declared."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["sampling_rate"] = 1000.0
        file.create_dataset("camera", (2**40, 2, 2, 3), np.uint8)
    error = read_all(path)
    assert isinstance(error, RecordingLimitError)
    assert "declares 1099511627776 rows" in str(error)
    with open_recording(path) as opened:
        assert len(opened.read_episode(0, start_ns=10**9, end_ns=2 * 10**9).streams["camera"].values) == 1000


@pytest.mark.parametrize("name", ["mcap_images", "ros1_images", "rosbag2_images"])
def test_notes_of_images_count_as_held(tmp_path, name):
    """Fails where a bag of millions of empty images takes memory that no limit counts."""
    path, _ = file_with_images(name, tmp_path)
    for bounds in ({}, {"start_ns": 0}):
        with (
            open_recording(path, limits=Limits(episode_bytes=4000)) as opened,
            pytest.raises(RecordingLimitError, match="its streams take"),
        ):
            opened.read_episode(0, **bounds)


def test_a_message_that_is_no_image_any_more(tmp_path):
    path = FORMATS["rosbag2_images"][0](tmp_path)
    file = next(path.rglob("*.db3"))
    with open_recording(path) as opened:
        frames = next(iter(opened.read_episode(0).streams.values())).frames
        file.write_bytes(file.read_bytes()[:5000])
        with pytest.raises(DamagedRecordingError, match=file.name):
            frames.read(np.array([0]))
