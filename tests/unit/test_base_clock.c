#include "clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

static void test_conversion(void **state)
{
	static const struct { int64_t ns; struct timespec ts; } cases[] = {
		{ 0, { 0, 0 } },
		{ 1, { 0, 1 } },
		{ 1500000000, { 1, 500000000 } },
		{ -1, { -1, 999999999 } },
		{ -1000000000, { -1, 0 } },
		{ -1500000000, { -2, 500000000 } },
		{ INT64_MAX, { 9223372036, 854775807 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct timespec ts = ns_timespec(cases[i].ns);

		assert_true(ts.tv_sec == cases[i].ts.tv_sec && ts.tv_nsec == cases[i].ts.tv_nsec);
		assert_true(timespec_ns(cases[i].ts) == cases[i].ns);
	}
	assert_true(timespec_ns((struct timespec){ 9223372037, 0 }) == INT64_MAX);
	assert_true(timespec_ns((struct timespec){ INT64_MAX, 0 }) == INT64_MAX);
	assert_true(timespec_ns((struct timespec){ INT64_MIN, 0 }) == INT64_MIN);
}

static void test_now(void **state)
{
	int64_t before = clock_mono_ns(), wall = clock_wall_ns();

	(void)state;
	assert_true(clock_mono_ns() >= before);
	assert_true(wall / NS_PER_S >= time(NULL) - 5 && wall / NS_PER_S <= time(NULL) + 5);
}

static void test_deadline(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond;
	struct timespec at;
	int64_t before = clock_mono_ns();

	(void)state;
	assert_int_equal(clock_cond_init(&cond), 0);
	at = clock_deadline(20000000);
	pthread_mutex_lock(&lock);
	while (pthread_cond_timedwait(&cond, &lock, &at) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&lock);
	assert_true(clock_mono_ns() - before >= 20000000);
	at = clock_deadline(INT64_MAX);
	assert_true(timespec_ns(at) == INT64_MAX);
	at = clock_deadline(-5);
	assert_true(timespec_ns(at) <= clock_mono_ns());
	pthread_cond_destroy(&cond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversion),
		cmocka_unit_test(test_now),
		cmocka_unit_test(test_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
