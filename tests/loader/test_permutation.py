"""The keyed permutation: a bijection of any size, and as irregular as numpy's own."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robocache.loader.permutation import KeyedPermutation

# Every statistical test looks at fixed keys, so it passes always or never; a right one fails at 1 of 10 000 keys.
RARE = 1e-4


def orders(size, passes, *, rounds=None, key=b"a test"):
    """[pass, size] permutations."""
    permutation = KeyedPermutation(size, key, rounds=rounds)
    indices, numbers = np.tile(np.arange(size), passes), np.repeat(np.arange(passes), size)
    return permutation.forward(indices, numbers).reshape(passes, size)


def numpy_orders(size, passes):
    return np.random.default_rng(7).permuted(np.tile(np.arange(size), (passes, 1)), axis=1)


def rank_of(rows):
    """[pass] the number of each permutation among all of its size."""
    size = rows.shape[1]
    number = np.zeros(len(rows), np.int64)
    for place in range(size):
        number = number * (size - place) + (rows[:, place + 1 :] < rows[:, place, None]).sum(axis=1)
    return np.bincount(number, minlength=math.factorial(size))


def pairs(rows):
    """How often each two values come first and second."""
    size = rows.shape[1]
    counts = np.bincount(rows[:, 0] * size + rows[:, 1], minlength=size * size).reshape(size, size)
    return counts[~np.eye(size, dtype=bool)]


def steps(rows):
    """How often neighbours differ by 1, by 2, ..., around the circle; by 0 they never do."""
    size = rows.shape[1]
    return np.bincount(((rows[:, 1:] - rows[:, :-1]) % size).ravel(), minlength=size)[1:]


def signs(rows):
    """How many permutations are even, and how many odd."""
    later_and_smaller = sum((rows[:, place + 1 :] < rows[:, place, None]).sum(axis=1) for place in range(rows.shape[1]))
    return np.bincount(later_and_smaller % 2, minlength=2)


def places(rows):
    """How often each tenth of the values lands in each tenth of the places."""
    tenth = rows.shape[1] // 10
    where = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    return np.bincount((rows // tenth * 10 + where // tenth).ravel(), minlength=100)


def probability(counts):
    return stats.chisquare(counts).pvalue


CASES = [
    *(pytest.param(rank_of, size, 100_000, id=f"order-{size}") for size in (2, 3, 4, 5, 6, 7)),
    *(pytest.param(pairs, size, 40_000, id=f"pairs-{size}") for size in (10, 16, 17)),
    *(pytest.param(signs, size, 20_000, id=f"signs-{size}") for size in (16, 20, 36)),
    *(pytest.param(steps, size, 400_000 // size, id=f"steps-{size}") for size in (10, 64, 100, 257, 1000, 1024)),
    *(pytest.param(places, size, 300_000 // size, id=f"places-{size}") for size in (10, 300, 1000)),
]


def in_whole_numbers(index, size, key, number):
    """The same permutation in Python's own integers, one index at a time."""
    rounds, bits = (14 if size <= 256 else 8), max(4, (size - 1).bit_length())
    low_bits = bits // 2
    uppers = max(4, -(-size // 2**low_bits))
    digest = hashlib.shake_256(key).digest(8 * (rounds + 1))
    keys = []
    for place in range(rounds + 1):
        word = int.from_bytes(digest[8 * place : 8 * place + 8], "little") + number * 0x9E3779B97F4A7C15
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            word = ((word % 2**64) ^ (word % 2**64 >> 33)) * multiplier
        keys.append((word % 2**64) ^ (word % 2**64 >> 33))
    while True:
        halves = [index >> low_bits, index % 2**low_bits]
        for place in range(rounds):
            mixed = (halves[1 - place % 2] + keys[place]) * 0xFF51AFD7ED558CCD % 2**64
            mixed = (mixed ^ mixed >> 32) * 0xC4CEB9FE1A85EC53 % 2**64
            if place % 2:
                halves[1] ^= mixed >> (64 - low_bits)
            else:
                halves[0] = (halves[0] + ((mixed >> 32) * uppers >> 32)) % uppers
        index = halves[0] << low_bits | halves[1]
        if index < 2:
            index ^= keys[rounds] >> 63
        if index < size:
            return index


@pytest.mark.parametrize("size", [2, 3, 10, 256, 257, 1000, 10**6, 2**33, 2**33 + 1, 2**48])
def test_the_order_stays_what_it_was(size):
    """Fails when a constant, a shift or a number of rounds changes: stored states would resume somewhere else."""
    indices = np.unique(np.linspace(0, size - 1, 40).astype(np.int64))
    for number in (0, 1, 2**40):
        there = KeyedPermutation(size, b"same").forward(indices, number)
        assert there.tolist() == [in_whole_numbers(int(index), size, b"same", number) for index in indices]


def test_every_size_is_a_bijection_with_its_inverse():
    """Fails when a result outside is not walked on, when the halves' widths are exchanged, or one index is lost."""
    for size in range(1, 2001):
        permutation = KeyedPermutation(size, b"bijection")
        there = permutation.forward(np.arange(size), size)
        np.testing.assert_array_equal(np.sort(there), np.arange(size))
        np.testing.assert_array_equal(permutation.inverse(there, size), np.arange(size))


@pytest.mark.parametrize("size", [2**31 - 1, 2**32 + 1, 2**47 + 12345, 2**48, 2**61 + 1, 2**62])
def test_large_sizes_lose_nothing(size):
    """Fails when a width is wrong beyond 32 bits: results would collide, leave the range or not come back."""
    picked = np.unique(np.random.default_rng(size).integers(0, size, 20_000))
    permutation = KeyedPermutation(size, b"large")
    there = permutation.forward(picked, 3)
    assert there.min() >= 0
    assert there.max() < size
    assert len(np.unique(there)) == len(picked)
    np.testing.assert_array_equal(permutation.inverse(there, 3), picked)
    assert stats.kstest(there / size, "uniform").pvalue > RARE


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 2**62), key=st.binary(max_size=8), passes=st.integers(0, 2**62), data=st.data())
def test_forward_and_inverse_undo_each_other(size, key, passes, data):
    """Fails when a pass given as a number and as an array differ, or the inverse misses a round or the exchange."""
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), np.int64)
    permutation = KeyedPermutation(size, key)
    there = permutation.forward(indices, passes)
    np.testing.assert_array_equal(permutation.inverse(there, passes), indices)
    np.testing.assert_array_equal(permutation.forward(indices, np.full(len(indices), passes)), there)
    mixed = passes + np.arange(len(indices)) % 2
    alone = [permutation.forward(indices[k : k + 1], int(mixed[k]))[0] for k in range(len(indices))]
    np.testing.assert_array_equal(permutation.forward(indices, mixed), alone)


@pytest.mark.parametrize(("statistic", "size", "passes"), CASES)
def test_orders_are_as_irregular_as_chance(statistic, size, passes):
    """Fails with half the rounds; or without the exchange of 0 and 1, without which 20 are never shuffled oddly."""
    assert probability(statistic(orders(size, passes))) > RARE


@pytest.mark.parametrize(("statistic", "size", "passes"), CASES)
def test_numpys_own_permutations_pass(statistic, size, passes):
    """Fails when a statistic expects what no fair shuffle does."""
    assert probability(statistic(numpy_orders(size, passes))) > RARE


@pytest.mark.parametrize(
    ("statistic", "size", "passes", "rounds"),
    [(rank_of, 4, 100_000, 6), (pairs, 10, 40_000, 4), (steps, 64, 6_000, 4), (steps, 1000, 400, 3)],
)
def test_too_few_rounds_are_seen(statistic, size, passes, rounds):
    """Fails when a statistic goes blind: it must see the pattern that a shorter network leaves."""
    assert probability(statistic(orders(size, passes, rounds=rounds))) < RARE


def test_neighbours_are_not_correlated():
    """Fails when an index and its neighbours go to related places, at any of 20 distances (`ROUNDS = 2` does)."""
    size = 100_000
    there = KeyedPermutation(size, b"correlation").forward(np.arange(size), 0) / size - 0.5
    variance = np.mean(there**2)
    correlations = np.array([np.mean(there[k:] * there[:-k]) / variance for k in range(1, 21)])
    assert np.abs(correlations).max() < 4.5 / math.sqrt(size)  # 4.5 standard deviations


def test_passes_and_keys_are_not_correlated():
    """Fails when the pass is not mixed into every round's key, or two keys give related orders."""
    size = 100_000
    rows = [KeyedPermutation(size, b"0").forward(np.arange(size), number) for number in range(8)]
    rows += [KeyedPermutation(size, key).forward(np.arange(size), 0) for key in (b"1", b"2", b"\x000")]
    correlations = np.corrcoef(np.array(rows)) - np.eye(len(rows))
    assert np.abs(correlations).max() < 4.5 / math.sqrt(size)
    # Fixed points are Poisson distributed about 1 in two unrelated orders.
    assert max(int((rows[a] == rows[b]).sum()) for a in range(len(rows)) for b in range(a)) < 10


def test_a_size_beyond_the_range_is_refused():
    """Fails when the limit is dropped: 2**63 indices do not fit int64 arithmetic."""
    with pytest.raises(ValueError, match=r"^size must be 1 to 2\*\*62, got 0$"):
        KeyedPermutation(0, b"")
