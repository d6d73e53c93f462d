from __future__ import annotations

import shutil

import pytest

from .world import make_world  # noqa: TID252 -- tests are not an installed package


@pytest.fixture(scope="session")
def made_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.fixture
def world(made_world, tmp_path, monkeypatch):
    """The working folder in which a document runs: a copy, to which it adds what it writes."""
    folder = tmp_path / "world"
    shutil.copytree(made_world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return folder
