#include "cut_lock.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

int cut_lock_init(struct cut_lock *lock)
{
	memset(lock, 0, sizeof *lock);
	if (pthread_mutex_init(&lock->mutex, NULL) != 0)
		return -ENOMEM;
	if (clock_cond_init(&lock->opened) != 0 || clock_cond_init(&lock->drained) != 0)
		return -ENOMEM;
	return 0;
}

void cut_lock_destroy(struct cut_lock *lock)
{
	pthread_cond_destroy(&lock->opened);
	pthread_cond_destroy(&lock->drained);
	pthread_mutex_destroy(&lock->mutex);
}

static int my_stripe(void)
{
	static _Atomic unsigned next;
	static _Thread_local int mine = -1;

	if (mine < 0)
		mine = (int)(atomic_fetch_add(&next, 1) % CUT_LOCK_STRIPES);
	return mine;
}

static void leave(struct cut_lock *lock, int stripe)
{
	atomic_fetch_sub(&lock->stripe[stripe].readers, 1);
	if (atomic_load(&lock->closed)) {
		/* The writer counts under the mutex: taking it here makes sure that it is either before its count or asleep. */
		pthread_mutex_lock(&lock->mutex);
		pthread_cond_signal(&lock->drained);
		pthread_mutex_unlock(&lock->mutex);
	}
}

int cut_lock_enter(struct cut_lock *lock)
{
	int stripe = my_stripe();

	for (;;) {
		/* A enters, then looks at the gate; B closes the gate, then counts. Both sequentially consistent: either A sees it
		 * closed, or B counts A. */
		atomic_fetch_add(&lock->stripe[stripe].readers, 1);
		if (!atomic_load(&lock->closed))
			return stripe;
		leave(lock, stripe);
		pthread_mutex_lock(&lock->mutex);
		while (atomic_load(&lock->closed))
			pthread_cond_wait(&lock->opened, &lock->mutex);
		pthread_mutex_unlock(&lock->mutex);
	}
}

void cut_lock_leave(struct cut_lock *lock, int stripe)
{
	leave(lock, stripe);
}

static bool anyone_inside(struct cut_lock *lock)
{
	for (int i = 0; i < CUT_LOCK_STRIPES; i++)
		if (atomic_load(&lock->stripe[i].readers) != 0)
			return true;
	return false;
}

bool cut_lock_close(struct cut_lock *lock, int64_t wait_ns)
{
	struct timespec deadline = clock_deadline(wait_ns);
	bool empty = false;

	pthread_mutex_lock(&lock->mutex);
	atomic_store(&lock->closed, true);
	for (;;) {
		empty = !anyone_inside(lock);
		if (empty || pthread_cond_timedwait(&lock->drained, &lock->mutex, &deadline) == ETIMEDOUT)
			break;
	}
	if (!empty)
		empty = !anyone_inside(lock);
	if (!empty) {
		atomic_store(&lock->closed, false);
		pthread_cond_broadcast(&lock->opened);
	}
	pthread_mutex_unlock(&lock->mutex);
	return empty;
}

void cut_lock_open(struct cut_lock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	atomic_store(&lock->closed, false);
	pthread_cond_broadcast(&lock->opened);
	pthread_mutex_unlock(&lock->mutex);
}
