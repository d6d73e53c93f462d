"""What the system does not let be read: one error that names it, never the system's own."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from robocache.errors import RecordingNotFoundError
from robocache.readers import open_recordings
from robocache.readers.sources import recording_sources

from .bag_writing import write_small_mcap  # noqa: TID252 -- tests are not an installed package
from .every_reader import FORMATS  # noqa: TID252

NOBODY = 65534


@pytest.fixture
def folder():
    """One that any user may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def without_privilege():
    """As a user for whom permissions hold: they do not for the superuser."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def use(path, options):
    with open_recordings(path, **options) as opened:
        recording_sources(opened)
        for index in range(len(opened.episode_names)):
            for stream in opened.read_episode(index).streams.values():
                if stream.frames is not None:
                    stream.frames.read(np.array([0]))


@pytest.mark.parametrize("name", [name for name, (write, _) in FORMATS.items() if write is not None])
def test_every_file_and_folder_of_a_recording(folder, name):
    """Fails with a PermissionError where `refusals_named` lets it through, or `is_file` is asked outside of it."""
    write, options = FORMATS[name]
    path = write(folder)
    use(path, options)
    refused = []
    for entry in (path, *sorted(path.rglob("*"))):
        mode = entry.stat().st_mode
        for allowed in (0, 0o444) if entry.is_dir() else (0,):
            try:
                entry.chmod(allowed)
                with without_privilege():
                    use(path, options)
            except RecordingNotFoundError as error:
                refused.append((entry, error))
            finally:
                entry.chmod(mode)
    for entry, error in refused:
        assert "Permission denied" in error.problem
        assert error.remedy == "check its permissions"
        inside = Path(error.path)
        assert inside.is_relative_to(entry) or entry.is_relative_to(inside)
    assert refused


def test_a_folder_that_cannot_be_listed_is_not_left_out_of_the_others(folder):
    """Fails where `os.walk` is not told what to do about errors: such a folder is as if it were empty."""
    write_small_mcap(folder / "a.mcap")
    write_small_mcap(folder / "b.mcap")
    (folder / "lost+found").mkdir(mode=0o700)
    with without_privilege():
        use(folder / "*.mcap", {})
    (folder / "lost+found").chmod(0)
    with without_privilege(), pytest.raises(RecordingNotFoundError, match=r"lost\+found: cannot be read"):
        open_recordings(folder)


def test_links_that_lead_to_themselves(folder):
    """Fails with a RuntimeError where links are followed by `Path.resolve`, and where a chunk that is a link to nowhere
    is taken for one that was never written."""
    write_small_mcap(folder / "a.mcap")
    (folder / "b.mcap").symlink_to("b.mcap")
    with pytest.raises(RecordingNotFoundError, match=r"b\.mcap: there is no such file"):
        open_recordings(folder)
    (folder / "b.mcap").unlink()
    path = FORMATS["zarr_v2"][0](folder)
    chunk = path / "data/action/0.0"
    for target, problem in ((chunk.name, "Too many levels"), ("nowhere", "No such file")):
        chunk.unlink()
        chunk.symlink_to(target)
        with pytest.raises(RecordingNotFoundError, match=rf"{problem}.*; check where its link leads"):
            use(path, {"rate_hz": 10.0})
