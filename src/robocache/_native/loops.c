/* The inner loops. Compiled once for each instruction set, with VARIANT its name; `best_inner_loops` chooses. */
#include "numbers.h"
#include "robocache_native.h"

#include <math.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

/* Shoemake's formula on the shorter arc. The angle from half chords: the arc cosine has no digits left for small ones. */
static void mix_quaternions(const double *start, const double *end, double weight, double *mixed)
{
    double start_norm = 0, end_norm = 0, dot = 0, apart = 0, together = 0, norm = 0, low[4], high[4];
    for (int k = 0; k < 4; ++k) {
        start_norm += start[k] * start[k];
        end_norm += end[k] * end[k];
    }
    start_norm = sqrt(start_norm);
    end_norm = sqrt(end_norm);
    for (int k = 0; k < 4; ++k) {
        low[k] = start[k] / start_norm;
        high[k] = end[k] / end_norm;
        dot += low[k] * high[k];
    }
    for (int k = 0; k < 4; ++k) {
        high[k] = dot < 0 ? -high[k] : high[k];
        apart += (high[k] - low[k]) * (high[k] - low[k]);
        together += (high[k] + low[k]) * (high[k] + low[k]);
    }
    double angle = 2 * atan2(sqrt(apart), sqrt(together)), share_low = 1 - weight, share_high = weight;
    if (!(angle < 1e-7)) { /* below, the chord and the arc agree to double precision */
        share_low = sin((1 - weight) * angle) / sin(angle);
        share_high = sin(weight * angle) / sin(angle);
    }
    for (int k = 0; k < 4; ++k) {
        mixed[k] = share_low * low[k] + share_high * high[k];
        norm += mixed[k] * mixed[k];
    }
    norm = sqrt(norm);
    for (int k = 0; k < 4; ++k)
        mixed[k] /= norm;
}

#ifdef __F16C__
/* As in blend.inc, with the conversions that the processor has. */
static inline void line_float16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                float weight)
{
    const int is_near = fabsf(weight) < 0.5f;
    const float share = is_near ? weight : weight - 1;
    const __m256 shares = _mm256_set1_ps(share);
    int64_t at = 0;
    for (; at + 8 <= dim; at += 8) {
        __m256 start = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(low + at)));
        __m256 end = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(high + at)));
        __m256 step = _mm256_mul_ps(shares, _mm256_sub_ps(end, start));
        __m256 mixed = _mm256_add_ps(is_near ? start : end, step);
        _mm_storeu_si128((__m128i *)(out + at), _mm256_cvtps_ph(mixed, _MM_FROUND_TO_NEAREST_INT));
    }
    for (; at < dim; ++at) {
        float start = from_float16(low[at]), end = from_float16(high[at]);
        out[at] = to_float16((is_near ? start : end) + share * (end - start));
    }
}
#define OWN_LINE
#endif

#define STORED uint16_t
#define REAL float
#define NAME(x) x##_float16
#define LOAD(v) from_float16(v)
#define STORE(v) to_float16(v)
#define FLOOR(v) floorf(v)
#define ABS(v) fabsf(v)
#include "blend.inc"

/* As in blend.inc, two numbers in each 32 bits: vectors need not be widened, and narrowed again. */
static inline void pairs_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t pairs,
                                  float share, int is_near)
{
    for (int64_t at = 0; at < pairs; ++at) {
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
}

/* How many pairs from the start are done; with the rounding that the processor has. It knows neither subnormals nor our
 * NaN: a row that holds one of them counts as not done. */
static inline int64_t rounded_pairs(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t pairs,
                                    float share, int is_near)
{
#ifdef __AVX512BF16__
    static const uint16_t lowers_and_uppers[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const int nan_or_subnormal = 0xa1;
    const __m512i order = _mm512_loadu_si512(lowers_and_uppers), upper_half = _mm512_set1_epi32((int)0xffff0000);
    const __m512 shares = _mm512_set1_ps(share);
    __mmask16 other = 0;
    int64_t at = 0;
    for (; at + 16 <= pairs; at += 16) {
        __m512i start = _mm512_loadu_si512(low + 2 * at), end = _mm512_loadu_si512(high + 2 * at);
        __m512 start_lower = _mm512_castsi512_ps(_mm512_slli_epi32(start, 16));
        __m512 start_upper = _mm512_castsi512_ps(_mm512_and_si512(start, upper_half));
        __m512 end_lower = _mm512_castsi512_ps(_mm512_slli_epi32(end, 16));
        __m512 end_upper = _mm512_castsi512_ps(_mm512_and_si512(end, upper_half));
        __m512 lower = _mm512_mul_ps(shares, _mm512_sub_ps(end_lower, start_lower));
        __m512 upper = _mm512_mul_ps(shares, _mm512_sub_ps(end_upper, start_upper));
        lower = _mm512_add_ps(is_near ? start_lower : end_lower, lower);
        upper = _mm512_add_ps(is_near ? start_upper : end_upper, upper);
        other |= _mm512_fpclass_ps_mask(lower, nan_or_subnormal) | _mm512_fpclass_ps_mask(upper, nan_or_subnormal);
        __m512i mixed = (__m512i)_mm512_cvtne2ps_pbh(upper, lower);
        _mm512_storeu_si512(out + 2 * at, _mm512_permutexvar_epi16(order, mixed));
    }
    return other ? 0 : at;
#else
    (void)low, (void)high, (void)out, (void)pairs, (void)share, (void)is_near;
    return 0;
#endif
}

static inline void mix_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                float share, int is_near)
{
    int64_t pairs = dim / 2, done = rounded_pairs(low, high, out, pairs, share, is_near);
    pairs_bfloat16(low + 2 * done, high + 2 * done, out + 2 * done, pairs - done, share, is_near);
    if (dim % 2) {
        float start = from_bfloat16(low[dim - 1]), end = from_bfloat16(high[dim - 1]);
        out[dim - 1] = to_bfloat16((is_near ? start : end) + share * (end - start));
    }
}

static inline void line_bfloat16(const uint16_t *low, const uint16_t *high, uint16_t *restrict out, int64_t dim,
                                 float weight)
{
    if (fabsf(weight) < 0.5f)
        mix_bfloat16(low, high, out, dim, weight, 1);
    else
        mix_bfloat16(low, high, out, dim, weight - 1, 0);
}
#define OWN_LINE

#define STORED uint16_t
#define REAL float
#define NAME(x) x##_bfloat16
#define LOAD(v) from_bfloat16(v)
#define STORE(v) to_bfloat16(v)
#define FLOOR(v) floorf(v)
#define ABS(v) fabsf(v)
#include "blend.inc"

#define STORED float
#define REAL float
#define NAME(x) x##_float32
#define LOAD(v) from_float(v)
#define STORE(v) from_float(v)
#define FLOOR(v) floorf(v)
#define ABS(v) fabsf(v)
#include "blend.inc"

#define STORED double
#define REAL double
#define NAME(x) x##_float64
#define LOAD(v) from_double(v)
#define STORE(v) from_double(v)
#define FLOOR(v) floor(v)
#define ABS(v) fabs(v)
#include "blend.inc"

#define STORED uint16_t
#define REAL float
#define NAME(x) x##_float16
#define LOAD(v) from_float16(v)
#include "cells.inc"

#define STORED uint16_t
#define REAL float
#define NAME(x) x##_bfloat16
#define LOAD(v) from_bfloat16(v)
#include "cells.inc"

#define STORED float
#define REAL float
#define NAME(x) x##_float32
#define LOAD(v) from_float(v)
#include "cells.inc"

#define STORED double
#define REAL double
#define NAME(x) x##_float64
#define LOAD(v) from_double(v)
#include "cells.inc"

#define STORED uint16_t
#define NAME(x) x##_float16
#define LOAD(v) from_float16(v)
#include "reduce.inc"

#define STORED uint16_t
#define NAME(x) x##_bfloat16
#define LOAD(v) from_bfloat16(v)
#include "reduce.inc"

#define STORED float
#define NAME(x) x##_float32
#define LOAD(v) from_float(v)
#include "reduce.inc"

#define STORED double
#define NAME(x) x##_float64
#define LOAD(v) from_double(v)
#include "reduce.inc"

#define JOINED(a, b) a##b
#define OF_VARIANT(a, b) JOINED(a, b)

const inner_loops OF_VARIANT(inner_loops_, VARIANT) = {
    {linear_float16, linear_bfloat16, linear_float32, linear_float64},
    {slerp_float16, slerp_bfloat16, slerp_float32, slerp_float64},
    {angle_float16, angle_bfloat16, angle_float32, angle_float64},
    {cells_float16, cells_bfloat16, cells_float32, cells_float64},
    {reduce_float16, reduce_bfloat16, reduce_float32, reduce_float64},
    {scatter_float16, scatter_bfloat16, scatter_float32, scatter_float64},
};
