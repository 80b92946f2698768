/* cut_lock: the lock between operations (many readers, often) and the cut (one writer, rarely). I1.
 *
 * A reader touches one cache line of its own stripe, so that operations on different processors don't contend. The writer closes the gate and
 * waits for the readers inside, with a deadline: if one does not leave in time, the gate opens again. */
#ifndef YESTER_CUT_LOCK_H
#define YESTER_CUT_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <pthread.h>

#define CUT_LOCK_STRIPES 16

struct cut_lock {
	struct { _Alignas(64) _Atomic int readers; } stripe[CUT_LOCK_STRIPES];
	_Alignas(64) _Atomic bool closed;
	pthread_mutex_t mutex; /* the waiting only */
	pthread_cond_t opened, drained;
};

int cut_lock_init(struct cut_lock *lock);
void cut_lock_destroy(struct cut_lock *lock);
/* Read side. Returns the stripe to give back. Never nested in one thread. */
int cut_lock_enter(struct cut_lock *lock);
void cut_lock_leave(struct cut_lock *lock, int stripe);
/* Write side. false: some reader did not leave within wait_ns, nothing is held. */
bool cut_lock_close(struct cut_lock *lock, int64_t wait_ns);
void cut_lock_open(struct cut_lock *lock);

#endif
