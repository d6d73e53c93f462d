"""Worker processes that die: how they ended is said, whenever it was."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from robocache.stress.settings import Settings
from robocache.stress.worker_processes import worker_processes

pytestmark = [pytest.mark.slow, pytest.mark.stress]


def test_a_worker_that_dies_before_the_last_piece_is_handed_over(monkeypatch):
    """Fails where only a piece's result may tell: `submit` then raises through the scenario."""
    submit = ProcessPoolExecutor.submit

    def killing(pool, *arguments):
        future = submit(pool, *arguments)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.5)  # until the pool knows
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", killing)
    assert worker_processes(Settings(seconds=1)).failures == ("worker processes died: signal 9",)
