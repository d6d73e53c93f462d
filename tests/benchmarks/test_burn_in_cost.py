"""Bare blocks and those of a burn-in take turns, the burn-in's clock knows of its own only, and what is added shows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from benchmarks import burn_in_cost
from robocache.stress.settings import Settings
from robocache.stress.workload import Workload


def test_what_a_burn_in_adds_is_found_and_its_clock_stands_still_meanwhile(monkeypatch):
    """Fails when bare time counts as the burn-in's, when blocks differ in length, or a round is not A B B A.

    Seen with `paused_s` left at 0, with a bare block of one iteration more, and with the second bare block left out.
    """
    clock = SimpleNamespace(now=0.0)
    both = {"monotonic": lambda: clock.now, "process_time": lambda: 2 * clock.now}
    monkeypatch.setattr(burn_in_cost, "time", SimpleNamespace(**both))

    def bare(_iteration):
        clock.now += 0.25

    blocks = burn_in_cost.Blocks(bare, size=3, seconds=3.0)
    blocks.begin()
    for _ in range(4 * 3):
        clock.now += 0.3125
        blocks.after_iteration()
    pairs = blocks.pairs()
    assert pairs[..., 0].tolist() == [[0.75, 0.9375, 0.9375, 0.75]] * 2
    assert blocks.monotonic() == 4 * 3 * 0.3125
    assert blocks.are_enough()
    found = burn_in_cost.added(pairs)
    assert {found[each][name] for each in ("wall", "cpu") for name in found[each]} == {25.0}


def test_the_interval_is_that_of_scipy():
    """Fails when rounds are not drawn with replacement, or wall and CPU time are taken for each other."""
    generator = np.random.default_rng(3)
    pairs = generator.uniform(1.0, 1.2, (200, 4, 2))
    pairs[:, (1, 2), 1] *= 1.05
    ratios = pairs[:, (1, 2), 1].sum(axis=1) / pairs[:, (0, 3), 1].sum(axis=1)
    interval = stats.bootstrap((ratios,), np.median, method="percentile", rng=generator).confidence_interval
    found = burn_in_cost.added(pairs)["cpu"]
    assert found["median"] == pytest.approx(100 * (np.median(ratios) - 1), abs=1e-3)
    assert (found["median_least"], found["median_most"]) == pytest.approx([100 * (x - 1) for x in interval], abs=0.15)


@pytest.mark.parametrize("name", burn_in_cost.RUNS)
def test_each_way_of_burning_in_is_measured(name):
    """Fails when the burn-in runs on another clock than its blocks', so that it never ends or has no round."""
    workload = Workload(batch=1)
    blocks = burn_in_cost.Blocks(workload.run, size=1, seconds=0.7)
    also = burn_in_cost.RUNS[name](workload, blocks, Settings(seconds=60.0, batch_size=1))
    assert len(blocks.pairs()) >= 1
    assert blocks.paused_s > 0
    assert name == "nothing" or also["readings"] >= 1
