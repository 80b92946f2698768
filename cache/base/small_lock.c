#include "small_lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Who holds it does a few system calls at most; on another processor it is often done before we would sleep. */
#define SPINS 100

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* errno stays what it was: a caller may be between a failed call and its report. */
static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
	int saved = errno;

	syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
	errno = saved;
}

void small_lock_wait(struct small_lock *lock)
{
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 && small_lock_try(lock))
			return;
		pause_briefly();
	}
	/* 2 also when it was free: we can't know whether others sleep. A wake for nothing is harmless. */
	while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
		futex(&lock->state, FUTEX_WAIT, 2);
}

void small_lock_wake(struct small_lock *lock)
{
	futex(&lock->state, FUTEX_WAKE, 1);
}
