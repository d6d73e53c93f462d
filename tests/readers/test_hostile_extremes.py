"""Small files that ask for the impossible, read in a process of their own, where all of its memory is counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import IS_NIGHTLY, PEAK_BYTES, SECONDS  # noqa: TID252 -- tests are not an installed package
from .hostile_extremes import EXTREMES, SLOW  # noqa: TID252
from .hostile_files import SWEPT  # noqa: TID252
from .hostile_parquet import write_whole  # noqa: TID252

PROGRAM = Path(__file__).with_name("reading_process.py")
WARM = ("mcap", "ros1", "hdf5", "zarr_v2", "lerobot_video", "rlds", "rosbag2")


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory):
    """Asks one process after the other; the first thing it does is to read a good file of each format."""
    folder = tmp_path_factory.mktemp("good")
    good = []
    for name in WARM:
        (folder / name).mkdir()
        good.append((str(SWEPT[name][0](folder / name)), SWEPT[name][1]))
    good.append((str(write_whole(folder / "whole")), {"drop_in": True}))
    command = [sys.executable, str(PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(path, options):
            process.stdin.write(json.dumps([str(path), options, good]) + "\n")
            process.stdin.flush()
            good.clear()
            line = process.stdout.readline()
            assert line, f"the process ended with {process.wait(60)} at {path}"
            return json.loads(line)

        yield ask
        process.stdin.close()


@pytest.mark.parametrize("name", [name for name in EXTREMES if IS_NIGHTLY or name not in SLOW])
def test_the_impossible_is_refused(tmp_path, outcome_of, name):
    write, options, said = EXTREMES[name]
    path = write(tmp_path)
    found = outcome_of(path, options)
    assert found["kind"] != "other", found["text"]
    assert found["seconds"] < SECONDS
    assert found["megabytes"] < PEAK_BYTES / 2**20
    assert found["files_left"] == 0
    assert not (tmp_path / "harm").exists()
    if said is None:
        assert found["kind"] == ""
    else:
        assert said in found["text"]
        assert tmp_path.name in found["text"]
