/* Where targets lie among ascending times, by comparing a vector of them at once: first the last time of each run of
 * LANES, then one run. Nothing waits for what was found before, as it does in a binary search. */
#ifndef ROBOCACHE_COUNTING_H
#define ROBOCACHE_COUNTING_H

#include "robocache_native.h"

#ifdef __AVX2__
#include <immintrin.h>
#include <math.h>

/* How many of a vector of times are <= the target. */
static inline int64_t at_most_float32(const float *times, float target)
{
#ifdef __AVX512F__
    return __builtin_popcount(_mm512_cmp_ps_mask(_mm512_loadu_ps(times), _mm512_set1_ps(target), _CMP_LE_OQ));
#else
    __m256 found = _mm256_cmp_ps(_mm256_loadu_ps(times), _mm256_set1_ps(target), _CMP_LE_OQ);
    return __builtin_popcount((unsigned)_mm256_movemask_ps(found));
#endif
}

static inline int64_t at_most_float64(const double *times, double target)
{
#ifdef __AVX512F__
    return __builtin_popcount(_mm512_cmp_pd_mask(_mm512_loadu_pd(times), _mm512_set1_pd(target), _CMP_LE_OQ));
#else
    __m256d found = _mm256_cmp_pd(_mm256_loadu_pd(times), _mm256_set1_pd(target), _CMP_LE_OQ);
    return __builtin_popcount((unsigned)_mm256_movemask_pd(found));
#endif
}

static inline int64_t at_most_int64(const int64_t *times, int64_t target)
{
#ifdef __AVX512F__
    return __builtin_popcount(_mm512_cmple_epi64_mask(_mm512_loadu_si512(times), _mm512_set1_epi64(target)));
#else
    __m256i later = _mm256_cmpgt_epi64(_mm256_loadu_si256((const __m256i *)times), _mm256_set1_epi64x(target));
    return 4 - __builtin_popcount((unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(later)));
#endif
}

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#else
#define VECTOR_BYTES 32
#endif

#define TIME float
#define NAME(x) x##_float32
#define MOST INFINITY
#include "counting.inc"

#define TIME double
#define NAME(x) x##_float64
#define MOST ((double)INFINITY)
#include "counting.inc"

#define TIME int64_t
#define NAME(x) x##_int64
#define MOST INT64_MAX
#include "counting.inc"

#define COUNTERS {count_float32, count_float64, count_int64}
#else
#define VECTOR_BYTES 0
#define COUNTERS {NULL, NULL, NULL}
#endif
#endif
