/* Points, numbered a block at a time. */
#ifndef ROBOCACHE_NUMBERED_H
#define ROBOCACHE_NUMBERED_H

#include "robocache_native.h"

#define BLOCK 512 /* points numbered at a time */

/* Points from `at` on that are numbered together: one cloud, one block. */
typedef struct {
    int64_t at, count, cells[BLOCK];
} numbered;

/* How many of offsets[1:] are at or before the point: its cloud. */
static inline int64_t cloud_of(const voxelize_arguments *call, int64_t point)
{
    int64_t low = 0, high = call->clouds;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (call->offsets[middle + 1] <= point)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Numbers the next points before `end`; returns 0 when there are none. */
static inline int number_next(const voxelize_arguments *call, const inner_loops *loops, int64_t end, numbered *points)
{
    int64_t at = points->at + points->count, cloud = 0;
    if (call->offsets != NULL) {
        at = at < call->offsets[0] ? call->offsets[0] : at;
        if (at >= end || (cloud = cloud_of(call, at)) >= call->clouds)
            return 0;
        end = end < call->offsets[cloud + 1] ? end : call->offsets[cloud + 1];
    }
    if (at >= end)
        return 0;
    points->at = at;
    points->count = end - at < BLOCK ? end - at : BLOCK;
    const cells_arguments block = {
        call->points + at * call->point_stride, call->point_stride, points->count,
        cloud * call->size[0] * call->size[1] * call->size[2], call,
    };
    loops->cells[call->point_dtype](&block, points->cells);
    return 1;
}

static inline int64_t part_start(int64_t total, int64_t part, int64_t parts)
{
    return total / parts * part + (part < total % parts ? part : total % parts);
}

#endif
