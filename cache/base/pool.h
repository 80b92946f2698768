/* pool: a fixed number of worker threads and a bounded first-in, first-out queue of jobs. All functions are thread-safe, except that
 * pool_free is the last call. Jobs start in the order in which they were submitted; with more than one thread they end in any. Workers block
 * all signals. */
#ifndef YESTER_POOL_H
#define YESTER_POOL_H

#include <stddef.h>

struct pool;

/* A job. What `arg` points to is the job's to free. It may submit further jobs, but only with pool_submit: when all workers wait
 * for room in the queue, nobody makes any. */
typedef void pool_fn(void *arg);

/* `name` (copied, cut to 15 bytes) is what ps and gdb show for the threads. threads and max_queued are 1 at least; running jobs don't
 * count as queued. NULL when memory or threads run out (errno). */
struct pool *pool_new(unsigned threads, const char *name, size_t max_queued);
/* 0, or ERR_BUSY when the queue is full: `fn` will then not be called. Never blocks for long. */
int pool_submit(struct pool *pool, pool_fn *fn, void *arg);
/* The same, but waits for room. Not for jobs of this pool. */
void pool_submit_wait(struct pool *pool, pool_fn *fn, void *arg);
/* Returns at a moment when nothing is queued or running. Not for jobs of this pool. */
void pool_drain(struct pool *pool);
/* Finishes what is queued (and what that submits), joins the threads, frees. NULL is fine. */
void pool_free(struct pool *pool);

#endif
