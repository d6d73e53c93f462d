"""Device code that mixes two samples: on a line, on a circle, on the sphere of rotations. Triton inlines it."""

from __future__ import annotations

import triton
import triton.language as tl

from robocache.ops import limits
from robocache.ops.backends import interprets_kernels
from robocache.ops.triton_search import divide, from_bits

LINEAR, SLERP, ANGLE = tl.constexpr(limits.LINEAR), tl.constexpr(limits.SLERP), tl.constexpr(limits.ANGLE)
IS_COMPILED = tl.constexpr(not interprets_kernels())  # the interpreter knows no PTX


@triton.jit
def arithmetic(value, data_ptr):
    """To float64 for float64 data, to float32 for everything else."""
    if data_ptr.dtype.element_ty == tl.float64:
        converted = value.to(tl.float64)
    else:
        converted = value.to(tl.float32)
    return converted


# Two numbers of 16 bits in one word, with one weight: both to float32, mixed, and back with one rounding. The compiler
# takes twice as many instructions, half of the roundings among them at an eighth of the speed. A weight of 0 keeps
# `low`, whatever `high` is.
_MIX_WORDS = """{{
.reg .f32 a, b, c, d;
.reg .b16 x, y;
.reg .pred p;
{unpack_low}
{unpack_high}
sub.rn.f32 c, c, a;
sub.rn.f32 d, d, b;
setp.neu.f32 p, $3, 0f00000000;
@p fma.rn.f32 a, $3, c, a;
@p fma.rn.f32 b, $3, d, b;
cvt.rn.{pair}.f32 $0, b, a;
}}"""
_BFLOAT16 = "shl.b32 {0}, {2}, 16;\nand.b32 {1}, {2}, 0xffff0000;"
_FLOAT16 = "mov.b32 {{x, y}}, {2};\ncvt.f32.f16 {0}, x;\ncvt.f32.f16 {1}, y;"


def _mix_words(unpack: str, pair: str) -> str:
    return _MIX_WORDS.format(
        unpack_low=unpack.format("a", "b", "$1"), unpack_high=unpack.format("c", "d", "$2"), pair=pair
    )


_MIX_BFLOAT16 = tl.constexpr(_mix_words(_BFLOAT16, "bf16x2"))
_MIX_FLOAT16 = tl.constexpr(_mix_words(_FLOAT16, "f16x2"))


@triton.jit
def mixed_words(low, high, weight, TYPE: tl.constexpr):
    """On a line, two numbers a word: `low` and `high` hold the bits of float16 or bfloat16 as int32."""
    ASSEMBLY: tl.constexpr = _MIX_BFLOAT16 if tl.bfloat16 == TYPE else _MIX_FLOAT16
    return tl.inline_asm_elementwise(ASSEMBLY, "=r,r,r,f", [low, high, weight], dtype=tl.int32, is_pure=True, pack=1)


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
        between = low + weight * (high - low)
    return between
