/* Rows from many places into one buffer: a batch, from episodes that lie wherever they were mapped. */
#include "robocache_native.h"

#include <string.h>

#define PAST_CACHES (8 << 20) /* results from here on do not fit the caches anyway */

static void copy_rows(char *out, const char *from, int64_t bytes, int is_large)
{
    if (is_large && ((uintptr_t)out & (LINE - 1)) == ((uintptr_t)from & (LINE - 1)) && bytes >= 64 * LINE)
        best_inner_loops()->write_past_caches(out, from, bytes);
    else
        memcpy(out, from, (size_t)bytes);
}

static void put_rows(const gather_arguments *call, char *out, const char *from, int64_t bytes, int is_large)
{
    if (call->is_scaled)
        write_scaled((float *)(void *)out, (const uint8_t *)from, bytes, is_large);
    else
        copy_rows(out, from, bytes, is_large);
}

static void gather_part(void *context, int64_t part, int64_t parts)
{
    const gather_arguments *call = context;
    const int64_t width = call->row_bytes, out_width = call->is_scaled ? width * (int64_t)sizeof(float) : width;
    const int is_large = call->out_bytes >= PAST_CACHES;
    for (int64_t run = call->runs * part / parts; run < call->runs * (part + 1) / parts; ++run) {
        const int64_t rows = call->counts == NULL ? call->per_run : call->counts[run];
        char *out = call->out + (call->starts == NULL ? run * call->per_run : call->starts[run]) * out_width;
        const char *base = (const char *)(uintptr_t)call->bases[run];
        const int64_t first = call->first[run], last = call->last[run];
        if (base == NULL || first < 0 || first > last) {
            memset(out, 0, (size_t)(rows * out_width));
            continue;
        }
        const int64_t there = last - first + 1 < rows ? last - first + 1 : rows;
        put_rows(call, out, base + first * width, there * width, is_large);
        for (int64_t row = there; row < rows; ++row)
            put_rows(call, out + row * out_width, base + last * width, width, is_large);
    }
    if (is_large)
        finish_writes();
}

EXPORT int64_t robocache_gather(const gather_arguments *call)
{
    run_parts(useful_threads(call->threads, call->out_bytes / 8), gather_part, (void *)(uintptr_t)call);
    return 0;
}
