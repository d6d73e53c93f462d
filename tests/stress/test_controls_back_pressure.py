"""The back-pressure scenario finds a budget or a prefetcher that is broken: controls, as in `test_controls.py`."""

from __future__ import annotations

import functools
import threading

import pytest

from robocache.loader import ByteBudget, Prefetcher
from robocache.stress import back_pressure as back_pressure_module
from robocache.stress.back_pressure import back_pressure
from robocache.stress.settings import Settings, choose_device
from robocache.stress.workload import InputSet
from robocache.testing import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
SHORT = Settings(seconds=2, batch_size=2, device=choose_device({}))


def short_back_pressure(rounds=20):
    return back_pressure(SHORT, samples=16, delay_s=0.02, rounds=rounds)


def test_back_pressure_passes_when_nothing_is_broken():
    assert short_back_pressure().passed


def admit_one_too_many(monkeypatch):
    serve = ByteBudget._serve

    def generous(self):
        real, self._limit_bytes = self._limit_bytes, self._limit_bytes * 3 // 2
        serve(self)
        self._limit_bytes = real

    monkeypatch.setattr(ByteBudget, "_serve", generous)


def swallow_the_error(monkeypatch):
    monkeypatch.setattr(Prefetcher, "_fail", lambda self, error: None)


def do_not_join(monkeypatch):
    monkeypatch.setattr(Prefetcher, "close", lambda self: None)


def deliver_backwards(monkeypatch):
    deliver = Prefetcher.__next__

    def swapped(self):
        first = deliver(self)
        if self.statistics().has_delivered != 5:
            return first
        second = deliver(self)
        self._ready.put((first, self._budget.claim(0)))
        return second

    monkeypatch.setattr(Prefetcher, "__next__", swapped)


def keep_every_sample(monkeypatch):
    deliver, kept = Prefetcher.__next__, []

    def keeping(self):
        kept.append(deliver(self))
        return kept[-1]

    monkeypatch.setattr(Prefetcher, "__next__", keeping)


BACK_PRESSURE_FAULTS = {
    admit_one_too_many: "bytes were held, the budget is",
    swallow_the_error: "the producer's exception did not arrive",
    do_not_join: "threads grows by 1 with each loop that ends by an early break",
    deliver_backwards: "in order",
    keep_every_sample: "the heap grew by",
}


@pytest.mark.parametrize("fault", BACK_PRESSURE_FAULTS, ids=lambda fault: fault.__name__)
def test_back_pressure_finds_a_broken_prefetcher(fault, monkeypatch):
    with monkeypatch.context() as patch:
        fault(patch)
        report = short_back_pressure(rounds=8)
    assert BACK_PRESSURE_FAULTS[fault] in " ".join(report.failures)


def test_back_pressure_finds_a_budget_that_takes_nothing(monkeypatch):
    claim = ByteBudget.claim
    monkeypatch.setattr(ByteBudget, "claim", lambda self, _: claim(self, 0))
    impatient = functools.partial(wait_until, deadline_s=0.5)
    monkeypatch.setattr(back_pressure_module, "wait_until", impatient)
    with pytest.raises(TimeoutError, match=r"^a full budget and a waiting producer did not come within 0\.5 s$"):
        short_back_pressure()


def test_back_pressure_ends_by_itself_when_no_sample_comes(monkeypatch):
    monkeypatch.setattr(back_pressure_module, "_DEADLINE_S", 1.0)
    give_back = ByteBudget._give_back
    # Room is never given back while the loop runs, so that the fifth sample never comes.
    monkeypatch.setattr(
        ByteBudget, "_give_back", lambda self, place: None if place.state == "held" else give_back(self, place)
    )
    report = back_pressure(SHORT, samples=16, delay_s=0.0125, rounds=0)
    assert report.failures[0] == "only 4 samples came within 3 s"


def test_back_pressure_bears_a_machine_on_which_the_first_use_of_each_dtype_is_dear(monkeypatch):
    """Fails when the heap and the deadline are watched before every dtype of times was used once.

    Compiling or loading a kernel costs seconds on a busy machine, and heap that it keeps. Seen with a warm-up of one
    sample instead of two of each dtype.
    """
    infer, known, kept = back_pressure_module.infer, set(), []

    def first_is_dear(streams, points):
        if streams[-1].dtype not in known:
            known.add(streams[-1].dtype)
            kept.append(bytearray(4_000_000))
            threading.Event().wait(1.5)  # slow on purpose
        return infer(streams, points)

    monkeypatch.setattr(back_pressure_module, "infer", first_is_dear)
    monkeypatch.setattr(back_pressure_module, "_DEADLINE_S", 1.0)
    report = back_pressure(SHORT, samples=16, delay_s=0.01, rounds=0)
    assert len(known) == 3
    assert not report.failures


def test_back_pressure_bears_a_producer_that_a_busy_machine_holds_up(monkeypatch):
    """Fails when the consumer's own pace decides whether the producer waits: seen without `_PATIENCE`."""
    fresh = InputSet.fresh

    def held_up(self):
        threading.Event().wait(0.06)  # slow on purpose
        return fresh(self)

    monkeypatch.setattr(InputSet, "fresh", held_up)
    monkeypatch.setattr(back_pressure_module._Inputs, "wrong_elements", lambda *_: 0)  # as quick as on a GPU
    report = back_pressure(SHORT, samples=16, delay_s=0.02, rounds=0)
    assert not report.failures
    assert report.measured["waits"] >= 12
