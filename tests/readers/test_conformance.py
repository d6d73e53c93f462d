"""Every reader of ours keeps the promises that `check_reader` asks for."""

import pytest

from robocache.readers import open_recordings
from robocache.testing import check_reader

from .every_reader import FORMATS, opener, write_hdf5  # noqa: TID252 -- tests are not an installed package


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_of_ours_keeps_its_promises(tmp_path, name):
    assert check_reader(opener(name, tmp_path)).samples > 0


def test_several_recordings_keep_them_too(tmp_path):
    for number in range(3):
        write_hdf5(tmp_path / f"run{number}.h5", rows=50)
    assert check_reader(lambda: open_recordings(tmp_path)).episodes == 3
