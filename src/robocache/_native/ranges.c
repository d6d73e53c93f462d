/* Points counted by a few threads in a grid that fits a cache. Each of them sorts its share of the points by ranges of
 * voxels; then each empties and counts ranges of its own, so that no line is written by two. Counts and occupancies are
 * the same in any order. */
#include "robocache_native.h"

#include "numbered.h"

#include <stdlib.h>
#include <string.h>

#define RANGES 4       /* a thread: each of them in a second cache */
#define MOST_RANGES 16 /* of the threads that count this way */
#define GIVEN 4096     /* entries that a range is given at a time: few pages, so that they are used again and again */

typedef struct {
    const voxelize_arguments *call;
    const inner_loops *loops;
    uint64_t voxels, scale; /* a voxel is of the range voxel * scale / 2**32 */
    int64_t ranges;
    int64_t blocks;    /* of a share */
    uint32_t *entries; /* [shares, blocks, GIVEN] voxels */
    int64_t *owners;   /* [shares, blocks] the range of a block, or -1 */
    int64_t *filled;   /* [shares, blocks] its entries */
} range_context;

static void sort_by_range(void *argument, int64_t part, int64_t parts)
{
    const range_context *context = argument;
    const voxelize_arguments *call = context->call;
    uint32_t *entries = context->entries + part * context->blocks * GIVEN;
    int64_t *owners = context->owners + part * context->blocks, *filled = context->filled + part * context->blocks;
    int64_t end = part_start(call->n, part + 1, parts), used = context->ranges, current[MOST_RANGES], counts[MOST_RANGES];
    uint32_t *next[MOST_RANGES];
    for (int64_t range = 0; range < context->ranges; ++range) {
        owners[range] = current[range] = range;
        next[range] = entries + range * GIVEN;
        counts[range] = 0;
    }
    numbered points = {part_start(call->n, part, parts), 0, {0}};
    while (number_next(call, context->loops, end, &points))
        for (int64_t at = 0; at < points.count; ++at) {
            /* A point that is dropped is written too, where the next one will be: its fate is not to be foreseen. */
            int is_kept = points.cells[at] >= 0;
            uint64_t cell = is_kept ? (uint64_t)points.cells[at] : 0, range = cell * context->scale >> 32;
            next[range][counts[range]] = (uint32_t)cell;
            counts[range] += is_kept;
            if (counts[range] == GIVEN) {
                filled[current[range]] = GIVEN;
                owners[used] = (int64_t)range;
                current[range] = used;
                next[range] = entries + used++ * GIVEN;
                counts[range] = 0;
            }
        }
    for (int64_t range = 0; range < context->ranges; ++range)
        filled[current[range]] = counts[range];
    for (; used < context->blocks; ++used)
        owners[used] = -1;
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
    for (int64_t block = 0; block < shares * context->blocks; ++block) {
        if (context->owners[block] != range)
            continue;
        const uint32_t *entries = context->entries + block * GIVEN;
        const int64_t count = context->filled[block];
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
    const int64_t ranges = RANGES * threads;
    range_context context = {
        call, loops, (uint64_t)voxels, ((uint64_t)ranges << 32) / (uint64_t)voxels, ranges, 0, NULL, NULL, NULL,
    };
    if (ranges > MOST_RANGES)
        return 0;
    context.blocks = (call->n / threads + 1) / GIVEN + ranges; /* as many as are full, and one begun for each range */
    size_t blocks = (size_t)(threads * context.blocks);
    context.entries = malloc(blocks * GIVEN * sizeof *context.entries);
    context.owners = malloc(blocks * sizeof *context.owners);
    context.filled = malloc(blocks * sizeof *context.filled);
    int has_memory = context.entries != NULL && context.owners != NULL && context.filled != NULL;
    if (has_memory) {
        run_parts(threads, sort_by_range, &context);
        run_parts(threads, count_ranges, &context);
    }
    free(context.entries);
    free(context.owners);
    free(context.filled);
    return has_memory;
}
