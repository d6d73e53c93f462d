/* Results larger than the caches, written past them. */
#include "robocache_native.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

void write_past_caches(char *out, const char *from, int64_t bytes)
{
#ifdef __SSE2__
    int64_t head = (int64_t)(-(uintptr_t)out & (LINE - 1));
    head = head < bytes ? head : bytes;
    memcpy(out, from, (size_t)head);
    int64_t at = head;
    for (; at + LINE <= bytes; at += LINE)
        for (int64_t byte = 0; byte < LINE; byte += (int64_t)sizeof(__m128i))
            _mm_stream_si128((__m128i *)(out + at + byte), _mm_load_si128((const __m128i *)(from + at + byte)));
    memcpy(out + at, from + at, (size_t)(bytes - at));
#else
    memcpy(out, from, (size_t)bytes);
#endif
}

void finish_writes(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}
