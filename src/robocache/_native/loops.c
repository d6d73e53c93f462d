/* The inner loops. Compiled once for each instruction set, with VARIANT its name; `best_inner_loops` chooses. */
#include "robocache_native.h"

#include <math.h>

#include "counting.h"
#include "lines.h"
#include "past_caches.h"

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

#ifdef HAS_LINE_FLOAT16
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
    COUNTERS,
    VECTOR_BYTES,
    write_past_caches,
};
