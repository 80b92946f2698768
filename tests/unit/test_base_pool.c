#include "pool.h"

#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* A door that jobs wait at until the test opens it. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;    /* lock */
	int waiting;  /* lock: jobs that arrived */
};

static void gate_init(struct gate *gate)
{
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->changed, NULL);
	gate->open = false;
	gate->waiting = 0;
}

static void gate_pass(void *arg)
{
	struct gate *gate = arg;

	pthread_mutex_lock(&gate->lock);
	gate->waiting++;
	pthread_cond_broadcast(&gate->changed);
	while (!gate->open)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

static void gate_await(struct gate *gate, int jobs)
{
	pthread_mutex_lock(&gate->lock);
	while (gate->waiting < jobs)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
}

static void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->open = true;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

static void gate_destroy(struct gate *gate)
{
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
}

static void count(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_all_run(void **state)
{
	struct pool *pool = pool_new(4, "a name that is too long", 8);
	atomic_int done = 0;

	(void)state;
	assert_non_null(pool);
	for (int i = 0; i < 2000; i++)
		pool_submit_wait(pool, count, &done);
	pool_drain(pool);
	assert_int_equal(done, 2000);
	pool_drain(pool);
	pool_submit_wait(pool, count, &done);
	pool_free(pool);
	assert_int_equal(done, 2001);
	pool_free(NULL);
	assert_null(pool_new(0, "x", 1));
	assert_null(pool_new(1, "x", 0));
	assert_null(pool_new(1, "x", SIZE_MAX / 2));
}

struct order {
	int *next;
	int place;
};

static void note_place(void *arg)
{
	struct order *order = arg;

	order->place = (*order->next)++; /* one worker */
}

static void test_order(void **state)
{
	struct pool *pool = pool_new(1, "order", 3);
	struct order jobs[100];
	int next = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		jobs[i] = (struct order){ &next, -1 };
		pool_submit_wait(pool, note_place, &jobs[i]);
	}
	pool_drain(pool);
	for (int i = 0; i < 100; i++)
		assert_int_equal(jobs[i].place, i);
	pool_free(pool);
}

static void test_full(void **state)
{
	struct pool *pool = pool_new(2, "full", 3);
	struct gate gate;
	atomic_int done = 0;

	(void)state;
	gate_init(&gate);
	pool_submit_wait(pool, gate_pass, &gate);
	pool_submit_wait(pool, gate_pass, &gate);
	gate_await(&gate, 2);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pool_submit(pool, count, &done), 0);
	assert_int_equal(pool_submit(pool, count, &done), ERR_BUSY);
	assert_int_equal(done, 0);
	gate_open(&gate);
	pool_drain(pool);
	assert_int_equal(done, 3);
	assert_int_equal(pool_submit(pool, count, &done), 0);
	pool_free(pool);
	assert_int_equal(done, 4);
	gate_destroy(&gate);
}

struct chain {
	struct pool *pool;
	atomic_int left;
};

static void submit_next(void *arg)
{
	struct chain *chain = arg;

	if (atomic_fetch_sub(&chain->left, 1) > 1 && pool_submit(chain->pool, submit_next, chain) != 0)
		atomic_store(&chain->left, -1000);
}

/* pool_free finishes what jobs submit while it waits for them. */
static void test_jobs_submit(void **state)
{
	struct chain chain = { .left = 500 };

	(void)state;
	chain.pool = pool_new(3, "chain", 4);
	assert_int_equal(pool_submit(chain.pool, submit_next, &chain), 0);
	pool_free(chain.pool);
	assert_int_equal(chain.left, 0);
}

struct producer {
	struct pool *pool;
	atomic_int *done;
};

static void *produce(void *arg)
{
	struct producer *producer = arg;

	for (int i = 0; i < 500; i++)
		pool_submit_wait(producer->pool, count, producer->done);
	return NULL;
}

static void test_many_producers(void **state)
{
	struct pool *pool = pool_new(2, "many", 2);
	atomic_int done = 0;
	struct producer producer = { pool, &done };
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, produce, &producer), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	pool_drain(pool);
	assert_int_equal(done, 2000);
	pool_free(pool);
}

static void look_at_thread(void *arg)
{
	sigset_t mask;
	char name[16] = "";

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	pthread_getname_np(pthread_self(), name, sizeof name);
	*(bool *)arg = sigismember(&mask, SIGTERM) && sigismember(&mask, SIGHUP) && strcmp(name, "looked-at") == 0;
}

static void test_thread(void **state)
{
	struct pool *pool = pool_new(1, "looked-at", 1);
	bool good = false;
	sigset_t mask;

	(void)state;
	pool_submit_wait(pool, look_at_thread, &good);
	pool_free(pool);
	assert_true(good);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	assert_false(sigismember(&mask, SIGTERM));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_run),     cmocka_unit_test(test_order),          cmocka_unit_test(test_full),
		cmocka_unit_test(test_jobs_submit), cmocka_unit_test(test_many_producers), cmocka_unit_test(test_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
