/* Points counted by a few threads in a grid that fits a cache. Each of them sorts its share of the points by ranges of
 * voxels; then each empties and counts ranges of its own, so that no line is written by two. Counts and occupancies are
 * the same in any order. */
#include "robocache_native.h"

#include "numbered.h"

#include <stdlib.h>
#include <string.h>

#define RANGES 4       /* a thread: each of them in a second cache */
#define MANY (2 << 20) /* points, from which on a thread has one range: each range has room for all of a share */

typedef struct {
    const voxelize_arguments *call;
    const inner_loops *loops;
    uint64_t voxels, scale; /* a voxel is of the range voxel * scale / 2**32 */
    int64_t ranges;
    int64_t room;           /* points of a share, at most */
    uint32_t *entries;      /* [shares, ranges, room] voxels */
    int64_t *counts;        /* [shares, ranges] */
} range_context;

static void sort_by_range(void *argument, int64_t part, int64_t parts)
{
    const range_context *context = argument;
    const voxelize_arguments *call = context->call;
    uint32_t *entries = context->entries + part * context->ranges * context->room;
    int64_t *counts = context->counts + part * context->ranges, end = part_start(call->n, part + 1, parts);
    numbered points = {part_start(call->n, part, parts), 0, {0}};
    while (number_next(call, context->loops, end, &points))
        for (int64_t at = 0; at < points.count; ++at) {
            /* A point that is dropped is written too, where the next one will be: its fate is not to be foreseen. */
            int is_kept = points.cells[at] >= 0;
            uint64_t cell = is_kept ? (uint64_t)points.cells[at] : 0, range = cell * context->scale >> 32;
            entries[(int64_t)range * context->room + counts[range]] = (uint32_t)cell;
            counts[range] += is_kept;
        }
}

static uint64_t first_voxel(const range_context *context, int64_t range)
{
    return range == context->ranges ? context->voxels : (((uint64_t)range << 32) + context->scale - 1) / context->scale;
}

static void count_range(const range_context *context, int64_t range, int64_t shares)
{
    uint32_t *grid = (uint32_t *)context->call->out;
    uint64_t first = first_voxel(context, range), end = first_voxel(context, range + 1);
    memset(grid + first, 0, (size_t)(end - first) * sizeof *grid);
    for (int64_t share = 0; share < shares; ++share) {
        const uint32_t *entries = context->entries + (share * context->ranges + range) * context->room;
        const int64_t count = context->counts[share * context->ranges + range];
        if (context->call->mode == MODE_OCCUPANCY)
            for (int64_t at = 0; at < count; ++at)
                grid[entries[at]] = 1;
        else
            for (int64_t at = 0; at < count; ++at)
                ++grid[entries[at]];
    }
}

static void count_ranges(void *argument, int64_t part, int64_t parts)
{
    const range_context *context = argument;
    for (int64_t range = part; range < context->ranges; range += parts)
        count_range(context, range, parts);
}

int count_by_ranges(const voxelize_arguments *call, const inner_loops *loops, int64_t voxels, int64_t threads)
{
    const int64_t ranges = call->n < MANY ? RANGES * threads : threads;
    range_context context = {
        call, loops, (uint64_t)voxels, ((uint64_t)ranges << 32) / (uint64_t)voxels, ranges, 0, NULL, NULL,
    };
    context.room = call->n / threads + 2; /* one for the rest of the division, one that is written in vain */
    context.entries = malloc((size_t)(threads * ranges * context.room) * sizeof *context.entries);
    context.counts = calloc((size_t)(threads * ranges), sizeof *context.counts);
    int has_memory = context.entries != NULL && context.counts != NULL;
    if (has_memory) {
        run_parts(threads, sort_by_range, &context);
        run_parts(threads, count_ranges, &context);
    }
    free(context.entries);
    free(context.counts);
    return has_memory;
}
