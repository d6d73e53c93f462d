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


def assert_a_child_reads(read, hold):
    """Assert that a child reads what its parent would, forked while a thread of the parent is in the middle of `hold`.

    `hold` gets two functions: one that says that it has begun, and one that waits until it may go on.
    """
    expected, context = read(), multiprocessing.get_context("fork")
    is_held, may_end = threading.Event(), threading.Event()
    receiver, sender = context.Pipe(duplex=False)
    thread = threading.Thread(target=hold, args=(is_held.set, lambda: may_end.wait(60)))
    process = context.Process(target=lambda: sender.send(read() == expected), daemon=True)
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


def test_a_fork_while_a_thread_reads(tmp_path):
    """Fails where the child waits for the turn of a thread that it does not have."""
    with open_recording(write_small_mcap(tmp_path / "a.mcap")) as recording:
        passing, forking = recording._pass, threading.get_ident()

        def hold(begun, wait):
            def waiting(topics):
                if threading.get_ident() != forking:
                    begun()
                    wait()
                return passing(topics)

            recording._pass = waiting
            content(recording, 0)

        assert_a_child_reads(lambda: content(recording, 0), hold)


def test_a_fork_while_a_thread_reads_one_of_many(tmp_path):
    """Fails where the child waits for a file that a thread of its parent keeps from being closed."""
    for number in range(MAX_OPEN + 1):
        write_small_mcap(tmp_path / f"{number}.mcap", rows=5)
    with open_recordings(tmp_path) as recordings:

        def hold(begun, wait):
            with recordings._recording(0):
                begun()
                wait()

        assert_a_child_reads(lambda: content(recordings, 1), hold)
