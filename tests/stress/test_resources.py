"""The counters count, and `leaked_per_round` finds what is left behind and nothing else."""

from __future__ import annotations

import gc
import math
import threading

import pytest
import torch

from robocache.errors import ArgumentError
from robocache.stress.monitor import Monitor
from robocache.stress.resources import Counter, QuietCollections, device_counters, host_counters, leaked_per_round, read
from robocache.testing import Leak

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
FOUND = {"tensor": "tensors", "object": "python_blocks", "file": "open_files", "thread": "threads"}


@pytest.mark.parametrize("kind", Leak.KINDS)
@pytest.mark.parametrize("every", [1, 3])
def test_a_leak_is_named_and_measured(kind, every):
    with Leak(kind, every=every) as leak:
        leaked = leaked_per_round(leak, rounds=60, warm_up=6)
    assert FOUND[kind] in leaked
    if kind != "object":
        assert leaked[FOUND[kind]] == pytest.approx(1 / every)


def test_a_tensor_costs_its_heap_bytes_too():
    with Leak("tensor", size_bytes=4_096) as leak:
        assert 4_096 <= leaked_per_round(leak, rounds=40, warm_up=4)["heap_bytes"] < 6_000


def test_one_thread_lost_in_fifty_rounds_is_a_leak():
    with Leak("thread", every=50) as leak:
        assert leaked_per_round(leak, rounds=50, warm_up=5)["threads"] == 1 / 50


def test_a_round_that_cleans_up_leaks_nothing():
    def one_round():
        thread = threading.Thread(target=lambda: torch.zeros(5_000).sum())
        thread.start()
        thread.join()
        cycle = [torch.zeros(10)]
        cycle.append(cycle)  # only the garbage collection finds it

    assert leaked_per_round(one_round, rounds=50, warm_up=5) == {}


def test_a_cache_that_fills_during_the_warm_up_is_no_leak():
    cache = {}
    assert leaked_per_round(lambda: cache.setdefault(len(cache) % 5, torch.zeros(9)), rounds=100, warm_up=6) == {}


def test_too_few_rounds_are_refused():
    with pytest.raises(ArgumentError, match=r"^rounds must be 4 or more to tell a leak from a late cache, got 3$"):
        leaked_per_round(int, rounds=3, warm_up=0)


def test_a_counter_that_cannot_be_read_is_no_pass():
    blind = Counter("heap_bytes", lambda: math.nan, 1)
    with pytest.raises(RuntimeError, match=r"^heap_bytes cannot be read on this machine"):
        leaked_per_round(int, rounds=4, warm_up=0, counters=[blind])


def test_every_host_counter_can_be_read_here_and_the_collector_is_left_as_it_was():
    counters = host_counters()
    assert all(count >= 0 for count in read(counters))  # NaN would not be
    leaked_per_round(int, rounds=4, warm_up=0)
    assert gc.get_freeze_count() == 0


def test_collections_are_quiet_within_each_other_and_whatever_was_frozen_before():
    gc.freeze()
    made_after = {"a list made after the freeze": []}
    with QuietCollections():
        assert not any(each is made_after for each in gc.get_objects())
        with QuietCollections():
            pass
        assert not any(each is made_after for each in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(each is made_after for each in gc.get_objects())


def test_shared_memory_is_counted():
    (shared,) = [counter for counter in host_counters() if counter.name == "shared_memory_bytes"]
    before = shared.read()
    tensor = torch.zeros(1_000_000, dtype=torch.uint8).share_memory_()
    assert shared.read() - before == pytest.approx(1_000_000, abs=8_192)
    del tensor
    assert shared.read() == before


def test_a_device_without_counters_of_its_own_has_none():
    assert device_counters("cpu") == ()


def test_a_monitor_refuses_what_it_has_no_room_for():
    monitor = Monitor([Counter("tensors", lambda: 1.0, 24)], readings=2)
    assert [monitor.read(iteration) for iteration in range(3)] == [True, True, False]
    assert monitor.readings == 2
    assert 0 <= monitor.milliseconds_per_reading < 1e4
    assert all(math.isnan(rate) for rate in monitor.rates())


def test_growth_of_the_heap_that_does_not_go_on_is_no_leak():
    """Fails when threads of a pool that are still ending, on a busy machine, pass for a leak.

    Seen without the second look; with a second look that forgets what it saw, the other half fails.
    """
    heap = {"now": 0.0, "most": 4_096.0}

    def grow():
        heap["now"] = min(heap["now"] + 64.0, heap["most"])

    counters = [Counter("heap_bytes", lambda: heap["now"], 500e6)]
    assert leaked_per_round(grow, rounds=40, warm_up=4, counters=counters) == {}
    heap["most"] = math.inf
    assert leaked_per_round(grow, rounds=40, warm_up=4, counters=counters) == {"heap_bytes": 64.0}
