"""Every reader of ours keeps the promises that `check_reader` asks for."""

import pytest

from robocache.readers import open_recordings
from robocache.testing import check_reader

from .every_reader import FORMATS, opener, write_hdf5  # noqa: TID252 -- tests are not an installed package
from .image_recordings import WITH_IMAGES, write_hdf5_images, write_lerobot_video  # noqa: TID252


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_of_ours_keeps_its_promises(tmp_path, name):
    assert check_reader(opener(name, tmp_path)).samples > 0


@pytest.mark.parametrize("name", [*WITH_IMAGES, "zarr_v2", "zarr_v3_zip"])
def test_images_were_among_them(tmp_path, name):
    with opener(name, tmp_path)() as opened:
        images = [stream for stream in opened.read_episode(0).streams.values() if stream.frames is not None]
    assert images
    assert all(len(stream.times_ns) == len(stream.frames) for stream in images)


def test_several_recordings_with_images_keep_them_too(tmp_path):
    write_hdf5_images(tmp_path / "a.h5")
    write_lerobot_video(tmp_path / "b")
    assert check_reader(lambda: open_recordings(tmp_path)).episodes == 3


def test_several_recordings_keep_them_too(tmp_path):
    for number in range(3):
        write_hdf5(tmp_path / f"run{number}.h5", rows=50)
    assert check_reader(lambda: open_recordings(tmp_path)).episodes == 3
