/* small_lock: a mutex of four bytes, for what there are millions of (pthread_mutex_t has forty). Zero is unlocked; nothing needs to be
 * initialised or destroyed. Not recursive, not fair, known to one process only.
 *
 * The third mutex of U. Drepper, "Futexes Are Tricky" (2011): 0 free, 1 taken, 2 taken and perhaps somebody sleeps. Taking and leaving a lock that nobody
 * else wants is one atomic instruction each. */
#ifndef YESTER_SMALL_LOCK_H
#define YESTER_SMALL_LOCK_H

#include <stdbool.h>
#include <stdatomic.h>
#include <stdint.h>

struct small_lock { _Atomic uint32_t state; };

void small_lock_wait(struct small_lock *lock); /* the slow half of taking */
void small_lock_wake(struct small_lock *lock); /* and of leaving */

static inline bool small_lock_try(struct small_lock *lock)
{
	uint32_t free = 0;

	return atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire, memory_order_relaxed);
}

static inline void small_lock_take(struct small_lock *lock)
{
	if (!small_lock_try(lock))
		small_lock_wait(lock);
}

static inline void small_lock_leave(struct small_lock *lock)
{
	if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2)
		small_lock_wake(lock);
}

/* For assertions: somebody has it. */
static inline bool small_lock_is_taken(const struct small_lock *lock)
{
	return atomic_load_explicit(&lock->state, memory_order_relaxed) != 0;
}

#endif
