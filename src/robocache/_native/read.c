/* Rows of files, and of arrays in memory, into one buffer. What is read counts no page of a file as this process's. */
#define _XOPEN_SOURCE 700 /* pread, which C11 alone does not have */
#define _FILE_OFFSET_BITS 64

#include "robocache_native.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* 0, or why not all of it could be read; ENODATA: the file ends before. */
static int64_t read_fully(int file, char *out, int64_t bytes, int64_t offset)
{
    for (int64_t done = 0; done < bytes;) {
        const ssize_t got = pread(file, out + done, (size_t)(bytes - done), (off_t)(offset + done));
        if (got == 0)
            return ENODATA;
        if (got < 0 && errno != EINTR)
            return errno;
        done += got > 0 ? got : 0;
    }
    return 0;
}

static void read_part(void *context, int64_t part, int64_t parts)
{
    const read_arguments *call = context;
    const int64_t width = call->row_bytes;
    for (int64_t run = call->runs * part / parts; run < call->runs * (part + 1) / parts; ++run) {
        const int64_t file = call->files[run], base = call->bases[run], row = call->rows[run];
        char *out = call->out + (call->starts == NULL ? run : call->starts[run]) * width;
        int64_t problem = 0, none = 0;
        if (row < 0 || (file < 0 && base == 0))
            memset(out, 0, (size_t)width);
        else if (file < 0)
            memcpy(out, (const char *)(uintptr_t)base + row * width, (size_t)width);
        else
            problem = read_fully((int)file, out, width, base + row * width);
        if (problem == 0)
            continue;
        if (__atomic_compare_exchange_n(call->problem, &none, problem, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            call->problem[1] = run;
        return;
    }
}

EXPORT int64_t robocache_read(const read_arguments *call)
{
    run_parts(useful_threads(call->threads, call->runs * call->row_bytes / 8), read_part, (void *)(uintptr_t)call);
    return 0;
}
