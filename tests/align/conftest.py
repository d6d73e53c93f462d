from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "recordings"


@pytest.fixture(scope="session")
def recordings():
    folder = Path(os.environ.get("ROBOCACHE_RECORDINGS", BESIDE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}; set ROBOCACHE_RECORDINGS")
    return folder
