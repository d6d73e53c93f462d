/* Scaled bytes of results that may be larger than the caches. */
#include "robocache_native.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

void write_scaled(float *out, const uint8_t *from, int64_t count, int is_past_caches)
{
    int64_t at = 0;
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    const __m128 most = _mm_set1_ps(255);
    for (; at < count && ((uintptr_t)(out + at) & 15) != 0; ++at)
        out[at] = (float)from[at] / 255;
    for (; at + 16 <= count; at += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(from + at));
        __m128i halves[2] = {_mm_unpacklo_epi8(bytes, zero), _mm_unpackhi_epi8(bytes, zero)};
        for (int part = 0; part < 4; ++part) {
            __m128i half = halves[part / 2];
            __m128i words = part % 2 ? _mm_unpackhi_epi16(half, zero) : _mm_unpacklo_epi16(half, zero);
            __m128 scaled = _mm_div_ps(_mm_cvtepi32_ps(words), most);
            if (is_past_caches)
                _mm_stream_ps(out + at + 4 * part, scaled);
            else
                _mm_store_ps(out + at + 4 * part, scaled);
        }
    }
#else
    (void)is_past_caches;
#endif
    for (; at < count; ++at)
        out[at] = (float)from[at] / 255;
}

void finish_writes(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}
