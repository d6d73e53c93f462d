"""The sample order: every sample once, the same for any number of ranks, resumed to the sample."""

import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, DistributedSampler, TensorDataset

from robocache.errors import ArgumentError
from robocache.loader import SampleOrder
from robocache.testing import wait_until


def joined(batches):
    return np.concatenate([np.empty(0, np.int64), *batches])


def together(orders):
    """The steps of all ranks, their batches joined: the global order."""
    return joined(joined(step) for step in zip(*orders, strict=True))


def ranks(lengths, world_size, **settings):
    return [SampleOrder(lengths, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]


@st.composite
def arguments(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    weights = draw(st.none() | st.lists(st.integers(1, 5), min_size=len(lengths), max_size=len(lengths)))
    given = {
        "lengths": lengths,
        "weights": weights,
        "seed": draw(st.integers(-(2**70), 2**70)),
        "shuffle": draw(st.booleans()),
        "drop_last": draw(st.booleans()),
    }
    try:
        SampleOrder(**given, batch_size=1)
    except ArgumentError:  # a weight that gives no sample
        assume(False)
    return given


def made(given, batch_size, world_size):
    """None where drop_last leaves no step, or the last step has fewer samples than ranks."""
    try:
        return ranks(**given, batch_size=batch_size, world_size=world_size)
    except ArgumentError:
        return None


@settings(max_examples=150, deadline=None)
@given(given=arguments(), batch_size=st.integers(1, 9), world_size=st.integers(1, 4), epoch=st.integers(0, 2**40))
def test_ranks_together_give_the_global_order(given, batch_size, world_size, epoch):
    """Fails when a rank takes another's samples, a tail is lost or doubled, or numbers of batches differ."""
    orders = made(given, batch_size, world_size)
    assume(orders)
    total = sum(given["lengths"])
    for order in orders:
        order.set_epoch(epoch)
    batches = [list(order) for order in orders]
    served = together(batches)
    wanted = total - total % (batch_size * world_size) if given["drop_last"] else total
    np.testing.assert_array_equal(served, orders[0].samples_at(np.arange(wanted), epoch=epoch))
    assert {len(own) for own in batches} == {len(orders[0])}
    assert all(1 <= len(batch) <= batch_size and batch.dtype == np.int64 for own in batches for batch in own)
    for order, own in zip(orders, batches, strict=True):
        order.set_epoch(epoch)
        np.testing.assert_array_equal(order.batch(len(own) - 1), own[-1])
    if given["weights"] is None:
        everything = orders[0].samples_at(np.arange(total), epoch=epoch)
        np.testing.assert_array_equal(np.sort(everything), np.arange(total))


@settings(max_examples=150, deadline=None)
@given(given=arguments(), first=st.tuples(st.integers(1, 5), st.integers(1, 4)), data=st.data())
def test_a_state_resumes_on_other_ranks(given, first, data):
    """Fails when the state counts a rank's own samples, or batches, or the epoch after the resumed one is not whole."""
    given["drop_last"] = False
    orders = made(given, *first)
    assume(orders)
    before = [iter(order) for order in orders]
    taken = data.draw(st.integers(0, len(orders[0])))
    start = together([[next(own) for _ in range(taken)] for own in before])
    states = [json.loads(json.dumps(order.state_dict())) for order in orders]
    assert all(state == states[0] for state in states)
    others = made(given, *data.draw(st.tuples(st.integers(1, 9), st.integers(1, 4))))
    assume(others)
    try:
        for order in others:
            order.load_state_dict(states[0])
    except ArgumentError:  # fewer samples left than ranks
        assume(False)
    rest = together([list(order) for order in others]) if taken < len(orders[0]) else []
    whole = SampleOrder(**given, batch_size=7)
    np.testing.assert_array_equal(joined([start, rest]), joined(whole))
    np.testing.assert_array_equal(together(others), joined(whole))  # both give their next epoch now


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=5), data=st.data(), seed=st.integers(), epochs=st.just(6)
)
def test_a_mixture_walks_through_each_dataset_before_it_repeats(lengths, data, seed, epochs):
    """Fails when an epoch begins a dataset anew, a walk's key forgets its number, or proportions are off by one."""
    weights = data.draw(st.lists(st.floats(0.5, 4), min_size=len(lengths), max_size=len(lengths)))
    try:
        order = SampleOrder(lengths, weights=weights, seed=seed, batch_size=1)
    except ArgumentError:
        assume(False)
    total = sum(lengths)
    rows = [order.samples_at(np.arange(total), epoch=epoch) for epoch in range(epochs)]
    datasets, own = order.locate(np.array(rows))
    for number, length in enumerate(lengths):
        counts = (datasets == number).sum(axis=1)
        assert len(set(counts)) == 1
        assert abs(counts[0] - total * weights[number] / sum(weights)) < 1
        walked = own[datasets == number]
        for begin in range(0, len(walked) - length + 1, length):
            np.testing.assert_array_equal(np.sort(walked[begin : begin + length]), np.arange(length))


def test_proportions_hold_in_every_stretch():
    """Fails when a mixture is drawn at random: within 1000 samples chance would be off by about 14."""
    order = SampleOrder([50_000, 30_000, 20_000], weights=[0.2, 0.5, 0.3], batch_size=1000)
    for step in (0, 17, 99):
        datasets, _ = order.locate(order.batch(step))
        assert np.abs(np.bincount(datasets, minlength=3) - [200, 500, 300]).max() <= 3


def test_seeds_epochs_and_datasets_have_orders_of_their_own():
    """Fails when the seed, the epoch or a dataset's number is left out of the key; equal places would be many."""
    plain = [SampleOrder(1000, seed=seed, batch_size=1) for seed in (0, 1, -1, 2**64)]
    orders = [order.samples_at(np.arange(1000), epoch=epoch) for order in plain for epoch in (0, 1)]
    mixture = SampleOrder([1000, 1000], weights=[1, 1], batch_size=1)
    datasets, rows = mixture.locate(mixture.samples_at(np.arange(2000)))
    orders += [rows[datasets == 0], rows[datasets == 1]]
    # About one in two unrelated orders. A mixture's first dataset has a key like a single dataset's: the same order.
    equal = [(orders[a] == orders[b]).sum() for a in range(len(orders)) for b in range(a) if (a, b) != (8, 0)]
    assert max(equal) < 10


def test_without_shuffle_samples_come_as_pytorch_gives_them():
    """Fails when the sequential order, its batches or the numbering over datasets differ from PyTorch's."""
    data = ConcatDataset([TensorDataset(torch.arange(7)), TensorDataset(torch.arange(7, 17))])
    order = SampleOrder([7, 10], batch_size=4, shuffle=False)
    theirs = [batch.tolist() for (batch,) in DataLoader(data, batch_size=4)]
    assert [batch.tolist() for batch in order] == theirs
    datasets, rows = order.locate([0, 6, 7, 16])
    assert (datasets.tolist(), rows.tolist()) == ([0, 0, 1, 1], [0, 6, 0, 9])
    sampler = DistributedSampler(data, num_replicas=2, rank=0, drop_last=True)
    assert len(sampler) == sum(map(len, SampleOrder([7, 10], batch_size=1, world_size=2, drop_last=True)))


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_a_batch_sampler(workers):
    """Fails when `DataLoader` cannot index with its batches, or epochs do not follow one another."""
    threads = set(threading.enumerate())
    order = SampleOrder(53, batch_size=8, seed=3)
    loader = DataLoader(TensorDataset(torch.arange(53)), batch_sampler=order, num_workers=workers)
    assert len(loader) == 7
    for epoch in range(2):
        values = [batch.tolist() for (batch,) in loader]
        assert joined(values).tolist() == order.samples_at(np.arange(53), epoch=epoch).tolist()
        assert order.epoch == epoch
    order.set_epoch(2)
    taken = iter(loader)
    first = [next(taken)[0].tolist() for _ in range(3)]
    del taken
    wait_until(lambda: set(threading.enumerate()) <= threads)  # the loader's own end a little after it
    state = order.state_dict(batches=3)
    assert state["consumed"] == 24
    resumed = SampleOrder(53, batch_size=8, seed=3)
    resumed.load_state_dict(state)
    assert joined([*first, *resumed]).tolist() == order.samples_at(np.arange(53), epoch=2).tolist()
