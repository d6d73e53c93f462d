/* Several streams onto one clock: search once per (batch, target, stream), then blend into the columns of one row. */
#include "robocache_native.h"

#include <math.h>
#include <string.h>

#define SMALL_BYTES 1048576
#define FIRST_BLOCKS 8 /* that tell whether the output is on new pages; an allocator keeps some of what it returns */
#define BLOCK 128 /* targets searched before they are blended */

typedef struct {
    const void *times, *targets;
    int64_t source, count; /* samples that may count, targets */
    const stream_arguments *stream;
    int is_double;
    char *valid;
    int64_t valid_stride;
} search_arguments;

#define TIME float
#define NAME(x) x##_float32
#define MINUS(a, b) ((a) - (b))
#define IS_PAD(t) (!((t) < INFINITY))
#define IS_NAN(t) isnan(t)
#define LIMIT(s) ((float)(s)->limit.real)
#include "search.inc"

#define TIME double
#define NAME(x) x##_float64
#define MINUS(a, b) ((a) - (b))
#define IS_PAD(t) (!((t) < (double)INFINITY))
#define IS_NAN(t) isnan(t)
#define LIMIT(s) ((s)->limit.real)
#include "search.inc"

#define TIME int64_t
#define NAME(x) x##_int64
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

/* Targets start to start + count of one batch row, all streams. */
static void resample_block(const resample_context *context, int64_t row, int64_t start, int64_t count)
{
    const resample_arguments *call = context->call;
    neighbours found[BLOCK];
    int64_t first = row * call->target + start, column = 0, time_bytes = call->time_dtype == TIME_FLOAT32 ? 4 : 8;
    for (int64_t at = 0; at < call->streams; ++at) {
        const stream_arguments *stream = &call->stream[at];
        search_arguments search = {
            stream->times + row * stream->times_batch_stride,
            call->targets + row * call->targets_batch_stride + start * time_bytes,
            row_length(stream, row), count, stream, call->dtype == FLOAT64,
            call->valid + first * call->streams + at, call->streams,
        };
        find[call->time_dtype](&search, found);
        blend_arguments blend = {
            stream->data + row * stream->data_batch_stride, call->out + first * context->width + column,
            stream->data_row_stride, context->width, stream->dim, count, stream->period, found,
        };
        copy_and_fill(&blend, call->dtype);
        if (stream->policy == LINEAR)
            context->loops->linear[call->dtype](&blend);
        else if (stream->policy == SLERP)
            context->loops->slerp[call->dtype](&blend);
        else if (stream->policy == ANGLE)
            context->loops->angle[call->dtype](&blend);
        column += stream->dim * item_bytes[call->dtype];
    }
}

static void resample_part(void *argument, int64_t part, int64_t parts)
{
    const resample_context *context = argument;
    int64_t target = context->call->target, total = context->call->batch * target;
    int64_t at = total / parts * part + (part < total % parts ? part : total % parts);
    int64_t end = at + total / parts + (part < total % parts);
    int are_new = context->bytes >= MAPPED_BYTES, looks = context->bytes < SMALL_BYTES ? 0 : FIRST_BLOCKS;
    while (at < end) {
        int64_t row = at / target, start = at % target, count = target - start;
        count = count < BLOCK ? count : BLOCK;
        count = count < end - at ? count : end - at;
        int64_t faults = 0;
        if (are_new)
            populate(context->call->out + at * context->width, count * context->width);
        else if (looks > 0)
            faults = page_faults();
        resample_block(context, row, start, count);
        if (!are_new && looks-- > 0)
            are_new = are_pages_new(faults, count * context->width);
        at += count;
    }
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
