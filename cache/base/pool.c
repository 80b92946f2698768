#include "pool.h"

#include "err.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct job {
	pool_fn *fn;
	void *arg;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;   /* a job was queued, or stopping */
	pthread_cond_t room;   /* a job was taken from a full queue */
	pthread_cond_t idle;   /* nothing is queued or running */
	char name[16];         /* constant */
	size_t max_queued;     /* constant */
	size_t first, queued;  /* lock: the ring's oldest job and how many there are */
	unsigned running;      /* lock */
	bool stopping;         /* lock */
	unsigned thread_count; /* of pool_new and pool_free only */
	pthread_t *threads;    /* of pool_new and pool_free only */
	struct job ring[];     /* lock; max_queued of them */
};

static void *work(void *context)
{
	struct pool *pool = context;

	pthread_setname_np(pthread_self(), pool->name);
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct job job;

		/* While a job runs it may still submit others; only then is stopping final. */
		while (pool->queued == 0 && !(pool->stopping && pool->running == 0))
			pthread_cond_wait(&pool->work, &pool->lock);
		if (pool->queued == 0)
			break;
		job = pool->ring[pool->first];
		pool->first = (pool->first + 1) % pool->max_queued;
		if (pool->queued-- == pool->max_queued)
			pthread_cond_broadcast(&pool->room);
		pool->running++;
		pthread_mutex_unlock(&pool->lock);
		job.fn(job.arg);
		pthread_mutex_lock(&pool->lock);
		pool->running--;
		if (pool->running == 0 && pool->queued == 0) {
			pthread_cond_broadcast(&pool->idle);
			if (pool->stopping)
				pthread_cond_broadcast(&pool->work);
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are for the thread that waits for them, not for whoever happens to run. 0 or an errno. */
static int start_threads(struct pool *pool, unsigned threads)
{
	sigset_t all, before;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (rc == 0 && pool->thread_count < threads) {
		rc = pthread_create(&pool->threads[pool->thread_count], NULL, work, pool);
		if (rc == 0)
			pool->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

struct pool *pool_new(unsigned threads, const char *name, size_t max_queued)
{
	struct pool *pool;
	size_t bytes;
	int rc;

	if (threads == 0 || max_queued == 0 || __builtin_mul_overflow(max_queued, sizeof(struct job), &bytes) ||
	    __builtin_add_overflow(bytes, sizeof *pool, &bytes)) {
		errno = EINVAL;
		return NULL;
	}
	pool = calloc(1, bytes);
	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	pthread_cond_init(&pool->room, NULL);
	pthread_cond_init(&pool->idle, NULL);
	pool->max_queued = max_queued;
	strncpy(pool->name, name, sizeof pool->name - 1);
	pool->threads = calloc(threads, sizeof *pool->threads);
	rc = pool->threads ? start_threads(pool, threads) : ENOMEM;
	if (rc != 0) {
		pool_free(pool);
		errno = rc;
		return NULL;
	}
	return pool;
}

/* lock must be held, and there is room. */
static void enqueue(struct pool *pool, pool_fn *fn, void *arg)
{
	pool->ring[(pool->first + pool->queued) % pool->max_queued] = (struct job){ fn, arg };
	pool->queued++;
	pthread_cond_signal(&pool->work);
}

int pool_submit(struct pool *pool, pool_fn *fn, void *arg)
{
	int rc = ERR_BUSY;

	pthread_mutex_lock(&pool->lock);
	if (pool->queued < pool->max_queued) {
		enqueue(pool, fn, arg);
		rc = 0;
	}
	pthread_mutex_unlock(&pool->lock);
	return rc;
}

void pool_submit_wait(struct pool *pool, pool_fn *fn, void *arg)
{
	pthread_mutex_lock(&pool->lock);
	while (pool->queued == pool->max_queued)
		pthread_cond_wait(&pool->room, &pool->lock);
	enqueue(pool, fn, arg);
	pthread_mutex_unlock(&pool->lock);
}

void pool_drain(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	while (pool->queued > 0 || pool->running > 0)
		pthread_cond_wait(&pool->idle, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->thread_count; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->idle);
	pthread_cond_destroy(&pool->room);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool->threads);
	free(pool);
}
