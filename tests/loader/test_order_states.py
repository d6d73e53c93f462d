"""Epochs, states and refusals of the sample order."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import robocache as rc
from robocache.errors import ArgumentError
from robocache.loader import SampleOrder

ROOT = Path(__file__).resolve().parents[2]


def lists(order):
    return [batch.tolist() for batch in order]


def test_epochs_follow_and_a_break_begins_again():
    """Fails when a second loop repeats the epoch, or when what a `break` left is lost or carried on."""
    order = SampleOrder(20, batch_size=6)
    first = lists(order)
    for _ in order:
        break
    assert order.epoch == 1
    second = lists(order)
    assert order.epoch == 1
    assert sorted(sum(second, [])) == sorted(sum(first, [])) == list(range(20))  # noqa: RUF017  twenty numbers
    assert first != second
    order.set_epoch(0)
    assert lists(order) == first
    order.set_epoch(0)  # iterated to its end: from the beginning
    assert lists(order) == first
    assert lists(order) == second


def test_a_batch_belongs_to_whoever_took_it():
    """Fails when batches are views of one buffer: changing one would change those to come."""
    order, untouched = SampleOrder(20, batch_size=6), SampleOrder(20, batch_size=6)
    for batch, same in zip(order, untouched, strict=True):
        np.testing.assert_array_equal(batch, same)
        batch[:] = -1
        assert batch.base is None


def test_setting_the_epoch_that_is_resumed_keeps_the_place():
    """Fails when the usual `set_epoch` at the head of a training loop throws a loaded state's place away."""
    whole = lists(SampleOrder(20, batch_size=6))
    order = SampleOrder(20, batch_size=6)
    state = order.state_dict(batches=2)
    assert (state["epoch"], state["consumed"]) == (0, 12)
    order.load_state_dict(state)
    order.set_epoch(0)
    assert len(order) == 2
    assert order.batch(0).tolist() == whole[2]
    assert lists(order) == whole[2:]
    order.load_state_dict(state)
    order.set_epoch(1)
    assert len(order) == 4
    assert len(lists(order)) == 4


def test_a_resumed_order_resumes_again():
    """Fails when a state after a resume counts from there, and not from the epoch's beginning."""
    whole = lists(SampleOrder(60, batch_size=6))
    order = SampleOrder(60, batch_size=6)
    for batches in (2, 3):
        state = order.state_dict(batches=batches)
        order = SampleOrder(60, batch_size=6)
        order.load_state_dict(state)
    assert lists(order) == whole[5:]
    order.set_epoch(0)  # iterated to its end: all of it
    assert lists(order) == whole


def test_a_state_that_leaves_ranks_without_a_batch_is_refused():
    """Fails when only a whole epoch's last step is looked at: after 5 of 16 samples, 3 remain for 4 ranks."""
    state = SampleOrder(16, batch_size=5).state_dict(batches=1)
    order = SampleOrder(16, batch_size=2, world_size=4)
    with pytest.raises(ArgumentError, match=r"^the last step has 3 samples for world_size=4 ranks.*\(11 samples, 8 a"):
        order.load_state_dict(state)
    assert (order.epoch, len(order)) == (0, 2)


def test_the_end_of_an_epoch_is_the_beginning_of_the_next():
    """Fails when a state at the end gives an empty epoch, also where drop_last left samples that another size fits."""
    order = SampleOrder(10, batch_size=4, drop_last=True)
    assert [len(batch) for batch in order] == [4, 4]
    state = order.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 0)
    smaller = SampleOrder(10, batch_size=2, drop_last=True)
    smaller.load_state_dict(state)
    assert len(smaller) == 5
    smaller.load_state_dict(smaller.state_dict(batches=4))
    larger = SampleOrder(10, batch_size=4, drop_last=True)
    larger.load_state_dict(smaller.state_dict())  # 2 of 10 are left, too few for a step
    assert (larger.epoch, len(larger)) == (2, 2)


def test_an_iteration_that_goes_on_beside_a_newer_one_does_not_count():
    """Fails when one counter serves all iterations: a look at the first batch would move the state."""
    order = SampleOrder(20, batch_size=5)
    older = iter(order)
    newer = iter(order)
    next(newer)
    list(older)
    assert order.state_dict()["consumed"] == 5


@pytest.mark.parametrize(
    ("lengths", "settings"),
    [(11, {}), ([4, 6], {}), (10, {"seed": 1}), (10, {"shuffle": False}), ([5, 5], {"weights": [4, 1]})],
)
def test_a_state_of_another_order_is_refused(lengths, settings):
    """Fails when lengths, seed, `shuffle` or weights are left out of the fingerprint, or the message of a side."""
    other = SampleOrder(lengths, batch_size=5, **settings)
    order = SampleOrder([5, 5], batch_size=5)
    with pytest.raises(ArgumentError) as refused:
        order.load_state_dict(other.state_dict())
    assert other.state_dict()["samples"] in str(refused.value)
    assert order.state_dict()["samples"] in str(refused.value)
    assert order.state_dict()["fingerprint"] in str(refused.value)
    assert len(lists(order)) == 2  # as it was


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consumed": 10}, r"^state\['consumed'\] is 10, but an epoch has 10 samples$"),
        ({"consumed": -1}, r"^state\['consumed'\] must be an integer of 0 or more, got -1$"),
        ({"epoch": 1.0}, r"^state\['epoch'\] must be an integer of 0 or more, got 1.0$"),
        ({"version": 2}, r"\(version 2, .*\(version 1, "),
    ],
)
def test_a_damaged_state_is_refused(change, message):
    """Fails when a state's numbers are believed: the order would begin beyond its end."""
    order = SampleOrder(10, batch_size=5)
    with pytest.raises(ArgumentError, match=message):
        order.load_state_dict(order.state_dict() | change)


def test_what_is_no_state_is_refused():
    """Fails when a missing entry becomes a KeyError without a name."""
    with pytest.raises(ArgumentError, match=r"^state has no consumed, fingerprint, samples, seed, version: "):
        SampleOrder(10, batch_size=5).load_state_dict({"epoch": 0})
    with pytest.raises(ArgumentError, match=r"^state has no consumed, epoch, fingerprint, samples, seed, version: "):
        SampleOrder(10, batch_size=5).load_state_dict(None)


@pytest.mark.parametrize(
    ("lengths", "settings", "message"),
    [
        (0, {}, r"^lengths must sum to 1 to 2\*\*48 samples, got 0$"),
        ([2**48, 1], {}, r"^lengths must sum to 1 to 2\*\*48 samples, got 281474976710657$"),
        ([3, -1], {}, r"^lengths must be an integer of 0 or more, got -1$"),
        (10, {"batch_size": 0}, r"^batch_size must be an integer of 1 or more, got 0$"),
        (10, {"batch_size": 2.0}, r"^batch_size must be an integer of 1 or more, got 2.0$"),
        (10, {"rank": 2, "world_size": 2}, r"^rank must be below world_size, got rank=2 and world_size=2$"),
        (10, {"seed": None}, r"^seed must be an integer, got None$"),
        ([5, 5], {"weights": [1]}, r"^weights must be one for each of 2 lengths, got 1$"),
        ([5, 5], {"weights": [1, float("nan")]}, r"^weights must be finite, 0 or more, and not all 0, got \[1, nan\]$"),
        ([5, 0], {"weights": [1, 1]}, r"^weights\[1\] is 1.0, but lengths\[1\] is 0$"),
        ([5, 5], {"weights": [1, 0.01]}, r"^weights\[1\] of 0.01 gives none of the 10 samples of an epoch$"),
        (10, {"batch_size": 3, "world_size": 4, "drop_last": True}, r"^drop_last leaves no step: 10 samples, and a"),
        (9, {"batch_size": 2, "world_size": 4}, r"^the last step has 1 samples for world_size=4 ranks.*drop_last=True"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(lengths, settings, message):
    """Fails when the check is dropped, or its message does not name the argument and the value."""
    with pytest.raises(ArgumentError, match=message):
        SampleOrder(lengths, **({"batch_size": 4} | settings))


def test_steps_and_places_beyond_the_epoch_are_refused():
    """Fails when a step behind the last gives an empty batch, or a place wraps around."""
    order = SampleOrder(10, batch_size=4)
    with pytest.raises(ArgumentError, match=r"^step must be below 3, the steps of this epoch, got 3$"):
        order.batch(3)
    with pytest.raises(ArgumentError, match=r"^positions must be \[sample\] numbers from 0 to 9, got \[10\]$"):
        order.samples_at([10])
    with pytest.raises(ArgumentError, match=r"^samples must be numbers from 0 to 9, got \[-1\]$"):
        order.locate([-1])
    with pytest.raises(ArgumentError, match=r"^batches must be at most 3, the batches of this epoch, got 4$"):
        order.state_dict(batches=4)


@pytest.mark.parametrize("weights", [None, [3, 1]])
def test_the_largest_order_takes_no_memory(weights):
    """Fails when anything is stored for a sample, or an index passes through a float: the last batch is far out."""
    tracemalloc.start()
    try:
        order = SampleOrder([2**47, 2**47], batch_size=256, weights=weights)
        state = order.state_dict(batches=len(order) - 2)
        order.load_state_dict(state)
        batches = list(order)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(set(batch.tolist())) for batch in batches] == [256, 256]
    assert len(SampleOrder(2**48, batch_size=256)) == 2**40
    assert peak_bytes < 4 * 2**20


def test_the_documented_example_runs():
    """Fails when docs/loader.md shows a call that does not exist any more, or what it says comes out otherwise."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/loader.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "docs/loader.md", "exec"), names)
    assert isinstance(names["order"], rc.SampleOrder)
