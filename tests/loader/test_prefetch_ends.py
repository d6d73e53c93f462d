"""The prefetcher's ways out: every one joins the thread, gives all bytes back and hangs nobody."""

import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from robocache.errors import ArgumentError, ClosedError
from robocache.loader.budget import ByteBudget
from robocache.loader.prefetch import Prefetcher
from robocache.testing import EagerReader, StallingReader, wait_until

pytestmark = pytest.mark.timeout(60)
SAMPLE_BYTES, ROOM_FOR = 4_000, 4


def prefetch(samples, *, limit_bytes=ROOM_FOR * SAMPLE_BYTES, **rest):
    budget = ByteBudget(limit_bytes)
    return budget, Prefetcher(samples, size_of=lambda sample: sample.nbytes, budget=budget, **rest)


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
