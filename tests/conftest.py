"""The real recordings, for the tests that need them."""

import os
from pathlib import Path

import pytest

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "recordings"


class Recordings:
    """A folder of recordings, of which a machine may have some only."""

    def __init__(self, folder):
        self._folder = folder

    def __truediv__(self, name):
        """The path of a recording, or a skip that says which one is absent."""
        path = self._folder / name
        if not path.exists():
            pytest.skip(f"{path} is absent; set ROBOCACHE_RECORDINGS to the folder with the real recordings")
        return path


@pytest.fixture(scope="session")
def recordings():
    return Recordings(Path(os.environ.get("ROBOCACHE_RECORDINGS", BESIDE_REPOSITORY)))
