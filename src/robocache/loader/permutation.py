"""A shuffle that needs no memory: where each index goes is computed, not stored."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

# Chi-square tests saw patterns after 5 rounds of a thousand indices, and after 6 of ten: small halves mix slowly. A
# half of a single bit still showed them after 20, so the smallest network has two bits a half.
ROUNDS, SMALL_ROUNDS, SMALL_SIZE = 8, 14, 256
_FEWEST_BITS = 4
_LARGEST = 2**62
_BLOCK = 16384  # indices at a time: the buffers of one block stay in the processor's cache

# The multipliers of Murmur3's 64-bit finaliser, and SplitMix64's step: 2**64 over the golden ratio.
FIRST_MULTIPLIER = np.uint64(0xFF51AFD7ED558CCD)
SECOND_MULTIPLIER = np.uint64(0xC4CEB9FE1A85EC53)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_SHIFT = np.uint64(33)
_TOP_BIT = np.uint64(63)


class Network(NamedTuple):
    """One pass of a `KeyedPermutation` in numbers, for a kernel that computes it elsewhere.

    Args:
        keys: [round + 1] uint64: of the rounds and of the transposition.
        low_bits: Bits of the lower half.
        uppers: How many values the upper half has.
    """

    keys: Words
    low_bits: int
    uppers: int


class KeyedPermutation:
    """Bijections of [0, `size`), one for each key and pass, in constant memory and in both directions.

    An index is cut into its lower bits and the rest, of which there are about as many. Each round takes a hash of one
    half to the other, by XOR to the lower and by a sum, modulo what the upper can be, to the upper: a Feistel network
    (Luby and Rackoff, "How to construct pseudorandom permutations", 1988) on a domain that is hardly larger than
    `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). A result outside [0, `size`) is put
    through the network again until it falls inside: their cycle walking. One key in two exchanges 0 and 1 at the end,
    because rounds alone may make even permutations only, which small sizes betray. The hash is what lies between two
    multiplications of Murmur3's finaliser; the round keys of a pass come from SplitMix64. It shuffles; it does not
    hide anything.

    Args:
        size: How many indices are permuted, 1 to 2**62.
        key: Whatever tells this permutation from others, as bytes.
        rounds: Rounds of the network; None takes what the size needs.
    """

    def __init__(self, size: int, key: bytes, *, rounds: int | None = None) -> None:
        if not 1 <= size <= _LARGEST:
            raise ValueError(f"size must be 1 to 2**62, got {size}")
        if rounds is None:
            rounds = SMALL_ROUNDS if size <= SMALL_SIZE else ROUNDS
        self.size, self._rounds = size, rounds
        low_bits = max(_FEWEST_BITS, (size - 1).bit_length()) // 2
        self._low_bits, self._low_mask = np.uint64(low_bits), np.uint64(2**low_bits - 1)
        self._low_shift = np.uint64(64 - low_bits)  # a hash's upper bits are its best
        self._uppers = np.uint64(max(2 ** (_FEWEST_BITS // 2), -(-size // 2**low_bits)))
        self._words = np.frombuffer(hashlib.shake_256(key).digest(8 * (rounds + 1)), dtype="<u8").astype(np.uint64)

    def forward(self, indices: npt.NDArray[np.int64], passes: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Where each of `indices` goes.

        Args:
            indices: [sample] numbers of [0, `size`).
            passes: Which of the key's permutations to take: one number for all, or [sample].
        """
        return self._walk(indices, passes, inverse=False)

    def inverse(self, indices: npt.NDArray[np.int64], passes: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """What `forward` sends to each of `indices`; the arguments are the same."""
        return self._walk(indices, passes, inverse=True)

    def network(self, number: int) -> Network:
        """What `forward` computes with in pass `number`; every size but 1 goes through it."""
        keys = self._keys(np.asarray([number % 2**64], np.uint64))[:, 0]
        return Network(keys, int(self._low_bits), int(self._uppers))

    def _walk(
        self, indices: npt.NDArray[np.int64], passes: npt.NDArray[np.int64] | int, *, inverse: bool
    ) -> npt.NDArray[np.int64]:
        if self.size == 1:
            return np.zeros(len(indices), np.int64)
        out = np.empty(len(indices), np.int64)
        keys = self._keys(np.asarray([passes % 2**64], np.uint64)) if isinstance(passes, int) else None
        for first in range(0, len(indices), _BLOCK):
            block = slice(first, first + _BLOCK)
            block_keys = self._keys(_few(np.asarray(passes)[block].astype(np.uint64))) if keys is None else keys
            out[block] = self._walk_block(indices[block].astype(np.uint64), block_keys, inverse=inverse)
        return out

    def _walk_block(self, indices: Words, keys: Words, *, inverse: bool) -> Words:
        values = self._network(indices, keys, inverse=inverse)
        outside = np.flatnonzero(values >= np.uint64(self.size))
        while outside.size:  # ends: each walk is a cycle that began inside
            own_keys = keys if keys.shape[1] == 1 else keys[:, outside]
            again = self._network(values[outside], own_keys, inverse=inverse)
            values[outside] = again
            outside = outside[again >= np.uint64(self.size)]
        return values

    def _network(self, values: Words, keys: Words, *, inverse: bool) -> Words:
        if inverse:
            values = values ^ _transposition(values, keys[-1])
        halves = (values >> self._low_bits, values & self._low_mask)
        mixed, folded = np.empty_like(values), np.empty_like(values)
        for number in reversed(range(self._rounds)) if inverse else range(self._rounds):
            changed = number % 2
            np.add(halves[1 - changed], keys[number], out=mixed)
            np.multiply(mixed, FIRST_MULTIPLIER, out=mixed)
            np.right_shift(mixed, _HALF, out=folded)
            np.bitwise_xor(mixed, folded, out=mixed)
            np.multiply(mixed, SECOND_MULTIPLIER, out=mixed)
            if changed:
                np.right_shift(mixed, self._low_shift, out=mixed)
                np.bitwise_xor(halves[1], mixed, out=halves[1])
            else:
                self._turn(halves[0], mixed, folded, inverse=inverse)
        values = (halves[0] << self._low_bits) | halves[1]
        return values if inverse else values ^ _transposition(values, keys[-1])

    def _turn(self, upper: Words, mixed: Words, buffer: Words, *, inverse: bool) -> None:
        """Add the hash to the upper half, or take it away, modulo the number of uppers."""
        np.right_shift(mixed, _HALF, out=mixed)
        np.multiply(mixed, self._uppers, out=mixed)
        np.right_shift(mixed, _HALF, out=mixed)
        # Of both candidates one is in range, and the other is larger: what is below 0 wraps to the top of 64 bits.
        if inverse:
            np.subtract(upper, mixed, out=upper)
            np.add(upper, self._uppers, out=buffer)
        else:
            np.add(upper, mixed, out=upper)
            np.subtract(upper, self._uppers, out=buffer)
        np.minimum(upper, buffer, out=upper)

    def _keys(self, passes: Words) -> Words:
        """[round + 1, pass] keys of the rounds and of the transposition."""
        keys = self._words[:, None] + passes[None, :] * _STEP
        for multiplier in (FIRST_MULTIPLIER, SECOND_MULTIPLIER):
            keys = (keys ^ (keys >> _SHIFT)) * multiplier
        mixed: Words = keys ^ (keys >> _SHIFT)
        return mixed


def _few(passes: Words) -> Words:
    """One pass where all are the same, so that its keys are made once."""
    return passes[:1] if (passes == passes[0]).all() else passes


def _transposition(values: Words, key: Words) -> Words:
    """What exchanges 0 and 1, under half of the keys, so that odd permutations come as often as even ones."""
    swaps: Words = (values < np.uint64(2)) & (key >> _TOP_BIT)
    return swaps
