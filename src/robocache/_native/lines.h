/* Lines between two rows, as in blend.inc, with instructions that compilers do not choose. They give the same bits.
 * HAS_LINE_... says which dtypes have one here. What is left of a row at its end is done in the same instructions, masked
 * or copied aside: many rows are shorter than a vector. */
#ifndef ROBOCACHE_LINES_H
#define ROBOCACHE_LINES_H

#include "numbers.h"

#include <math.h>
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifdef __AVX512F__
static inline __m512 mixed_16(__m512 start, __m512 end, __m512 share, int is_near)
{
    return _mm512_add_ps(is_near ? start : end, _mm512_mul_ps(share, _mm512_sub_ps(end, start)));
}
#endif

#ifdef __F16C__
static inline void mix_8_float16(const uint16_t *low, const uint16_t *high, uint16_t *out, __m256 share, int is_near)
{
    __m256 start = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)low));
    __m256 end = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)high));
    __m256 mixed = _mm256_add_ps(is_near ? start : end, _mm256_mul_ps(share, _mm256_sub_ps(end, start)));
    _mm_storeu_si128((__m128i *)out, _mm256_cvtps_ph(mixed, _MM_FROUND_TO_NEAREST_INT));
}

static inline void line_float16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                float weight)
{
    const int is_near = fabsf(weight) < 0.5f;
    const __m256 share = _mm256_set1_ps(is_near ? weight : weight - 1);
    int64_t at = 0;
    for (; at + 8 <= dim; at += 8)
        mix_8_float16(low + at, high + at, out + at, share, is_near);
    if (at < dim) {
        uint16_t start[8] = {0}, end[8] = {0}, mixed[8];
        const size_t bytes = (size_t)(dim - at) * sizeof *low;
        memcpy(start, low + at, bytes);
        memcpy(end, high + at, bytes);
        mix_8_float16(start, end, mixed, share, is_near);
        memcpy(out + at, mixed, bytes);
    }
}
#define HAS_LINE_FLOAT16
#endif

/* Two numbers in each 32 bits: vectors need not be widened, and narrowed again. */
static inline void pairs_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                  float share, int is_near)
{
    for (int64_t at = 0; at < dim / 2; ++at) {
        uint32_t start, end, mixed;
        memcpy(&start, low + 2 * at, sizeof start);
        memcpy(&end, high + 2 * at, sizeof end);
        float start_lower = float_of_bits(start << 16), start_upper = float_of_bits(start & 0xffff0000);
        float end_lower = float_of_bits(end << 16), end_upper = float_of_bits(end & 0xffff0000);
        float lower = (is_near ? start_lower : end_lower) + share * (end_lower - start_lower);
        float upper = (is_near ? start_upper : end_upper) + share * (end_upper - start_upper);
        mixed = above_bfloat16(lower) >> 16 | (above_bfloat16(upper) & 0xffff0000);
        memcpy(out + 2 * at, &mixed, sizeof mixed);
    }
    if (dim % 2) {
        float start = from_bfloat16(low[dim - 1]), end = from_bfloat16(high[dim - 1]);
        out[dim - 1] = to_bfloat16((is_near ? start : end) + share * (end - start));
    }
}

#ifdef __AVX512BF16__
/* 32 numbers with the rounding that the processor has. It knows neither subnormals nor our NaN: whether one is there. */
static inline __attribute__((always_inline)) unsigned rounded_32(__m512i start, __m512i end, __m512 share, int is_near,
                                                                 __m512i *mixed)
{
    static const uint16_t lowers_and_uppers[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const int nan_or_subnormal = 0xa1;
    const __m512i order = _mm512_loadu_si512(lowers_and_uppers), upper_half = _mm512_set1_epi32((int)0xffff0000);
    __m512 start_lower = _mm512_castsi512_ps(_mm512_slli_epi32(start, 16));
    __m512 start_upper = _mm512_castsi512_ps(_mm512_and_si512(start, upper_half));
    __m512 end_lower = _mm512_castsi512_ps(_mm512_slli_epi32(end, 16));
    __m512 end_upper = _mm512_castsi512_ps(_mm512_and_si512(end, upper_half));
    __m512 lower = mixed_16(start_lower, end_lower, share, is_near);
    __m512 upper = mixed_16(start_upper, end_upper, share, is_near);
    *mixed = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(upper, lower));
    return _mm512_fpclass_ps_mask(lower, nan_or_subnormal) | _mm512_fpclass_ps_mask(upper, nan_or_subnormal);
}

static inline void mix_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                float share, int is_near)
{
    const __m512 shares = _mm512_set1_ps(share);
    unsigned is_other = 0;
    __m512i mixed;
    int64_t at = 0;
    for (; at + 32 <= dim; at += 32) {
        is_other |= rounded_32(_mm512_loadu_si512(low + at), _mm512_loadu_si512(high + at), shares, is_near, &mixed);
        _mm512_storeu_si512(out + at, mixed);
    }
    if (at < dim) {
        const __mmask32 some = (UINT32_C(1) << (dim - at)) - 1;
        __m512i start = _mm512_maskz_loadu_epi16(some, low + at), end = _mm512_maskz_loadu_epi16(some, high + at);
        is_other |= rounded_32(start, end, shares, is_near, &mixed);
        _mm512_mask_storeu_epi16(out + at, some, mixed);
    }
    if (is_other)
        pairs_bfloat16(low, high, out, dim, share, is_near);
}
#else
#define mix_bfloat16 pairs_bfloat16
#endif

static inline void line_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                 float weight)
{
    if (fabsf(weight) < 0.5f)
        mix_bfloat16(low, high, out, dim, weight, 1);
    else
        mix_bfloat16(low, high, out, dim, weight - 1, 0);
}
#define HAS_LINE_BFLOAT16
#endif
