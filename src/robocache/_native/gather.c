/* Rows from many places into one buffer: a batch, from episodes that lie wherever they were mapped. */
#include "robocache_native.h"

#include <string.h>

#define PAST_CACHES (8 << 20) /* results from here on do not fit the caches anyway */

static void copy_rows(char *out, const char *from, int64_t bytes, int is_large)
{
    if (is_large && ((uintptr_t)out & (LINE - 1)) == ((uintptr_t)from & (LINE - 1)) && bytes >= 64 * LINE)
        write_past_caches(out, from, bytes);
    else
        memcpy(out, from, (size_t)bytes);
}

static void gather_part(void *context, int64_t part, int64_t parts)
{
    const gather_arguments *call = context;
    const int64_t width = call->row_bytes;
    const int is_large = call->out_bytes >= PAST_CACHES;
    for (int64_t run = call->runs * part / parts; run < call->runs * (part + 1) / parts; ++run) {
        const int64_t rows = call->counts == NULL ? call->per_run : call->counts[run];
        char *out = call->out + (call->starts == NULL ? run * call->per_run : call->starts[run]) * width;
        const char *base = (const char *)(uintptr_t)call->bases[run];
        const int64_t first = call->first[run], last = call->last[run];
        if (base == NULL || first < 0 || first > last) {
            memset(out, 0, (size_t)(rows * width));
            continue;
        }
        const int64_t there = last - first + 1 < rows ? last - first + 1 : rows;
        copy_rows(out, base + first * width, there * width, is_large);
        for (int64_t row = there; row < rows; ++row)
            memcpy(out + row * width, base + last * width, (size_t)width);
    }
    if (is_large)
        finish_writes();
}

EXPORT int64_t robocache_gather(const gather_arguments *call)
{
    run_parts(useful_threads(call->threads, call->out_bytes / 8), gather_part, (void *)(uintptr_t)call);
    return 0;
}
