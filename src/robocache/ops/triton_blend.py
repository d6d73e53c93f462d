"""Device code that mixes two samples: on a line, on a circle, on the sphere of rotations. Triton inlines it."""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops import limits
from robocache.ops.triton_search import divide, from_bits

SLERP, ANGLE = tl.constexpr(limits.SLERP), tl.constexpr(limits.ANGLE)


@triton.jit
def arithmetic(value, data_ptr):
    """To float64 for float64 data, to float32 for everything else."""
    if data_ptr.dtype.element_ty == tl.float64:
        converted = value.to(tl.float64)
    else:
        converted = value.to(tl.float32)
    return converted


@triton.jit
def _wrapped(angle, period):
    return angle - period * tl.floor(divide(angle, period) + 0.5)


@triton.jit
def _arc_cosine(cosine):
    """Of [0, 1]: Abramowitz & Stegun 4.4.46 (2e-8), then for float64 one Newton step."""
    series = -0.0012624911
    series = series * cosine + 0.0066700901
    series = series * cosine - 0.0170881256
    series = series * cosine + 0.0308918810
    series = series * cosine - 0.0501743046
    series = series * cosine + 0.0889789874
    series = series * cosine - 0.2145988016
    series = series * cosine + 1.5707963050
    angle = tl.sqrt(tl.maximum(1.0 - cosine, 0.0)) * series
    if cosine.dtype == tl.float64:
        angle = angle + (tl.cos(angle) - cosine) / tl.sin(angle)
    return angle


@triton.jit
def _small_arc_sine(sine):
    """Of [0, 0.016], by its series: the first term left out is below float64's rounding."""
    square = sine * sine
    return sine * (1 + square * (1 / 6 + square * (3 / 40 + square * (15 / 336 + square * (105 / 3456)))))


@triton.jit
def _unit(quaternions):
    return divide(quaternions, tl.sqrt(tl.sum(quaternions * quaternions, axis=2, keep_dims=True)) + quaternions * 0)


@triton.jit
def _slerp(low, high, weight, BLOCK_TARGET: tl.constexpr, BLOCK_DIM: tl.constexpr):
    low = _unit(tl.reshape(low, [BLOCK_TARGET, BLOCK_DIM // 4, 4]))
    high = _unit(tl.reshape(high, [BLOCK_TARGET, BLOCK_DIM // 4, 4]))
    weight = tl.reshape(weight, [BLOCK_TARGET, 1, 1])
    cosine = tl.sum(low * high, axis=2, keep_dims=True)
    high = tl.where(cosine < 0, -high, high)
    cosine = tl.abs(cosine)
    # The arc cosine has no digits left for small angles: take those from half the chord.
    is_near = cosine > 0.9995
    apart = high - low
    half_chord = 0.5 * tl.sqrt(tl.sum(apart * apart, axis=2, keep_dims=True))
    angle = tl.where(is_near, 2 * _small_arc_sine(half_chord), _arc_cosine(tl.where(is_near, 0.0, cosine)))
    is_same = angle < 1e-7
    sine = tl.sin(tl.where(is_same, 1.0, angle))
    share_low = tl.where(is_same, 1 - weight, divide(tl.sin((1 - weight) * angle), sine))
    share_high = tl.where(is_same, weight, divide(tl.sin(weight * angle), sine))
    return tl.reshape(_unit(share_low * low + share_high * high), [BLOCK_TARGET, BLOCK_DIM])


@triton.jit
def mixed(low, high, weight, period_bits, KIND, BLOCK_TARGET: tl.constexpr, BLOCK_DIM: tl.constexpr):
    if KIND == SLERP:
        between = _slerp(low, high, weight, BLOCK_TARGET, BLOCK_DIM)
    elif KIND == ANGLE:
        period = from_bits(period_bits, low)
        between = _wrapped(low + weight * _wrapped(high - low, period), period)
    else:
        # From the nearer end, so that the far end's rounding does not show close to a stamp.
        is_first_half = weight < 0.5
        between = tl.where(is_first_half, low, high) + tl.where(is_first_half, weight, weight - 1) * (high - low)
    return between
