"""Every reader, on files that were cut, flipped, overwritten and made to lie: one error, or a correct read, soon.

`read_all` asserts what holds for each: any error is a `RecordingError` of one line that names the file, two seconds of
processor time, 200 MB, and no descriptor left. ROBOCACHE_NIGHTLY=1 makes it thorough.

Each of these edits was tried, and made a test fail, here or in test_hostile_extremes.py: no check that a rosbag2 file
ends with a page; PyAV left to fail over a text of a video; values of a Parquet column not counted; times made for
images that were never written.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import IS_NIGHTLY, read_all  # noqa: TID252 -- tests are not an installed package
from .hostile_files import DAMAGE, SWEPT, assert_begins_like, damaged_by, victims  # noqa: TID252

CUTS = range(100) if IS_NIGHTLY else (0, 1, 7, 23, 48, 71, 93, 99)
EXAMPLES = int(os.environ.get("ROBOCACHE_FUZZ_EXAMPLES", "400")) if IS_NIGHTLY else 8


@pytest.fixture(scope="module")
def recordings_of(tmp_path_factory):
    """Each recording is written once; whoever damages a file of it writes it back."""
    made = {}

    def written(name):
        if name not in made:
            path = SWEPT[name][0](tmp_path_factory.mktemp(name))
            made[name] = path, read_all(path, **SWEPT[name][1]), {file: file.read_bytes() for file in victims(path)}
        return made[name]

    return written


@pytest.mark.parametrize("name", SWEPT)
def test_cut_anywhere(recordings_of, name):
    path, clean, files = recordings_of(name)
    assert isinstance(clean, list), clean
    for file, data in files.items():
        try:
            for percent in CUTS:
                file.write_bytes(data[: len(data) * percent // 100])
                found = read_all(path, **SWEPT[name][1])
                if isinstance(found, list):
                    assert_begins_like(found, clean, f"{file} at {percent} %")
        finally:
            file.write_bytes(data)


@pytest.mark.parametrize("name", SWEPT)
def test_damaged_anyhow(recordings_of, name):
    path, _, files = recordings_of(name)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not IS_NIGHTLY,
        database=None,
        suppress_health_check=HealthCheck,
    )
    @given(st.sampled_from(sorted(files)), st.lists(DAMAGE, min_size=1, max_size=3))
    def damaged_once(file, damages):
        data = files[file]
        for damage in damages:
            data = damaged_by(data, damage)
        try:
            file.write_bytes(data)
            read_all(path, **SWEPT[name][1])
        finally:
            file.write_bytes(files[file])

    damaged_once()
