/* New memory, page by page, costs more than filling it: a fault each. */
#define _GNU_SOURCE
#include "robocache_native.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

void populate(char *start, int64_t bytes)
{
#ifdef __linux__
    static const int populate_write = 23; /* MADV_POPULATE_WRITE, since Linux 5.14; C libraries learnt of it later */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)start & ~(page - 1), end = ((uintptr_t)start + (uintptr_t)bytes + page - 1) & ~(page - 1);
    /* Only a hint: where it is refused, the pages come with a fault each, as they do anyway. */
    (void)madvise((void *)first, end - first, populate_write);
#else
    (void)start, (void)bytes;
#endif
}

void use_large_pages(char *start, int64_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t large = 2 << 20;
    uintptr_t first = ((uintptr_t)start + large - 1) & ~(large - 1), end = ((uintptr_t)start + (uintptr_t)bytes) & ~(large - 1);
    if (first < end)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}

int64_t page_faults(void)
{
#ifdef RUSAGE_THREAD
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        return usage.ru_minflt;
#endif
    return 0;
}

int are_pages_new(int64_t faults_before, int64_t bytes)
{
    return (page_faults() - faults_before) * sysconf(_SC_PAGESIZE) * 2 > bytes;
}
