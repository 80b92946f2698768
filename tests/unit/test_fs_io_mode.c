/* The table of open inodes: one mode and one backing id for each, whatever is opened and closed, by however many threads. The kernel is played by a model that refuses what Linux's fs/fuse/iomode.c refuses. */
#include "io_mode.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---------------------------------------------------------------- the kernel */

#define IDS 100000

static atomic_int next_id, open_ids;
static atomic_bool id_is_open[IDS];
static int refuse; /* errno */

static int kernel_open(void *context, int fd)
{
	(void)context;
	(void)fd;
	if (refuse)
		return -refuse;
	int id = atomic_fetch_add(&next_id, 1) % (IDS - 1) + 1;
	assert_false(atomic_exchange(&id_is_open[id], true));
	atomic_fetch_add(&open_ids, 1);
	return id;
}

static void kernel_close(void *context, int id)
{
	(void)context;
	assert_true(atomic_exchange(&id_is_open[id], false));
	atomic_fetch_sub(&open_ids, 1);
}

static atomic_int drops;

static void kernel_drop(void *context, uint64_t nodeid)
{
	(void)context;
	(void)nodeid;
	atomic_fetch_add(&drops, 1);
}

#define SUSPECT ((const struct node *)&drops) /* instead of a node */
static const struct node *suspect;

static bool is_suspect(void *context, const struct node *node)
{
	(void)context;
	return node && (node == SUSPECT || node == suspect);
}

static atomic_bool in_use;
static atomic_int asked;

static bool is_in_use(void *context, const struct node *node, int fd)
{
	(void)context, (void)node, (void)fd;
	atomic_fetch_add(&asked, 1);
	return in_use;
}

static atomic_int looked;

static void look(void *context, const struct node *node)
{
	(void)context, (void)node;
	atomic_fetch_add(&looked, 1);
}

static const struct io_mode_backing kernel = {.open = kernel_open, .close = kernel_close, .drop = kernel_drop, .suspect = is_suspect, .look = look, .in_use = is_in_use};

struct kernel_inode { /* struct fuse_inode */
	pthread_mutex_t lock;
	int iocachectr; /* above 0: cached opens; below: passthrough opens */
	int backing;
};

/* fuse_file_io_open(): 0, or -EIO as the application would see it. */
static int kernel_take(struct kernel_inode *inode, const struct io_open *open)
{
	bool passthrough = open->backing_id > 0;
	int rc = 0;

	pthread_mutex_lock(&inode->lock);
	if (inode->backing && !passthrough)
		rc = -EIO;
	else if (passthrough && (open->keep_cache || !atomic_load(&id_is_open[open->backing_id])))
		rc = -EIO;
	else if (passthrough && (inode->iocachectr > 0 || (inode->backing && inode->backing != open->backing_id)))
		rc = -EIO;
	else if (passthrough) {
		inode->iocachectr--;
		inode->backing = open->backing_id;
	} else if (!open->direct)
		inode->iocachectr++;
	pthread_mutex_unlock(&inode->lock);
	return rc;
}

/* fuse_file_io_release(): before RELEASE is sent. */
static void kernel_release(struct kernel_inode *inode, const struct io_open *open)
{
	pthread_mutex_lock(&inode->lock);
	if (open->backing_id > 0) {
		if (++inode->iocachectr == 0)
			inode->backing = 0;
	} else if (!open->direct)
		inode->iocachectr--;
	pthread_mutex_unlock(&inode->lock);
}

/* ---------------------------------------------------------------- */

static struct io_table *table;

static int setup(void **state)
{
	(void)state;
	refuse = 0;
	table = io_table_new(&kernel);
	if (table)
		io_table_allow(table, true);
	return table ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(io_table_count(table), 0);
	io_table_free(table);
	assert_int_equal(atomic_load(&open_ids), 0);
	return 0;
}

static struct io_open enter(uint64_t nodeid, int flags)
{
	struct io_open open = {.nodeid = nodeid, .path_fd = 5, .flags = flags};
	assert_int_equal(io_mode_enter(table, &open), 0);
	return open;
}

static void leave(const struct io_open *open)
{
	io_mode_leave(table, open->nodeid, open->flags);
}

static void test_first_open_chooses(void **state)
{
	(void)state;
	struct io_open r = enter(7, O_RDONLY), w = enter(8, O_WRONLY | O_APPEND), rw = enter(9, O_RDWR);

	assert_int_equal(r.mode, IO_PASSTHROUGH);
	assert_true(r.backing_id > 0 && !r.direct && !r.parallel && !r.keep_cache && !r.risky);
	assert_int_equal(w.mode, IO_PASSTHROUGH);
	assert_true(w.backing_id > 0 && w.direct && w.parallel && !w.keep_cache && !w.risky);
	assert_int_equal(rw.mode, IO_CACHED);
	assert_true(rw.backing_id == 0 && !rw.direct && !rw.parallel && rw.keep_cache && !rw.risky);
	assert_int_equal(io_table_count(table), 3);
	leave(&r);
	leave(&w);
	leave(&rw);
	r = enter(7, O_RDONLY | O_DIRECT); /* which may be taken away */
	assert_int_equal(r.mode, IO_PASSTHROUGH);
	assert_true(r.backing_id > 0 && r.direct && !r.parallel && !r.risky);
	leave(&r);
}

static void test_others_follow(void **state)
{
	(void)state;
	struct io_open r = enter(7, O_RDONLY), rw = enter(7, O_RDWR), w = enter(7, O_WRONLY), r2 = enter(7, O_RDONLY);

	assert_int_equal(rw.mode, IO_PASSTHROUGH);
	assert_true(rw.direct && !rw.parallel && rw.risky);
	assert_true(w.direct && w.parallel && !w.risky);
	assert_true(!r2.direct && !r2.risky);
	assert_int_equal(rw.backing_id, r.backing_id);
	assert_int_equal(w.backing_id, r.backing_id);
	assert_int_equal(r2.backing_id, r.backing_id);
	assert_int_equal(atomic_load(&open_ids), 1);
	leave(&r);
	leave(&r2);
	leave(&w);
	assert_int_equal(atomic_load(&open_ids), 1);
	leave(&rw);
	assert_int_equal(atomic_load(&open_ids), 0);

	/* It was opened for both while in passthrough: cached now, and all that come to it. */
	rw = enter(7, O_RDONLY);
	w = enter(7, O_WRONLY);
	assert_int_equal(rw.mode, IO_CACHED);
	assert_true(w.mode == IO_CACHED && !w.direct);
	leave(&rw);
	leave(&w);
}

/* One that was updated in place will be again; a new one was only filled. */
static void test_databases(void **state)
{
	(void)state;
	struct io_open rw = enter(7, O_RDWR), r;

	leave(&rw);
	r = enter(7, O_RDONLY);
	assert_int_equal(r.mode, IO_PASSTHROUGH);
	leave(&r);
	rw = (struct io_open){.nodeid = 7, .flags = O_RDWR, .filled = true};
	assert_int_equal(io_mode_enter(table, &rw), 0);
	leave(&rw);
	r = enter(7, O_RDONLY);
	assert_int_equal(r.mode, IO_CACHED);
	leave(&r);
	r = enter(8, O_RDONLY);
	assert_int_equal(r.mode, IO_PASSTHROUGH);
	leave(&r);
}

/* Pages may be used again only by who comes after cached opens; who is answered never has the kernel drop them, when others write already. */
static void test_keep_cache(void **state)
{
	(void)state;
	atomic_store(&drops, 0);
	struct io_open first = enter(9, O_RDWR), second = enter(9, O_RDONLY);

	assert_true(first.keep_cache && second.keep_cache);
	assert_int_equal(atomic_load(&drops), 0); /* nothing was ever opened otherwise */
	leave(&first);
	leave(&second);
	second = enter(9, O_RDONLY);
	assert_true(second.mode == IO_PASSTHROUGH && !second.keep_cache);
	leave(&second);
	first = enter(9, O_RDWR);
	second = enter(9, O_RDONLY);
	assert_true(first.keep_cache && second.keep_cache);
	assert_int_equal(atomic_load(&drops), 1);
	leave(&first);
	leave(&second);
	first = enter(9, O_RDWR);
	assert_true(first.keep_cache);
	assert_int_equal(atomic_load(&drops), 1);
	leave(&first);
	/* One that was just made has none. */
	struct io_open fresh = {.nodeid = 10, .flags = O_RDWR, .fresh = true};
	assert_int_equal(io_mode_enter(table, &fresh), 0);
	assert_true(fresh.keep_cache);
	assert_int_equal(atomic_load(&drops), 1);
	leave(&fresh);
	/* Direct opens are no cached ones either. */
	struct io_open direct = {.nodeid = 9, .flags = O_RDWR, .node = SUSPECT};
	io_table_allow(table, false);
	assert_int_equal(io_mode_enter(table, &direct), 0);
	assert_int_equal(direct.mode, IO_DIRECT);
	assert_true(direct.direct && direct.backing_id == 0 && !direct.risky && !direct.keep_cache);
	leave(&direct);
	first = enter(9, O_RDWR);
	assert_int_equal(atomic_load(&drops), 2);
	leave(&first);
}

static void test_without_passthrough(void **state)
{
	(void)state;
	io_table_allow(table, false);
	struct io_open r = enter(7, O_RDONLY);
	assert_int_equal(r.mode, IO_CACHED);
	leave(&r);
	io_table_allow(table, true);
	refuse = EPERM; /* by the kernel */
	r = enter(7, O_RDONLY);
	assert_int_equal(r.mode, IO_CACHED);
	refuse = 0; /* too late for this inode */
	struct io_open w = enter(7, O_WRONLY);
	assert_int_equal(w.mode, IO_CACHED);
	leave(&w);
	leave(&r);
	struct io_open plain = {.nodeid = 7, .flags = O_WRONLY, .plain = true};
	assert_int_equal(io_mode_enter(table, &plain), 0);
	assert_int_equal(plain.mode, IO_CACHED);
	leave(&plain);
}

/* The mapping that makes it suspect sees no pages of our inode, and they don't see it. */
static void test_suspect_is_never_cached(void **state)
{
	(void)state;
	struct io_open open = {.nodeid = 7, .flags = O_RDWR, .node = SUSPECT};

	assert_int_equal(io_mode_enter(table, &open), 0);
	assert_int_equal(open.mode, IO_PASSTHROUGH);
	assert_true(open.risky);
	leave(&open);

	/* It becomes so by others while the open is on its way: they come first, and go. */
	static const int other;
	struct io_open late = {.nodeid = 8, .flags = O_RDWR, .node = (const struct node *)&other};
	suspect = late.node;
	assert_int_equal(io_mode_enter(table, &late), 0);
	assert_int_equal(late.mode, IO_PASSTHROUGH);
	assert_true(late.risky);
	leave(&late);
	suspect = NULL;
}

/* A mapping that passthrough has left, for reading, sees no pages of our inode either. */
static void test_in_use_is_not_cached(void **state)
{
	(void)state;
	struct io_open r = enter(7, O_RDONLY);
	assert_int_equal(r.mode, IO_PASSTHROUGH);
	leave(&r);
	in_use = true;
	struct io_open both = enter(7, O_RDWR);
	assert_int_equal(both.mode, IO_PASSTHROUGH);
	assert_true(both.risky);
	leave(&both);
	in_use = false;
	both = enter(7, O_RDWR);
	assert_int_equal(both.mode, IO_CACHED);
	leave(&both);

	/* Warm: nothing can have been left since somebody looked. */
	int before = asked;
	both = enter(7, O_RDWR);
	assert_int_equal(both.mode, IO_CACHED);
	leave(&both);
	assert_int_equal(asked, before);
}

static bool looks(int flags)
{
	int before = looked;
	io_mode_look(table, NULL, 7, flags);
	return looked != before;
}

/* Only where the open would be cached, and nothing of ours is in the way. */
static void test_look(void **state)
{
	(void)state;
	assert_false(looks(O_RDWR)); /* nothing was passed through yet */
	struct io_open r = enter(7, O_RDONLY);
	assert_false(looks(O_RDWR));
	leave(&r);
	assert_true(looks(O_RDWR));
	assert_false(looks(O_RDONLY));
	assert_false(looks(O_WRONLY));
	struct io_open both = {.nodeid = 7, .path_fd = 5, .flags = O_RDWR, .filled = true};
	assert_int_equal(io_mode_enter(table, &both), 0);
	assert_int_equal(both.mode, IO_CACHED);
	assert_false(looks(O_RDWR));
	leave(&both);
	assert_true(looks(O_RDONLY)); /* it prefers to be cached now */
	io_table_allow(table, false);
	assert_false(looks(O_RDWR));
}

/* ---------------------------------------------------------------- holding */

static atomic_bool entered;

static void *open_to_write(void *context)
{
	struct io_open *open = context;
	*open = enter(7, O_RDWR);
	atomic_store(&entered, true);
	return NULL;
}

static void test_hold(void **state)
{
	(void)state;
	struct io_open w = enter(7, O_WRONLY), r, late;
	pthread_t thread;

	assert_false(io_mode_hold(table, 7));
	assert_true(io_mode_leave(table, 7, w.flags));
	assert_int_equal(io_table_count(table), 0);
	assert_true(io_mode_hold(table, 7));
	atomic_store(&entered, false);
	assert_int_equal(pthread_create(&thread, NULL, open_to_write, &late), 0);
	r = enter(7, O_RDONLY); /* may */
	assert_false(atomic_load(&entered));
	io_mode_resume(table, 7);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&entered));
	assert_false(io_mode_leave(table, 7, r.flags));
	assert_true(io_mode_leave(table, 7, late.flags));
	/* Nobody waits, nothing is left. */
	assert_true(io_mode_hold(table, 7));
	io_mode_resume(table, 7);
}

/* ---------------------------------------------------------------- many at once */

#define THREADS 8
#define INODES 3
#define STEPS 20000

static struct kernel_inode inodes[INODES];

static pthread_mutex_t holding = PTHREAD_MUTEX_INITIALIZER; /* one at a time, as suspect_check does it */

static void *open_and_close(void *context)
{
	unsigned seed = (unsigned)(uintptr_t)context;
	struct io_open opens[8];
	bool is_open[8] = {false};

	for (int step = 0; step < STEPS; step++) {
		int slot = rand_r(&seed) % 8;
		struct io_open *open = &opens[slot];
		if (is_open[slot]) { /* what goes on between the kernel's count and ours is up to the scheduler */
			kernel_release(&inodes[open->nodeid - 1], open);
			leave(open);
			is_open[slot] = false;
		} else if (rand_r(&seed) % 16 == 0) {
			uint64_t nodeid = 1 + (unsigned)rand_r(&seed) % INODES;
			pthread_mutex_lock(&holding);
			if (io_mode_hold(table, nodeid))
				io_mode_resume(table, nodeid);
			pthread_mutex_unlock(&holding);
		} else {
			static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR};
			*open = (struct io_open){.nodeid = 1 + (unsigned)rand_r(&seed) % INODES, .flags = flags[rand_r(&seed) % 3],
						 .node = rand_r(&seed) % 8 == 0 ? SUSPECT : NULL};
			assert_int_equal(io_mode_enter(table, open), 0);
			assert_int_equal(kernel_take(&inodes[open->nodeid - 1], open), 0);
			is_open[slot] = true;
		}
	}
	for (int slot = 0; slot < 8; slot++) {
		if (is_open[slot]) {
			kernel_release(&inodes[opens[slot].nodeid - 1], &opens[slot]);
			leave(&opens[slot]);
		}
	}
	return NULL;
}

static void test_kernel_never_refuses(void **state)
{
	(void)state;
	pthread_t threads[THREADS];

	for (int i = 0; i < INODES; i++)
		inodes[i] = (struct kernel_inode){.lock = PTHREAD_MUTEX_INITIALIZER};
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < INODES; i++)
		assert_true(inodes[i].iocachectr == 0 && inodes[i].backing == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_open_chooses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_follow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_databases, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keep_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_passthrough, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspect_is_never_cached, setup, teardown), cmocka_unit_test_setup_teardown(test_in_use_is_not_cached, setup, teardown),
		cmocka_unit_test_setup_teardown(test_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kernel_never_refuses, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
