"""The order of samples on a GPU: `KeyedPermutation.forward`, then from a sample to the row where its window begins."""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.loader.permutation import FIRST_MULTIPLIER, SECOND_MULTIPLIER

_FIRST, _SECOND = tl.constexpr(int(FIRST_MULTIPLIER)), tl.constexpr(int(SECOND_MULTIPLIER))


@triton.jit
def _network(value, keys_ptr, low_bits, low_mask, low_shift, uppers, ROUNDS: tl.constexpr):
    upper = value >> low_bits
    lower = value & low_mask
    for number in tl.static_range(ROUNDS):
        key = tl.load(keys_ptr + number).to(tl.uint64, bitcast=True)
        other = lower if number % 2 == 0 else upper
        mixed = (other + key) * tl.full([1], _FIRST, tl.uint64)
        mixed = (mixed ^ (mixed >> 32)) * tl.full([1], _SECOND, tl.uint64)
        if number % 2 == 0:
            turned = upper + (((mixed >> 32) * uppers) >> 32)
            # Of both candidates one is in range, and the other is larger: what is below 0 wraps to the top.
            upper = tl.minimum(turned, turned - uppers)
        else:
            lower = lower ^ (mixed >> low_shift)
    value = (upper << low_bits) | lower
    swap = tl.load(keys_ptr + ROUNDS).to(tl.uint64, bitcast=True) >> 63
    return tl.where(value < 2, value ^ swap, value)


@triton.jit(do_not_specialize=["first", "count", "size", "low_bits", "uppers", "episodes", "search_step"])
def order_kernel(
    keys_ptr, offsets_ptr, rows_ptr, ends_ptr, numbers_ptr, to_starts_ptr, to_ends_ptr, to_episodes_ptr, to_frames_ptr,
    first, count, size, low_bits, uppers, episodes, search_step,
    SHUFFLES: tl.constexpr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What is at places `first` to `first + count` of the order: first row, end of the episode, episode and frame."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = first.to(tl.int64) + tl.minimum(place, count - 1)  # every lane's walk must end
    if SHUFFLES:
        bits = low_bits.to(tl.uint64)
        mask = (tl.full([1], 1, tl.uint64) << bits) - 1
        wide, size_ = uppers.to(tl.uint64), size.to(tl.uint64)
        value = _network(sample.to(tl.uint64), keys_ptr, bits, mask, 64 - bits, wide, ROUNDS)
        while tl.max((value >= size_).to(tl.int32), axis=0) > 0:  # ends: each walk is a cycle that began inside
            again = _network(value, keys_ptr, bits, mask, 64 - bits, wide, ROUNDS)
            value = tl.where(value >= size_, again, value)
        sample = value.to(tl.int64)
    episode = tl.zeros([BLOCK], tl.int32)
    step = search_step
    while step > 0:  # the last episode that begins at or before the sample
        probe = episode + step
        begins = tl.load(offsets_ptr + probe, mask=probe < episodes, other=0x7FFFFFFFFFFFFFFF)
        episode = tl.where(begins <= sample, probe, episode)
        step = step // 2
    frame = sample - tl.load(offsets_ptr + episode)
    is_in = place < count
    tl.store(to_starts_ptr + place, tl.load(rows_ptr + episode) + frame, mask=is_in)
    tl.store(to_ends_ptr + place, tl.load(ends_ptr + episode), mask=is_in)
    tl.store(to_episodes_ptr + place, tl.load(numbers_ptr + episode), mask=is_in)
    tl.store(to_frames_ptr + place, frame, mask=is_in)
