"""How many samples each dataset of a mixture gives, and when: counted out and spread evenly, nothing drawn."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def largest_remainder_counts(weights: Sequence[Fraction], total: int) -> list[int]:
    """`total` seats shared in proportion to `weights`, by Hamilton's method: each share within one of its exact value.

    Args:
        weights: Numbers of 0 or more, not all 0.
        total: What the counts sum to.
    """
    whole = sum(weights)
    shares = [weight * total / whole for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


@dataclass(frozen=True)
class _Fork:
    """Slots that two parts share; a part is a dataset's number or another fork."""

    left: _Fork | int
    right: _Fork | int
    left_count: int
    total: int


class Interleaving:
    """Slots shared by datasets, each dataset's spread evenly over all of them.

    A slot's dataset is computed from the slot alone. Two datasets alternate as the pixels of a line do that climbs by
    their proportion (Bresenham). More than two are joined two by two, the smallest first (Huffman's tree), so that a
    large dataset is reached in few steps.

    Args:
        counts: How many slots each dataset gets; their sum at most 2**48.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        parts: list[tuple[int, int, _Fork | int]] = [(n, place, place) for place, n in enumerate(counts) if n > 0]
        heapq.heapify(parts)
        for number in range(len(counts), len(counts) + len(parts) - 1):
            (small, _, left), (large, _, right) = heapq.heappop(parts), heapq.heappop(parts)
            total = small + large
            heapq.heappush(parts, (total, number, _Fork(left, right, small, total)))
        self._root = parts[0][2]

    def shares(self, slots: Integers) -> Iterator[tuple[int, Integers, Integers]]:
        """For each dataset among `slots`: its number, where in `slots` it comes, and which of its slots those are.

        Args:
            slots: [sample] numbers of [0, sum of counts), in any order.
        """
        open_parts: list[tuple[_Fork | int, Integers, Integers]] = [(self._root, np.arange(len(slots)), slots)]
        while open_parts:
            part, where, own_slots = open_parts.pop()
            if len(where) == 0:
                continue
            if isinstance(part, int):
                yield part, where, own_slots
                continue
            before, is_left = _left_before(own_slots, part.left_count, part.total)
            open_parts.append((part.right, where[~is_left], (own_slots - before)[~is_left]))
            open_parts.append((part.left, where[is_left], before[is_left]))


def _left_before(slots: Integers, count: int, total: int) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """How many of the left part's slots lie before each of `slots`, and whether the slot itself is one.

    That is (slot * count + total // 2) divided by total. The product may have 96 bits, so the division is done by
    hand, as many bits of the slot at a time as leave every intermediate value below 2**64.
    """
    digit_bits = 62 - total.bit_length()
    quotient = np.zeros(len(slots), np.uint64)
    remainder = np.zeros(len(slots), np.uint64)
    numerator = slots.astype(np.uint64)
    digits = -(-total.bit_length() // digit_bits)
    for place in reversed(range(digits)):
        digit = (numerator >> np.uint64(place * digit_bits)) & np.uint64(2**digit_bits - 1)
        value = (remainder << np.uint64(digit_bits)) + digit * np.uint64(count)
        if place == 0:
            value += np.uint64(total // 2)
        whole, remainder = np.divmod(value, np.uint64(total))
        quotient = (quotient << np.uint64(digit_bits)) + whole
    return quotient.astype(np.int64), remainder + np.uint64(count) >= np.uint64(total)
