"""Threads that read from one recording at the same time."""

import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robocache.readers import open_recording, open_recordings
from robocache.readers.several import MAX_OPEN

from .bag_writing import write_small_mcap  # noqa: TID252 -- tests are not an installed package
from .every_reader import FORMATS, opener  # noqa: TID252


@pytest.fixture
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def content(recording, index, **span):
    streams = recording.read_episode(index, **span).streams.values()
    return [
        (
            stream.name,
            stream.times_ns.tobytes(),
            np.asarray(stream.values).tobytes(),
            stream.frames.read(stream.values[:1, 0].astype(np.int64)).tobytes() if stream.frames is not None else b"",
        )
        for stream in streams
    ]


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("name", FORMATS)
def test_threads_read_what_one_thread_does(tmp_path, name):
    """Fails where two passes over an MCAP file or a bag share its position: intact files are called damaged."""
    with opener(name, tmp_path)() as recording:
        last = len(recording.episode_names) - 1
        whole = [content(recording, index) for index in (0, last)]
        first = next(iter(recording.read_episode(0).streams.values()))
        span = {"start_ns": int(first.times_ns[len(first.times_ns) // 2])}
        part = content(recording, 0, **span)
        with ThreadPoolExecutor(4) as threads:
            of_all = [threads.submit(content, recording, index) for index in (0, last) * 6]
            of_part = [threads.submit(content, recording, 0, **span) for _ in range(6)]
            assert [one.result(60) for one in of_all] == whole * 6
            assert [one.result(60) for one in of_part] == [part] * 6


def test_a_fork_while_a_thread_reads(tmp_path):
    """Fails where the child waits for the turn of a thread that it does not have."""
    context = multiprocessing.get_context("fork")
    with open_recording(write_small_mcap(tmp_path / "a.mcap")) as recording:
        expected = content(recording, 0)
        receiver, sender = context.Pipe(duplex=False)
        passing = recording._pass

        def forking(topics):
            process = context.Process(target=lambda: sender.send(content(recording, 0) == expected), daemon=True)
            recording._pass = passing
            process.start()
            try:
                assert receiver.poll(60)
                assert receiver.recv()
            finally:
                process.kill()
                process.join()
            return passing(topics)

        recording._pass = forking  # a fork in the middle of a reading
        assert content(recording, 0) == expected


def test_a_fork_while_a_thread_reads_one_of_many(tmp_path):
    """Fails where the child waits for a file that a thread of its parent keeps from being closed."""
    context = multiprocessing.get_context("fork")
    for number in range(MAX_OPEN + 1):
        write_small_mcap(tmp_path / f"{number}.mcap", rows=5)
    is_held, may_end = threading.Event(), threading.Event()
    with open_recordings(tmp_path) as recordings:
        expected = content(recordings, 1)
        receiver, sender = context.Pipe(duplex=False)

        def hold():
            with recordings._recording(0):
                is_held.set()
                may_end.wait(60)

        thread = threading.Thread(target=hold)
        process = context.Process(target=lambda: sender.send(content(recordings, 1) == expected), daemon=True)
        thread.start()
        try:
            assert is_held.wait(60)
            process.start()
            assert receiver.poll(30)
            assert receiver.recv()
        finally:
            may_end.set()
            thread.join()
            process.kill()
            process.join()
