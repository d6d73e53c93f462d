"""Shares of a mixture: exact in number, even in time, and computed without the slots before."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robocache.loader.mixture import Interleaving, _left_before, largest_remainder_counts


@given(weights=st.lists(st.fractions(0, 10), min_size=1, max_size=8).filter(any), total=st.integers(0, 2**48))
def test_counts_are_within_one_of_the_exact_share(weights, total):
    """Fails when shares are rounded one by one and do not add up, or a remainder goes to a wrong dataset."""
    counts = largest_remainder_counts(weights, total)
    exact = [weight * total / sum(weights) for weight in weights]
    assert sum(counts) == total
    assert all(abs(count - share) < 1 for count, share in zip(counts, exact, strict=True))
    raised = [share - int(share) for count, share in zip(counts, exact, strict=True) if count > share]
    kept = [share - int(share) for count, share in zip(counts, exact, strict=True) if count <= share]
    assert not raised or min(raised) >= max(kept, default=Fraction(0))


def test_hamiltons_own_example():
    """Fails when remainders are ranked from the smallest: seats of a textbook's five parties."""
    votes = [Fraction(n) for n in (47_000, 16_000, 15_900, 12_000, 6_000, 3_100)]
    assert largest_remainder_counts(votes, 10) == [5, 2, 1, 1, 1, 0]


@settings(max_examples=200, deadline=None)
@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any))
def test_every_dataset_gets_its_slots_in_turn_and_evenly(counts):
    """Fails when a slot is given twice or never, own slots do not count up, or a dataset comes in clumps."""
    total = sum(counts)
    dataset, own = np.full(total, -1), np.full(total, -1)
    for number, where, own_slots in Interleaving(counts).shares(np.arange(total)):
        assert (dataset[where] == -1).all()
        dataset[where], own[where] = number, own_slots
    for number, count in enumerate(counts):
        np.testing.assert_array_equal(own[dataset == number], np.arange(count))
        so_far = np.cumsum(dataset == number)
        assert np.abs(so_far - np.arange(1, total + 1) * count / total).max() < 2


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 2**45), min_size=2, max_size=7),
    picks=st.lists(st.integers(0, 2**48), min_size=1, max_size=30),
)
def test_slots_alone_and_together_are_the_same(counts, picks):
    """Fails when a slot's share depends on the other slots of the call."""
    interleaving = Interleaving(counts)
    slots = np.array(picks) % sum(counts)

    def shares(chosen):
        found = np.zeros((len(chosen), 2), np.int64)
        for number, where, own_slots in interleaving.shares(chosen):
            found[where] = np.stack([np.full(len(where), number), own_slots], axis=1)
        return found

    np.testing.assert_array_equal(shares(slots), np.concatenate([shares(slots[k : k + 1]) for k in range(len(slots))]))


@given(total=st.integers(2, 2**48), data=st.data())
def test_the_long_division_is_exact(total, data):
    """Fails when a product is cut to 64 bits; Python's own integers judge."""
    count = data.draw(st.integers(1, total - 1))
    slots = data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=10))
    before, is_left = _left_before(np.array(slots), count, total)
    assert before.tolist() == [(slot * count + total // 2) // total for slot in slots]
    after = [((slot + 1) * count + total // 2) // total for slot in slots]
    assert is_left.tolist() == [late > early for late, early in zip(after, before.tolist(), strict=True)]


@pytest.mark.parametrize("total", [2**31, 2**33 + 1, 2**47 - 1, 2**48 - 1, 2**48])
def test_the_long_division_is_exact_for_large_mixtures(total):
    """Fails when a digit of the slot is a bit too long: products pass 2**64 only with large numbers on both sides."""
    slots = [total - 1 - k * (total // 50) for k in range(50)]
    for count in (total // 2, total - 1, total * 2 // 3):
        before, _ = _left_before(np.array(slots), count, total)
        assert before.tolist() == [(slot * count + total // 2) // total for slot in slots]


@pytest.mark.parametrize("parts", [2, 1000])
def test_many_datasets_are_found(parts):
    """Fails when the tree is a chain that Python's recursion cannot follow, or a single slot is lost."""
    found = list(Interleaving([1] * parts).shares(np.arange(parts)))
    assert sorted(number for number, _, _ in found) == list(range(parts))
