/* Which inner loops this processor can run: a library built on one machine must work on another. */
#include "robocache_native.h"

const inner_loops *best_inner_loops(void)
{
#ifdef HAS_X86_VARIANTS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &inner_loops_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &inner_loops_avx2;
#endif
    return &inner_loops_base;
}
