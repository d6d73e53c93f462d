"""The prefetcher: bounded in bytes, in order, every exception delivered, joined on every way out."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from robocache.errors import ArgumentError, BudgetError, ClosedError, DamagedRecordingError
from robocache.loader.budget import ByteBudget
from robocache.loader.prefetch import Prefetcher
from robocache.testing import EagerReader, FailingReader, StallingReader, wait_until

pytestmark = pytest.mark.timeout(60)
SAMPLE_BYTES, ROOM_FOR = 4_000, 4


def prefetch(samples, *, limit_bytes=ROOM_FOR * SAMPLE_BYTES, **rest):
    budget = ByteBudget(limit_bytes)
    return budget, Prefetcher(samples, size_of=lambda sample: sample.nbytes, budget=budget, **rest)


@pytest.fixture(autouse=True)
def _every_thread_is_joined():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


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


@pytest.mark.parametrize("way_out", ["break", "exception", "end"])
def test_every_way_out_gives_all_bytes_back_and_closes_the_generator(way_out):
    is_closed = []

    def read():
        try:
            yield from EagerReader(fuse=10)
        finally:
            is_closed.append(threading.current_thread().name)

    budget, samples = prefetch(read())

    def use():
        with samples:
            for _ in samples:
                if way_out == "break":
                    break
                if way_out == "exception":
                    raise ZeroDivisionError

    if way_out == "exception":
        with pytest.raises(ZeroDivisionError):
            use()
    else:
        use()
    assert is_closed == ["robocache-prefetch"]
    assert budget.statistics().used_bytes == budget.statistics().waiting == 0


def test_a_generator_that_fails_to_close_fails_the_block():
    def read():
        try:
            yield from EagerReader()
        finally:
            raise OSError("the file could not be closed")

    _, samples = prefetch(read())
    with pytest.raises(OSError, match="could not be closed"), samples:
        next(samples)
    samples.close()  # told once


def test_a_reader_stuck_in_a_system_call_is_unblocked_by_its_close():
    with StallingReader(good=1) as reader:
        budget, samples = prefetch(reader, interrupt=reader.close)
        with samples:
            next(samples)
            wait_until(lambda: reader.is_stuck)
        assert samples.statistics().failure == "ClosedError: the recording was closed during a read"
    assert budget.statistics().used_bytes == 0


def test_a_failing_interrupt_still_joins_the_thread():
    def interrupt():
        raise OSError("the socket was gone")

    budget, samples = prefetch(EagerReader(), interrupt=interrupt)
    with pytest.raises(OSError, match="the socket was gone"), samples:
        next(samples)
    assert not samples.statistics().is_reading
    assert budget.statistics().used_bytes == 0


def test_closing_from_another_thread_ends_every_consumer():
    with StallingReader(good=0) as reader:
        _, samples = prefetch(reader, interrupt=reader.close)
        with samples, ThreadPoolExecutor(3) as pool:
            waits = [pool.submit(next, samples) for _ in range(3)]
            wait_until(lambda: reader.is_stuck)
            samples.close()
            for wait in waits:
                with pytest.raises(ClosedError, match="the prefetcher is closed"):
                    wait.result(timeout=10)


def test_closing_while_the_producer_waits_for_room_ends_it():
    budget, samples = prefetch(EagerReader())
    with samples:
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        samples.close()
        assert not samples.statistics().is_reading
    assert budget.statistics().used_bytes == budget.statistics().waiting == 0


def test_several_consumers_see_every_sample_exactly_once():
    _, samples = prefetch(EagerReader(fuse=500))

    def consume():
        return [EagerReader.number(sample) for sample in samples]

    with samples, ThreadPoolExecutor(4) as pool:
        parts = [part.result(timeout=30) for part in [pool.submit(consume) for _ in range(4)]]
    assert sorted(itertools.chain(*parts)) == list(range(500))
    assert all(part == sorted(part) for part in parts)
    assert samples.statistics().has_delivered == 500


def test_two_prefetchers_share_one_budget():
    budget = ByteBudget(2 * SAMPLE_BYTES)
    first, second = (
        Prefetcher(EagerReader(fuse=50), size_of=lambda sample: sample.nbytes, budget=budget) for _ in range(2)
    )
    with ThreadPoolExecutor(2) as pool, first, second:
        counts = [pool.submit(lambda one: sum(1 for _ in one), one) for one in (first, second)]
        assert [count.result(timeout=30) for count in counts] == [50, 50]
    assert budget.statistics().peak_bytes <= 2 * SAMPLE_BYTES
    assert not budget.statistics().is_closed


def test_a_closed_budget_fails_the_loop():
    budget, samples = prefetch(EagerReader())
    with samples:
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        budget.close()
        with pytest.raises(ClosedError, match="the budget was closed before 4000 bytes were free in it"):
            list(samples)


def test_it_reads_inside_its_block_only():
    _, samples = prefetch(EagerReader())
    with pytest.raises(ClosedError, match=r"take samples inside `with prefetcher:`$"):
        next(samples)
    with samples:
        pass
    with pytest.raises(ClosedError, match="the prefetcher is closed"):
        next(samples)
    with pytest.raises(ClosedError, match="reads once"), samples:
        pytest.fail("it was entered twice")


def test_what_is_not_iterable_is_refused():
    with pytest.raises(ArgumentError, match=r"^samples must be iterable, got int$"):
        Prefetcher(3, size_of=lambda _: 1, budget=ByteBudget(1))


def test_a_reader_that_closes_its_own_prefetcher_ends():
    def read():
        yield from EagerReader(fuse=1)
        samples.close()
        yield from EagerReader()

    budget, samples = prefetch(read())
    with samples:
        wait_until(lambda: not samples.statistics().is_reading)
        with pytest.raises(ClosedError):
            next(samples)
        assert budget.statistics().used_bytes == 0


def test_an_abandoned_generator_around_it_leaves_nothing():
    def batches():
        with prefetch(EagerReader())[1] as samples:
            yield from samples

    loop = batches()
    next(loop)
    loop.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_and_cannot_hang():
    budget, samples = prefetch(EagerReader())
    with samples:
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
        child = os.fork()
        if child == 0:
            told = False
            try:
                next(samples)
            except ClosedError as error:
                told = "make a Prefetcher in the process that uses it" in str(error)
            samples.close()
            os._exit(0 if told and not samples.statistics().is_reading else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert EagerReader.number(next(samples)) == 0  # the parent goes on


SCRIPTS = {
    "forgotten": "samples.__enter__(); next(samples); print('main is done')",
    "stuck_consumer_error": "samples.__enter__(); next(samples); raise SystemExit(3)",
}


@pytest.mark.parametrize(("name", "exit_code"), [("forgotten", 0), ("stuck_consumer_error", 3)])
def test_the_interpreter_exits_cleanly_without_close(name, exit_code):
    script = (
        "from robocache.loader import ByteBudget, Prefetcher\n"
        "from robocache.testing import EagerReader\n"
        "def read():\n"
        "    try:\n"
        "        yield from EagerReader()\n"
        "    finally:\n"
        "        print('the reader was closed')\n"
        "samples = Prefetcher(read(), size_of=lambda sample: sample.nbytes, budget=ByteBudget(8000))\n" + SCRIPTS[name]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (exit_code, "")
    assert done.stdout.endswith("the reader was closed\n")
