"""Readings keep to their share of a run's own time: what others do to the machine neither charges nor pays for them."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from robocache.stress import reading_cost
from robocache.stress.monitor import Monitor
from robocache.stress.reading_cost import MAPS_EVERY, ReadingCost, waited_for_a_core_s
from robocache.stress.resources import QuietCollections, host_counters

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
ITERATION_S, READING_S = 0.004, 0.001


def readings(monkeypatch, *, wait_for_each_s, seconds=60.0, share=0.005):
    """How many are made of a millisecond each, where a thread waits for a core after each millisecond of its own."""
    world = SimpleNamespace(now=0.0, waited=0.0, asked=0)

    def work(own_s):
        waits_s = own_s * wait_for_each_s
        world.now += own_s + waits_s
        world.waited += waits_s

    def waited():
        world.asked += 1
        return world.waited

    monkeypatch.setattr(reading_cost, "time", SimpleNamespace(monotonic=lambda: world.now))
    monkeypatch.setattr(reading_cost, "waited_for_a_core_s", waited)
    cost = ReadingCost(share)
    iterations = 0
    while world.now < seconds:
        work(ITERATION_S)
        iterations += 1
        if cost.allows_one_more():
            with cost.one_more():
                work(READING_S)
    return cost.readings, world.asked / iterations, cost.spent_s / (world.now - world.waited)


def test_an_idle_machine_gives_the_share_and_a_busy_one_enough_for_a_verdict(monkeypatch):
    """Fails when waiting is charged to a reading, or a run's waiting pays for readings.

    Seen with `took_s` alone, which made 33 readings where 100 are due, and with all time taken for `own_s`, which made
    300.
    """
    made, _, share = readings(monkeypatch, wait_for_each_s=0.0)
    assert made == pytest.approx(300, abs=3)
    assert share <= 0.0051
    made, asked, share = readings(monkeypatch, wait_for_each_s=2.0)
    assert made == pytest.approx(100, abs=3)
    assert share <= 0.0051
    assert asked < 0.3  # of the iterations: asking the kernel costs too
    made, _, share = readings(monkeypatch, wait_for_each_s=9.0)
    assert 64 < made < 110
    assert share <= 0.018


def test_a_leak_of_shared_memory_shows_though_mappings_are_counted_at_every_fourth_reading_only():
    """Fails when they are counted once and for all, or at each reading, which costs twice as much.

    Seen with `every` of 1000 and of 1.
    """
    monitor = Monitor(host_counters(maps_every=MAPS_EVERY), readings=80)
    kept = []
    with QuietCollections():
        for iteration in range(80):
            kept.append(torch.zeros(1_000_000, dtype=torch.uint8).share_memory_())
            monitor.read(iteration)
    (series,) = [each for each in monitor.series() if each.counter == "shared_memory_bytes"]
    assert len(set(series.counts)) == 80 / MAPS_EVERY
    outcomes = {verdict.counter: verdict.outcome for verdict in monitor.verdicts()}
    assert outcomes["shared_memory_bytes"] == "FAIL"


def test_waiting_for_a_core_is_what_the_kernel_says(tmp_path, monkeypatch):
    """Fails when another column is taken, such as the time on a core."""
    busy = [threading.Thread(target=lambda: sum(range(10_000_000))) for _ in range(os.cpu_count() or 1)]
    for thread in busy:
        thread.start()
    started, worked, waited = time.monotonic(), time.thread_time(), waited_for_a_core_s()
    for thread in busy:
        thread.join()
    total = 0
    while time.monotonic() < started + 0.5:
        total += 1
    slept_or_waited_s = time.monotonic() - started - (time.thread_time() - worked)
    assert 0 <= waited_for_a_core_s() - waited <= slept_or_waited_s + 0.05
    monkeypatch.setattr(reading_cost, "_SCHEDULED", tmp_path / "another system")
    assert waited_for_a_core_s() == 0.0
