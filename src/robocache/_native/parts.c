/* Threads for one call: started and joined within it, so that nothing outlives a call and a fork finds none. */
#include "robocache_native.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define WORK_PER_THREAD 65536

typedef struct {
    void (*run)(void *, int64_t, int64_t);
    void *context;
    int64_t part, parts;
    pthread_t thread;
    int is_started;
} part_call;

static void *run_part(void *argument)
{
    part_call *call = argument;
    call->run(call->context, call->part, call->parts);
    return NULL;
}

void run_parts(int64_t parts, void (*run)(void *, int64_t, int64_t), void *context)
{
    part_call *calls = parts > 1 ? calloc((size_t)parts, sizeof *calls) : NULL;
    if (calls == NULL) {
        for (int64_t part = 0; part < parts; ++part)
            run(context, part, parts);
        return;
    }
    /* Signals are for the threads that the caller knows. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int64_t part = 0; part < parts; ++part) {
        calls[part] = (part_call){run, context, part, parts, 0, 0};
        calls[part].is_started = part > 0 && pthread_create(&calls[part].thread, NULL, run_part, &calls[part]) == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int64_t part = 0; part < parts; ++part)
        if (!calls[part].is_started) /* the caller's own, and what the system had no thread for */
            run_part(&calls[part]);
    for (int64_t part = 0; part < parts; ++part)
        if (calls[part].is_started)
            pthread_join(calls[part].thread, NULL);
    free(calls);
}

int64_t useful_threads(int64_t threads, int64_t work)
{
    int64_t worth = work / WORK_PER_THREAD;
    return threads < 1 || worth < 1 ? 1 : threads < worth ? threads : worth;
}
