/* Which inner loops this processor can run: a library built on one machine must work on another. */
#include "robocache_native.h"

#include <stdatomic.h>

static atomic_int_fast64_t highest = INT64_MAX;

static int64_t best_level(void)
{
    int64_t level = 0;
#ifdef HAS_X86_VARIANTS
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
        level = 1;
    if (level == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        level = 2;
#ifdef HAS_AVX512BF16
    if (level == 2 && __builtin_cpu_supports("avx512bf16"))
        level = 3;
#endif
#endif
    int64_t limit = atomic_load_explicit(&highest, memory_order_relaxed);
    return level < limit ? level : limit;
}

const inner_loops *best_inner_loops(void)
{
#ifdef HAS_X86_VARIANTS
    static const inner_loops *const loops[] = {
        &inner_loops_base, &inner_loops_avx2, &inner_loops_avx512,
#ifdef HAS_AVX512BF16
        &inner_loops_avx512bf16,
#endif
    };
    return loops[best_level()];
#else
    return &inner_loops_base;
#endif
}

/* 0 for every processor's instructions, 1 for AVX2, 2 for AVX-512, 3 with its bfloat16. */
EXPORT int64_t robocache_instructions(void)
{
    return best_level();
}

/* Use none beyond a level, so that tests see what other processors run. */
EXPORT void robocache_limit_instructions(int64_t level)
{
    atomic_store_explicit(&highest, level < 0 ? 0 : level, memory_order_relaxed);
}
