"""The prefetcher: bounded in bytes, in order, every exception delivered, joined on every way out."""

import gc
import itertools
import weakref

import pytest
import torch

from robocache.errors import ArgumentError, BudgetError, ClosedError, DamagedRecordingError
from robocache.loader.budget import ByteBudget
from robocache.loader.prefetch import Prefetcher
from robocache.testing import EagerReader, FailingReader, wait_until

pytestmark = pytest.mark.timeout(60)
SAMPLE_BYTES, ROOM_FOR = 4_000, 4


def prefetch(samples, *, limit_bytes=ROOM_FOR * SAMPLE_BYTES, **rest):
    budget = ByteBudget(limit_bytes)
    return budget, Prefetcher(samples, size_of=lambda sample: sample.nbytes, budget=budget, **rest)


def test_every_sample_comes_once_and_in_order():
    budget, samples = prefetch(EagerReader(fuse=200))
    with samples:
        assert [EagerReader.number(sample) for sample in samples] == list(range(200))
    seen = samples.statistics()
    assert (seen.has_read, seen.has_delivered, seen.held_bytes, seen.is_reading) == (200, 200, 0, False)
    assert budget.statistics().used_bytes == 0


def test_a_stalled_consumer_stops_the_reader():
    reader = EagerReader()
    budget, samples = prefetch(reader)
    with samples:
        taken = list(itertools.islice(samples, 3))
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        assert reader.has_read == len(taken) + ROOM_FOR + 1  # the last one waits for room
        assert samples.statistics().held_bytes == ROOM_FOR * SAMPLE_BYTES
    assert budget.statistics().peak_bytes == ROOM_FOR * SAMPLE_BYTES


def test_the_reader_keeps_no_sample_beyond_the_one_that_waits():
    alive = weakref.WeakSet()

    def read():
        for sample in EagerReader():
            alive.add(sample)
            yield sample
            del sample

    budget, samples = prefetch(read())
    with samples:
        for _ in range(10):
            next(samples)
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        assert len(alive) == ROOM_FOR + 1
    gc.collect()
    assert len(alive) == 0


def test_a_failing_reader_fails_the_loop_after_the_samples_it_read():
    _, samples = prefetch(FailingReader(good=2))
    with samples:
        assert EagerReader.number(next(samples)) == 0
        assert EagerReader.number(next(samples)) == 1
        with pytest.raises(DamagedRecordingError, match=r"^failing.mcap at byte 8000: bytes are missing$") as caught:
            next(samples)
        assert "__iter__" in [entry.name for entry in caught.traceback]  # the reader's own frames
        with pytest.raises(ClosedError, match="the reader failed before, with DamagedRecordingError"):
            next(samples)


def test_a_failure_nobody_came_to_is_still_told():
    _, samples = prefetch(FailingReader(good=2))
    with samples:
        wait_until(lambda: not samples.statistics().is_reading)
    assert samples.statistics().failure == "DamagedRecordingError: failing.mcap at byte 8000: bytes are missing"


def test_a_source_whose_iteration_cannot_start_fails_the_first_sample():
    class NoIterator:
        def __iter__(self):
            raise DamagedRecordingError("a.mcap", "no index")

    _, samples = prefetch(NoIterator())
    with samples, pytest.raises(DamagedRecordingError, match="no index"):
        next(samples)


def test_a_sample_that_can_never_fit_is_an_error_not_a_hang():
    _, samples = prefetch([torch.zeros(SAMPLE_BYTES)], limit_bytes=SAMPLE_BYTES)
    with samples, pytest.raises(BudgetError, match=r"^one item of 16000 bytes can never fit a budget of 4000; raise"):
        next(samples)


def test_a_size_that_is_no_count_is_an_error():
    budget = ByteBudget(10)
    with Prefetcher([1], size_of=lambda _: 1.5, budget=budget) as samples, pytest.raises(ArgumentError, match=r"1\.5"):
        next(samples)


def test_a_stop_iteration_of_size_of_does_not_pass_for_the_end():
    def size_of(sample):
        raise StopIteration

    samples = Prefetcher([1], size_of=size_of, budget=ByteBudget(10))
    with samples, pytest.raises(RuntimeError, match=r"^size_of raised StopIteration$"):
        next(samples)


def test_empty_samples_cannot_pile_up_without_limit():
    budget, samples = prefetch((torch.empty(0) for _ in range(1_000)), limit_bytes=7)
    with samples:
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        assert samples.statistics().has_read == 8
        assert sum(1 for _ in samples) == 1_000


def test_an_ended_loop_stays_ended():
    _, samples = prefetch([])
    with samples:
        assert list(samples) == []
        assert list(samples) == []
