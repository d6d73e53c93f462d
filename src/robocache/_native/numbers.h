/* Half precisions to float and back, rounding to nearest even, in forms without branches that compilers vectorise. */
#ifndef ROBOCACHE_NUMBERS_H
#define ROBOCACHE_NUMBERS_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float from_bfloat16(uint16_t half)
{
    return float_of_bits((uint32_t)half << 16);
}

/* The bits of a bfloat16 above 16 others of any value. */
static inline uint32_t above_bfloat16(float value)
{
    uint32_t bits = bits_of_float(value), rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return value != value ? 0x7fc00000 : rounded;
}

static inline uint16_t to_bfloat16(float value)
{
    return (uint16_t)(above_bfloat16(value) >> 16);
}

static inline float from_float16(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13, exponent = bits & 0x0f800000;
    /* Subnormals: a number with that mantissa, less the number without. */
    float small = float_of_bits(bits + (113u << 23)) - float_of_bits(113u << 23);
    uint32_t large = bits + ((exponent == 0x0f800000 ? 224u : 112u) << 23);
    uint32_t magnitude = exponent == 0 ? bits_of_float(small) : large;
    return float_of_bits(magnitude | (uint32_t)(half & 0x8000) << 16);
}

static inline uint16_t to_float16(float value)
{
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    /* Subnormals: the sum is aligned so that its last bits are the half's, rounded by the addition. */
    uint32_t small = bits_of_float(float_of_bits(bits) + 0.5f) - 0x3f000000;
    uint32_t normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    uint32_t large = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t half = bits >= 0x47800000 ? large : bits < 0x38800000 ? small : normal;
    return (uint16_t)(half | sign);
}

static inline float from_float(float value)
{
    return value;
}

static inline double from_double(double value)
{
    return value;
}
#endif
