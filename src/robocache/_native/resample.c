/* Several streams onto one clock: search once per (batch, target, stream), then blend into the columns of one row. */
#include "robocache_native.h"

#include <math.h>
#include <string.h>

#define SMALL_BYTES 1048576
#define FIRST_BLOCKS 8 /* that tell whether the output is on new pages; an allocator keeps some of what it returns */
#define BLOCK 128 /* targets searched before they are blended */
#define LANES 8 /* binary searches in step */
#define SHORT_ROW_BYTES 4096
#define FEW 4 /* targets that are not worth the preparation of a vector search */
#define SET 8 /* streams searched before they are blended */
#define STAGING_BYTES 4800 /* few, so that reading, mixing and writing alternate and none waits for another */
#define FETCHED_BYTES (256 << 10) /* of a batch row ahead of its turn: beside the one at hand they fit a second cache */
#define PAST_CACHES_BYTES (8 << 20) /* an output that no reader will find in a cache */

typedef struct {
    const void *times, *targets;
    int64_t source, count; /* samples that may count, targets */
    const stream_arguments *stream;
    int is_double;
    char *valid;
    int64_t valid_stride;
    const inner_loops *loops;
} search_arguments;

#define TIME float
#define NAME(x) x##_float32
#define DTYPE TIME_FLOAT32
#define MINUS(a, b) ((a) - (b))
#define IS_PAD(t) (!((t) < INFINITY))
#define IS_NAN(t) isnan(t)
#define LIMIT(s) ((float)(s)->limit.real)
#include "search.inc"

#define TIME double
#define NAME(x) x##_float64
#define DTYPE TIME_FLOAT64
#define MINUS(a, b) ((a) - (b))
#define IS_PAD(t) (!((t) < (double)INFINITY))
#define IS_NAN(t) isnan(t)
#define LIMIT(s) ((s)->limit.real)
#include "search.inc"

#define TIME int64_t
#define NAME(x) x##_int64
#define DTYPE TIME_INT64
#define MINUS(a, b) ((int64_t)((uint64_t)(a) - (uint64_t)(b)))
#define IS_PAD(t) ((void)(t), 0)
#define IS_NAN(t) ((void)(t), 0)
#define LIMIT(s) ((s)->limit.integer)
#include "search.inc"

static void (*const find[])(const search_arguments *, neighbours *) = {find_float32, find_float64, find_int64};
static const int64_t item_bytes[] = {2, 2, 4, 8, 1, 2, 4, 8};

static void fill(char *out, int64_t dim, int64_t dtype)
{
    static const uint16_t half[] = {0x7e00, 0x7fc0};
    if (dtype == FLOAT16 || dtype == BFLOAT16)
        for (int64_t at = 0; at < dim; ++at)
            memcpy(out + 2 * at, &half[dtype], 2);
    else if (dtype == FLOAT32)
        for (int64_t at = 0; at < dim; ++at)
            ((float *)out)[at] = NAN;
    else if (dtype == FLOAT64)
        for (int64_t at = 0; at < dim; ++at)
            ((double *)out)[at] = (double)NAN;
    else
        memset(out, 0, (size_t)(dim * item_bytes[dtype]));
}

static void copy_and_fill(const blend_arguments *blend, int64_t dtype)
{
    size_t bytes = (size_t)(blend->dim * item_bytes[dtype]);
    for (int64_t at = 0; at < blend->count; ++at) {
        const neighbours *one = &blend->found[at];
        char *out = blend->out + at * blend->out_stride;
        if (one->kind == SINGLE)
            memcpy(out, blend->rows + one->low * blend->row_stride, bytes);
        else if (one->kind == FILLED)
            fill(out, blend->dim, dtype);
    }
}

static int64_t row_length(const stream_arguments *stream, int64_t row)
{
    if (stream->lengths == NULL)
        return stream->source;
    const char *at = stream->lengths + row * stream->lengths_stride;
    int64_t length = stream->lengths_are_wide ? *(const int64_t *)at : *(const int32_t *)at;
    return length < 0 ? 0 : length > stream->source ? stream->source : length;
}

typedef struct {
    const resample_arguments *call;
    const inner_loops *loops;
    int64_t width, bytes; /* of an output row, of the output */
} resample_context;

/* Some targets of one batch row: where their output rows begin, and a place that stays in the cache for some of them. */
typedef struct {
    int64_t row, start, count;
    char *out, *staging;
    int64_t step; /* rows blended before the next are */
    int is_staged, fetches_ahead;
} target_block;

static void find_neighbours(const resample_context *context, const target_block *block, int64_t at, neighbours *found)
{
    const resample_arguments *call = context->call;
    const stream_arguments *stream = &call->stream[at];
    int64_t first = block->row * call->target + block->start, time_bytes = call->time_dtype == TIME_FLOAT32 ? 4 : 8;
    search_arguments search = {
        stream->times + block->row * stream->times_batch_stride,
        call->targets + block->row * call->targets_batch_stride + block->start * time_bytes,
        row_length(stream, block->row), block->count, stream, call->dtype == FLOAT64,
        call->valid + first * call->streams + at, call->streams, context->loops,
    };
    find[call->time_dtype](&search, found);
}

static void blend_rows(const resample_context *context, const stream_arguments *stream, const blend_arguments *blend)
{
    int64_t dtype = context->call->dtype;
    copy_and_fill(blend, dtype);
    if (stream->policy == LINEAR)
        context->loops->linear[dtype](blend);
    else if (stream->policy == SLERP)
        context->loops->slerp[dtype](blend);
    else if (stream->policy == ANGLE)
        context->loops->angle[dtype](blend);
}

/* The next batch row's share of samples, while this one is worked on: targets in no order visit samples in none, which
 * no processor foresees. Not where most would be fetched in vain, or push this row's out of the cache. Inlined by force,
 * since GCC takes a function that only prefetches for one that does nothing. */
static inline __attribute__((always_inline)) void fetch_ahead(const resample_arguments *call,
                                                              const stream_arguments *stream,
                                                              const target_block *block, int64_t done, int64_t count)
{
    int64_t bytes = stream->dim * item_bytes[call->dtype], most = 8 * call->target;
    if (block->row + 1 >= call->batch || stream->source > most || stream->source * bytes > FETCHED_BYTES)
        return;
    const char *next = stream->data + (block->row + 1) * stream->data_batch_stride;
    int64_t first = stream->source * (block->start + done) / call->target;
    int64_t end = stream->source * (block->start + done + count) / call->target;
    if (stream->data_row_stride == bytes) {
        for (int64_t byte = first * bytes; byte < end * bytes; byte += LINE)
            __builtin_prefetch(next + byte, 0, 2);
        return;
    }
    for (int64_t sample = first; sample < end; ++sample)
        for (int64_t byte = 0; byte < bytes; byte += LINE)
            __builtin_prefetch(next + sample * stream->data_row_stride + byte, 0, 2);
}

/* Streams first to end of a block, from the output's column (in bytes) on; returns the column after them. */
static int64_t resample_streams(const resample_context *context, const target_block *block, int64_t first, int64_t end,
                                int64_t column)
{
    const resample_arguments *call = context->call;
    neighbours found[SET][BLOCK];
    int64_t after = column;
    for (int64_t at = first; at < end; ++at)
        find_neighbours(context, block, at, found[at - first]);
    for (int64_t done = 0; done < block->count; done += block->step) {
        int64_t count = block->count - done < block->step ? block->count - done : block->step;
        char *out = block->out + done * context->width;
        char *rows = block->is_staged ? block->staging + (uintptr_t)out % LINE : out;
        after = column;
        for (int64_t at = first; at < end; ++at) {
            const stream_arguments *stream = &call->stream[at];
            blend_arguments blend = {
                stream->data + block->row * stream->data_batch_stride, rows + after,
                stream->data_row_stride, context->width, stream->dim, count, stream->period, found[at - first] + done,
            };
            if (block->fetches_ahead)
                fetch_ahead(call, stream, block, done, count);
            blend_rows(context, stream, &blend);
            after += stream->dim * item_bytes[call->dtype];
        }
        if (block->is_staged)
            context->loops->write_past_caches(out, rows, count * context->width);
    }
    return after;
}

static void resample_block(const resample_context *context, const target_block *block)
{
    int64_t streams = context->call->streams, column = 0;
    for (int64_t first = 0; first < streams; first += SET)
        column = resample_streams(context, block, first, streams - first < SET ? streams : first + SET, column);
}

static void resample_part(void *argument, int64_t part, int64_t parts)
{
    const resample_context *context = argument;
    _Alignas(LINE) char staging[STAGING_BYTES + LINE];
    int64_t target = context->call->target, total = context->call->batch * target;
    int64_t at = total / parts * part + (part < total % parts ? part : total % parts);
    int64_t end = at + total / parts + (part < total % parts);
    int is_small = context->bytes < SMALL_BYTES; /* all of it is in a cache, or soon */
    int are_new = context->bytes >= MAPPED_BYTES, looks = is_small ? 0 : FIRST_BLOCKS;
    int64_t step = context->width > 0 && context->width < STAGING_BYTES ? STAGING_BYTES / context->width : 1;
    int is_staged = context->bytes >= PAST_CACHES_BYTES && context->width <= STAGING_BYTES && context->call->streams <= SET;
    if (are_new)
        use_large_pages(context->call->out + at * context->width, (end - at) * context->width);
    while (at < end) {
        int64_t row = at / target, start = at % target, count = target - start;
        count = count < BLOCK ? count : BLOCK;
        count = count < end - at ? count : end - at;
        char *out = context->call->out + at * context->width;
        int64_t faults = 0;
        if (are_new)
            populate(out, count * context->width);
        else if (looks > 0)
            faults = page_faults();
        /* New pages are in the cache: the system has just cleared them. */
        target_block block = {row, start, count, out, staging, is_small ? BLOCK : step, is_staged && !are_new, !is_small};
        resample_block(context, &block);
        at += count;
        if (!are_new && looks-- > 0 && are_pages_new(faults, count * context->width)) {
            are_new = 1;
            use_large_pages(context->call->out + at * context->width, (end - at) * context->width);
        }
    }
    finish_writes();
}

EXPORT int64_t robocache_resample(const resample_arguments *call)
{
    int64_t dims = 0;
    for (int64_t at = 0; at < call->streams; ++at)
        dims += call->stream[at].dim;
    resample_context context = {call, best_inner_loops(), dims * item_bytes[call->dtype], 0};
    context.bytes = context.width * call->batch * call->target;
    run_parts(useful_threads(call->threads, call->batch * call->target * dims), resample_part, &context);
    return 0;
}

EXPORT int64_t robocache_abi_version(void)
{
    return ABI_VERSION;
}
