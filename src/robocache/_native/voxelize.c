/* Points into voxels. Few voxels are counted where they lie. Otherwise points are first sorted into tiles, runs of
 * voxels that fit a cache: then every byte of the grid is written once, in order, and threads share no voxel. The sort
 * keeps the order of the points, so that sums are the same for any number of threads. */
#include "robocache_native.h"

#include "numbered.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TILE_BYTES 262144  /* of the grid in a tile */
#define SORTING_THREADS 5  /* so many sort and count points sooner than they do by ranges */

enum { DONE, NO_MEMORY };

typedef struct {
    const voxelize_arguments *call;
    const inner_loops *loops;
    int64_t voxels, row_bytes; /* of all clouds; bytes of one voxel */
    int64_t tile_shift, tiles;
    int64_t *starts;   /* [parts, tiles]: how many, then where the next entry goes */
    int64_t *bounds;   /* [tiles + 1] */
    uint64_t *entries;
    uint32_t *counts; /* [parts, voxels of a tile] */
    atomic_int_fast64_t next;
} voxelize_context;

/* By the mode: the features of no points may be at NULL. */
static int is_counting(const voxelize_arguments *call)
{
    return call->mode == MODE_OCCUPANCY || call->mode == MODE_COUNT;
}

static void count_where_they_lie(const voxelize_context *context)
{
    const voxelize_arguments *call = context->call;
    int32_t *grid = (int32_t *)call->out;
    numbered points = {0, 0, {0}};
    while (number_next(call, context->loops, call->n, &points)) {
        if (call->mode == MODE_OCCUPANCY) {
            for (int64_t at = 0; at < points.count; ++at)
                if (points.cells[at] >= 0)
                    grid[points.cells[at]] = 1;
        } else {
            for (int64_t at = 0; at < points.count; ++at)
                if (points.cells[at] >= 0)
                    /* Unsigned: a count wraps, as it does elsewhere. */
                    grid[points.cells[at]] = (int32_t)((uint32_t)grid[points.cells[at]] + 1);
        }
    }
}

static void count_tiles(void *argument, int64_t part, int64_t parts)
{
    const voxelize_context *context = argument;
    const voxelize_arguments *call = context->call;
    int64_t *tiles = context->starts + part * context->tiles, end = part_start(call->n, part + 1, parts);
    numbered points = {part_start(call->n, part, parts), 0, {0}};
    while (number_next(call, context->loops, end, &points))
        for (int64_t at = 0; at < points.count; ++at)
            if (points.cells[at] >= 0)
                ++tiles[points.cells[at] >> context->tile_shift];
}

static void place_entries(const voxelize_context *context, int64_t parts)
{
    int64_t place = 0;
    for (int64_t tile = 0; tile < context->tiles; ++tile) {
        context->bounds[tile] = place;
        for (int64_t part = 0; part < parts; ++part) {
            int64_t *start = &context->starts[part * context->tiles + tile], count = *start;
            *start = place;
            place += count;
        }
    }
    context->bounds[context->tiles] = place;
}

static void sort_into_tiles(void *argument, int64_t part, int64_t parts)
{
    const voxelize_context *context = argument;
    const voxelize_arguments *call = context->call;
    int64_t *next = context->starts + part * context->tiles, end = part_start(call->n, part + 1, parts);
    const uint64_t inside = (UINT64_C(1) << context->tile_shift) - 1;
    numbered points = {part_start(call->n, part, parts), 0, {0}};
    while (number_next(call, context->loops, end, &points))
        for (int64_t at = 0; at < points.count; ++at)
            if (points.cells[at] >= 0) {
                uint64_t cell = (uint64_t)points.cells[at];
                context->entries[next[cell >> context->tile_shift]++] =
                    (cell & inside) << POINT_BITS | (uint64_t)(points.at + at);
            }
}

static void fill_tile(const voxelize_context *context, int64_t tile, uint32_t *counts)
{
    const voxelize_arguments *call = context->call;
    int64_t first = tile << context->tile_shift, voxels = INT64_C(1) << context->tile_shift;
    voxels = context->voxels - first < voxels ? context->voxels - first : voxels;
    char *out = call->out + first * context->row_bytes;
    if (call->is_fresh && context->voxels * context->row_bytes >= MAPPED_BYTES)
        populate(out, voxels * context->row_bytes);
    memset(out, 0, (size_t)(voxels * context->row_bytes));
    const uint64_t *entries = context->entries + context->bounds[tile];
    int64_t count = context->bounds[tile + 1] - context->bounds[tile];
    if (count == 0)
        return;
    if (is_counting(call)) {
        uint32_t *grid = (uint32_t *)out;
        for (int64_t at = 0; at < count; ++at) {
            uint32_t *voxel = &grid[entries[at] >> POINT_BITS];
            *voxel = call->mode == MODE_COUNT ? *voxel + 1 : 1;
        }
        return;
    }
    const tile_arguments work = {entries, count, voxels, (float *)out, counts, call};
    context->loops->reduce[call->feature_dtype](&work);
}

static void fill_tiles(void *argument, int64_t part, int64_t parts)
{
    voxelize_context *context = argument;
    (void)parts;
    uint32_t *counts = context->counts + (part << context->tile_shift);
    int64_t tile;
    while ((tile = atomic_fetch_add(&context->next, 1)) < context->tiles)
        fill_tile(context, tile, counts);
}

static int64_t through_tiles(voxelize_context *context, int64_t threads)
{
    const voxelize_arguments *call = context->call;
    while (context->tile_shift > 4 && context->row_bytes << context->tile_shift > TILE_BYTES)
        --context->tile_shift;
    context->tiles = ((context->voxels - 1) >> context->tile_shift) + 1;
    context->starts = calloc((size_t)(threads * context->tiles), sizeof *context->starts);
    context->bounds = malloc((size_t)(context->tiles + 1) * sizeof *context->bounds);
    context->entries = malloc((size_t)call->n * sizeof *context->entries + 1);
    context->counts = calloc((size_t)(threads << context->tile_shift), sizeof *context->counts);
    int64_t result = NO_MEMORY;
    if (context->starts != NULL && context->bounds != NULL && context->entries != NULL && context->counts != NULL) {
        run_parts(threads, count_tiles, context);
        place_entries(context, threads);
        run_parts(threads, sort_into_tiles, context);
        run_parts(threads, fill_tiles, context);
        result = DONE;
    }
    free(context->starts);
    free(context->bounds);
    free(context->entries);
    free(context->counts);
    return result;
}

EXPORT int64_t robocache_voxelize(const voxelize_arguments *call)
{
    voxelize_context context = {.call = call, .loops = best_inner_loops(), .tile_shift = 16};
    context.voxels = call->clouds * call->size[0] * call->size[1] * call->size[2];
    context.row_bytes = is_counting(call) ? 4 : 4 * call->width;
    int64_t bytes = context.voxels * context.row_bytes;
    if (bytes == 0)
        return DONE;
    if (call->is_fresh && bytes >= MAPPED_BYTES)
        use_large_pages(call->out, bytes);
    int64_t threads = useful_threads(call->threads, call->n * (is_counting(call) ? 1 : call->width));
    if (is_counting(call) && threads < SORTING_THREADS && bytes < MAPPED_BYTES) {
        if (threads > 1 && count_by_ranges(call, context.loops, context.voxels, threads))
            return DONE;
        memset(call->out, 0, (size_t)bytes);
        count_where_they_lie(&context);
        return DONE;
    }
    return through_tiles(&context, threads);
}

static void clear_touched(const update_arguments *call)
{
    const voxelize_arguments *cloud = &call->cloud;
    if (is_counting(cloud))
        for (int64_t at = 0; at < call->cleared; ++at)
            ((int32_t *)cloud->out)[call->touched[at]] = 0;
    else
        for (int64_t at = 0; at < call->cleared; ++at)
            memset(cloud->out + call->touched[at] * cloud->width * 4, 0, (size_t)cloud->width * 4);
}

/* Lists a voxel for every point: a store goes on without waiting for what was there. */
static int64_t count_block(const update_arguments *call, const numbered *points, int64_t touched)
{
    uint32_t *grid = (uint32_t *)call->cloud.out;
    if (call->touched != NULL)
        for (int64_t at = 0; at < points->count; ++at) {
            call->touched[touched] = points->cells[at];
            touched += points->cells[at] >= 0;
        }
    if (call->cloud.mode == MODE_OCCUPANCY) {
        for (int64_t at = 0; at < points->count; ++at)
            if (points->cells[at] >= 0)
                grid[points->cells[at]] = 1;
    } else {
        for (int64_t at = 0; at < points->count; ++at)
            if (points->cells[at] >= 0)
                ++grid[points->cells[at]];
    }
    return touched;
}

static void finish_touched(const update_arguments *call, int64_t touched)
{
    const int64_t width = call->cloud.width;
    for (int64_t at = call->kept; at < touched; ++at) {
        uint32_t *count = &call->counts[call->touched[at]];
        float *row = (float *)call->cloud.out + call->touched[at] * width;
        if (call->cloud.mode == MODE_MEAN && *count > 1)
            for (int64_t f = 0; f < width; ++f)
                row[f] /= (float)*count;
        *count = 0;
    }
}

/* Empties what was touched and adds one cloud, in the order of its points; returns how many voxels are touched. */
EXPORT int64_t robocache_update(const update_arguments *call)
{
    const voxelize_context context = {.call = &call->cloud, .loops = best_inner_loops()};
    int64_t touched = call->kept;
    numbered points = {0, 0, {0}};
    clear_touched(call);
    while (number_next(&call->cloud, context.loops, call->cloud.n, &points)) {
        if (is_counting(&call->cloud)) {
            touched = count_block(call, &points, touched);
            continue;
        }
        const char *features = call->cloud.features + points.at * call->cloud.feature_stride;
        const scatter_arguments block = {points.cells, features, points.count, touched, call};
        touched = context.loops->scatter[call->cloud.feature_dtype](&block);
    }
    if (!is_counting(&call->cloud))
        finish_touched(call, touched);
    return touched;
}
