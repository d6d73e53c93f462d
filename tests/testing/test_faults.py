"""The faults are what they say, end by themselves, and clean up: a fault that runs away would break its test's test."""

import os
import threading

import psutil
import pytest
import torch

from robocache.errors import ArgumentError, ClosedError, DamagedRecordingError
from robocache.testing import EagerReader, FailingReader, Leak, StallingReader, wait_until

pytestmark = pytest.mark.timeout(60)


def test_an_eager_reader_numbers_its_samples_and_ends_at_the_fuse():
    reader = EagerReader(sample_bytes=16, fuse=5)
    assert [EagerReader.number(sample) for sample in reader] == [0, 1, 2, 3, 4]
    assert reader.has_read == 5
    assert all(sample.nbytes == 16 for sample in EagerReader(sample_bytes=16, fuse=2))


def test_a_sample_too_small_for_its_number_is_refused():
    with pytest.raises(ArgumentError, match=r"^sample_bytes must be 8 or more to hold the sample's number, got 7$"):
        EagerReader(sample_bytes=7)


def test_a_failing_reader_names_its_file_and_offset():
    samples = iter(FailingReader(good=1, sample_bytes=10))
    next(samples)
    with pytest.raises(DamagedRecordingError, match=r"^failing.mcap at byte 10: bytes are missing$"):
        next(samples)


def test_a_stalling_reader_is_stuck_until_it_is_closed():
    failures = []

    def read():
        try:
            list(reader)
        except ClosedError as error:
            failures.append(str(error))

    with StallingReader(good=1) as reader:
        thread = threading.Thread(target=read)
        thread.start()
        wait_until(lambda: reader.is_stuck)
        assert failures == []
        reader.close()
        thread.join(timeout=10)
    assert failures == ["the recording was closed during a read"]


@pytest.mark.parametrize("kind", Leak.KINDS)
def test_a_leak_keeps_one_thing_a_turn_and_lets_go_in_the_end(kind):
    def held():
        return {
            "file": psutil.Process().num_fds,
            "thread": threading.active_count,
            "tensor": lambda: len(leak._kept),
            "object": lambda: len(leak._kept),
        }[kind]()

    leak = Leak(kind, every=2)
    before = held()
    with leak:
        for _ in range(6):
            leak()
        assert held() == before + 3
    assert held() == before


def test_a_leaked_tensor_has_its_size():
    with Leak("tensor", size_bytes=100) as leak:
        leak()
        assert isinstance(leak._kept[0], torch.Tensor)
        assert leak._kept[0].nbytes == 100


def test_an_unknown_leak_is_refused():
    with pytest.raises(ArgumentError, match=r"^kind must be one of tensor, object, file, thread, got 'memory'$"):
        Leak("memory")


def test_waiting_gives_up_at_its_deadline_and_says_for_what():
    with pytest.raises(TimeoutError, match=r"^a full queue did not come within 0\.01 s$"):
        wait_until(lambda: False, deadline_s=0.01, what="a full queue")


def test_waiting_ends_with_the_state():
    read_end, write_end = os.pipe()
    thread = threading.Thread(target=os.write, args=(write_end, b"x"))
    os.set_blocking(read_end, False)
    thread.start()

    def has_come():
        try:
            return os.read(read_end, 1) == b"x"
        except BlockingIOError:
            return False

    wait_until(has_come)
    thread.join()
    os.close(read_end)
    os.close(write_end)
