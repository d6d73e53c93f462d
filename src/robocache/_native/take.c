/* Rows of many columns, and rows around them, for the samples of a batch: every field of the batch in one call. */
#include "robocache_native.h"

#include <string.h>

static int64_t held(int64_t row, int64_t start, int64_t end)
{
    return row < start ? start : row >= end ? end - 1 : row;
}

static void take_window(const take_plan *plan, const take_column *column, int64_t row, char *out, char *is_pad)
{
    const int64_t start = plan->starts[row], end = plan->ends[row], width = column->row_bytes;
    const int64_t *offsets = column->offsets, *before = column->spans, *after = column->spans + column->deltas;
    for (int64_t delta = 0; delta < column->deltas; ++delta)
        is_pad[delta] = row + before[delta] < start || row + after[delta] >= end;
    for (int64_t delta = 0, next; delta < column->deltas; delta = next) {
        const int64_t first = held(row + offsets[delta], start, end);
        for (next = delta + 1; next < column->deltas; ++next) /* rows that follow one another are one copy */
            if (held(row + offsets[next], start, end) != first + next - delta)
                break;
        memcpy(out + delta * width, column->rows + first * width, (size_t)((next - delta) * width));
    }
}

static void take_part(void *context, int64_t part, int64_t parts)
{
    const take_arguments *call = context;
    const take_plan *plan = call->plan;
    const int64_t from = call->count * part / parts, to = call->count * (part + 1) / parts;
    for (int64_t number = 0; number < plan->columns; ++number) {
        const take_column *column = &plan->column[number];
        const take_output *output = &call->output[number];
        const int64_t width = column->row_bytes;
        for (int64_t sample = from; sample < to; ++sample) {
            const int64_t row = call->index[sample];
            if (column->offsets == NULL)
                memcpy(output->out + sample * width, column->rows + row * width, (size_t)width);
            else
                take_window(plan, column, row, output->out + sample * column->deltas * width,
                            output->is_pad + sample * column->deltas);
        }
    }
}

EXPORT int64_t robocache_take(const take_arguments *call)
{
    const int64_t rows = call->plan->rows;
    for (int64_t sample = 0; sample < call->count; ++sample)
        if (call->index[sample] < -rows || call->index[sample] >= rows)
            return -1;
    for (int64_t sample = 0; sample < call->count; ++sample)
        if (call->index[sample] < 0)
            call->index[sample] += rows;
    run_parts(useful_threads(call->threads, call->count * call->plan->sample_bytes / 8), take_part, (void *)(uintptr_t)call);
    return 0;
}
