"""Device code that every kernel searches with: how many stamps are at or before a time, and which samples make it.

Triton inlines it. Numbers that must arrive whole come as bits, since Triton rounds every Python float to float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops import limits

SEARCH_FANOUT = 8  # ways to go at each node: 7 loads at once, and 1000 stamps are 4 loads deep

FANOUT = tl.constexpr(SEARCH_FANOUT)
LINEAR, NEAREST = tl.constexpr(limits.LINEAR), tl.constexpr(limits.NEAREST)
PREVIOUS = tl.constexpr(limits.PREVIOUS)
RUNTIME_OFFSET = tl.constexpr(limits.RUNTIME_OFFSET)
NAN, EXTRAPOLATE = tl.constexpr(limits.NAN), tl.constexpr(limits.EXTRAPOLATE)


def first_step(count: int) -> int:
    """The step of the first of the rounds that `count_at_or_before` needs for so many stamps."""
    step = 1
    while step * SEARCH_FANOUT <= count:
        step *= SEARCH_FANOUT
    return step


@triton.jit
def whole(number):
    """The integer that `limits.runtime_number` wrapped."""
    return (number >> 2) - RUNTIME_OFFSET


@triton.jit
def whole_bits(low, high):
    """The 64 bits that `limits.runtime_halves` wrapped."""
    return whole(low) | (whole(high) << 32)


@triton.jit
def _is_padding(stamps):
    if stamps.dtype.is_floating():
        is_padding = stamps == float("inf")
    else:
        is_padding = stamps != stamps
    return is_padding


@triton.jit
def from_bits(bits, like):
    """The number whose bits the host passed, in the dtype of `like`."""
    if like.dtype == tl.float32:
        number = bits.to(tl.int32).to(tl.float32, bitcast=True)
    elif like.dtype == tl.float64:
        number = bits.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        number = bits.to(tl.int64)
    return number


@triton.jit
def divide(numerator, denominator):
    """IEEE division: `/` is approximate for float32."""
    if numerator.dtype == tl.float32:
        quotient = tl.div_rn(numerator, denominator)
    else:
        quotient = numerator / denominator
    return quotient


@triton.jit
def _before_padding(wanted):
    """The wanted times with +inf, which padding is, moved before it."""
    if wanted.dtype == tl.float32:
        wanted = tl.where(wanted == float("inf"), 3.4028234663852886e38, wanted)
    elif wanted.dtype == tl.float64:
        wanted = tl.where(wanted == float("inf"), 1.7976931348623157e308, wanted)
    return wanted


@triton.jit
def count_at_or_before(times_ptr, count, wanted, first_step):
    """How many stamps are at or before each wanted time, [target]: a search tree of width FANOUT.

    Each thread walks the tree for a target of its own, so that a warp searches for 32 at once.
    """
    found = (wanted != wanted).to(tl.int32) * 0
    wanted = _before_padding(wanted)
    step = first_step
    while step > 0:
        passed = found * 0
        for lane in tl.static_range(1, FANOUT):
            at = found + (lane * step - 1)
            is_in = at < count
            stamp = tl.load(times_ptr + at, mask=is_in, other=0)
            passed += (is_in & (stamp <= wanted)).to(tl.int32)
        found += passed * step
        step = step // FANOUT
    return found


@triton.jit
def _last_of_equal(times_ptr, count, index, stamp, is_wanted):
    """Of equal stamps the last counts: walk to it. Streams without duplicates pay one load."""
    following = index + 1
    is_in = is_wanted & (following < count)
    moves = is_in & (tl.load(times_ptr + following, mask=is_in, other=0) == stamp)
    while tl.max(moves.to(tl.int32), axis=0) > 0:
        index = tl.where(moves, following, index)
        following = index + 1
        is_in = moves & (following < count)
        moves = is_in & (tl.load(times_ptr + following, mask=is_in, other=0) == stamp)
    return index


@triton.jit
def _first_of_equal(times_ptr, index, stamp, is_wanted):
    earlier = index - 1
    is_in = is_wanted & (earlier >= 0)
    moves = is_in & (tl.load(times_ptr + earlier, mask=is_in, other=0) == stamp)
    while tl.max(moves.to(tl.int32), axis=0) > 0:
        index = tl.where(moves, earlier, index)
        earlier = index - 1
        is_in = moves & (earlier >= 0)
        moves = is_in & (tl.load(times_ptr + earlier, mask=is_in, other=0) == stamp)
    return index


@triton.jit
def find_neighbours(times_ptr, count, wanted, first_step, gap_bits, KIND, OUTSIDE_RULE, HAS_GAP):
    """Which samples make each target: low, high, their times, and four masks; all [target]."""
    is_nan = wanted != wanted
    later = count_at_or_before(times_ptr, count, wanted, first_step)
    before = later - 1
    has_before = (later > 0) & ~is_nan
    has_after = (later < count) & ~is_nan
    time_before = tl.load(times_ptr + before, mask=has_before, other=0)
    time_after = tl.load(times_ptr + later, mask=has_after, other=0)
    has_after = has_after & ~_is_padding(time_after)
    is_exact = has_before & (time_before == wanted)
    is_inside = is_exact | (has_before & has_after)

    needs_after = has_after & ~is_exact
    if KIND == PREVIOUS:
        needs_after = needs_after & ~has_before
    after = _last_of_equal(times_ptr, count, later, time_after, needs_after)

    low = tl.where(has_before, before, after)
    time_low = tl.where(has_before, time_before, time_after)
    high = tl.where(needs_after, after, low)
    time_high = tl.where(needs_after, time_after, time_low)
    is_single = is_exact | ~is_inside
    gap = time_after - time_before
    if KIND == PREVIOUS:
        gap = wanted - time_before
        is_single = is_single | True
    elif KIND == NEAREST:
        since = wanted - time_before
        until = time_after - wanted
        is_later = ~is_single & (until < since)
        low = tl.where(is_later, after, low)
        gap = tl.where(is_later, until, since)
        is_single = is_single | True
    elif OUTSIDE_RULE == EXTRAPOLATE:
        # Before the range: the first sample and the next with another stamp. After it: the last two.
        is_early = has_after & ~has_before
        second = after + 1
        is_early = is_early & (second < count)
        time_second = tl.load(times_ptr + second, mask=is_early, other=0)
        is_early = is_early & ~_is_padding(time_second)
        second = _last_of_equal(times_ptr, count, second, time_second, is_early)
        is_late = has_before & ~has_after & ~is_exact
        previous = _first_of_equal(times_ptr, before, time_before, is_late) - 1
        is_late = is_late & (previous >= 0)
        time_previous = tl.load(times_ptr + previous, mask=is_late, other=0)
        low = tl.where(is_late, previous, low)
        time_low = tl.where(is_late, time_previous, time_low)
        high = tl.where(is_early, second, tl.where(is_late, before, high))
        time_high = tl.where(is_early, time_second, tl.where(is_late, time_before, time_high))
        is_single = is_single & ~is_early & ~is_late
    valid = is_inside
    if HAS_GAP:
        valid = is_inside & (is_exact | (gap <= from_bits(gap_bits, gap)))
    is_filled = ~(has_before | has_after)
    if OUTSIDE_RULE == NAN:
        is_filled = is_filled | ~valid
    return low, high, time_low, time_high, is_single, is_filled, valid
