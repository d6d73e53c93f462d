"""For every test of this room: whoever starts a thread ends it."""

import threading

import pytest


@pytest.fixture(autouse=True)
def _every_thread_is_joined():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
