/* A copy that does not fetch the lines it overwrites. */
#ifndef ROBOCACHE_PAST_CACHES_H
#define ROBOCACHE_PAST_CACHES_H

#include "robocache_native.h"

#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__ /* one store a line makes a large fuse a few hundredths faster than four */
static inline void write_line(char *out, const char *from)
{
    _mm512_stream_si512((__m512i *)out, _mm512_load_si512(from));
}
#elif defined(__SSE2__)
static inline void write_line(char *out, const char *from)
{
    for (int64_t byte = 0; byte < LINE; byte += (int64_t)sizeof(__m128i))
        _mm_stream_si128((__m128i *)(out + byte), _mm_load_si128((const __m128i *)(from + byte)));
}
#else
static inline void write_line(char *out, const char *from)
{
    memcpy(out, from, LINE);
}
#endif

static void write_past_caches(char *out, const char *from, int64_t bytes)
{
    int64_t head = (int64_t)(-(uintptr_t)out & (LINE - 1));
    head = head < bytes ? head : bytes;
    memcpy(out, from, (size_t)head);
    int64_t at = head;
    for (; at + LINE <= bytes; at += LINE)
        write_line(out + at, from + at);
    memcpy(out + at, from + at, (size_t)(bytes - at));
}

#endif
