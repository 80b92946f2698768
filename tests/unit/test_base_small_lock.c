#include "small_lock.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define THREADS 8
#define ROUNDS 20000

static struct small_lock lock;
static unsigned counter;     /* lock */
static _Atomic int together; /* inside at the same time */
static _Atomic bool crowd;

static void *count_up(void *unused)
{
	(void)unused;
	for (int i = 0; i < ROUNDS; i++) {
		small_lock_take(&lock);
		if (atomic_fetch_add(&together, 1) != 0)
			atomic_store(&crowd, true);
		counter++;
		if (i % 1000 == 0)
			sched_yield(); /* others run, and fall asleep */
		atomic_fetch_sub(&together, 1);
		small_lock_leave(&lock);
	}
	return NULL;
}

static void test_one_at_a_time(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_false(atomic_load(&crowd));
	assert_int_equal(counter, THREADS * ROUNDS);
	assert_false(small_lock_is_taken(&lock));
}

static void test_try(void **state)
{
	struct small_lock one = {0};

	(void)state;
	assert_int_equal(sizeof one, 4);
	assert_true(small_lock_try(&one));
	assert_true(small_lock_is_taken(&one));
	assert_false(small_lock_try(&one));
	small_lock_leave(&one);
	assert_false(small_lock_is_taken(&one));
	small_lock_take(&one);
	small_lock_leave(&one);
	assert_true(small_lock_try(&one));
	small_lock_leave(&one);
}

static void *leave_it(void *taken)
{
	small_lock_leave(taken);
	return NULL;
}

/* Who sleeps is woken: else this test never ends. */
static void test_wakes_all(void **state)
{
	pthread_t threads[THREADS], other;

	(void)state;
	counter = 0;
	small_lock_take(&lock);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
	/* From 1 to 2: one of them went to sleep, or is about to. */
	while (atomic_load(&lock.state) != 2)
		sched_yield();
	assert_int_equal(counter, 0);
	assert_int_equal(pthread_create(&other, NULL, leave_it, &lock), 0);
	pthread_join(other, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(counter, THREADS * ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_try),
		cmocka_unit_test(test_wakes_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
