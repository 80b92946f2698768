/* The unsettled set (I9, I10): what an fsync waits for. */
#include "journal.h"
#include "journal_internal.h"

#include "clock.h"
#include "db_internal.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64], state_directory[128];
static struct db *db;
static struct backing *backing;
static struct node_table *nodes;
static struct journal *journal;

static void open_journal(bool clean)
{
	assert_int_equal(journal_open(db, backing, nodes, state_directory, clean, NULL, NULL, &journal, NULL), 0);
}

static int setup(void **state)
{
	char path[128];

	(void)state;
	strcpy(directory, "/tmp/yester-unsettled-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(state_directory, sizeof state_directory, "%s/state", directory);
	snprintf(path, sizeof path, "%s/tree", directory);
	assert_int_equal(mkdir(state_directory, 0700), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(db_open(state_directory, true, &db, NULL), 0);
	assert_int_equal(backing_open(path, &backing, NULL), 0);
	nodes = node_table_new();
	assert_non_null(nodes);
	open_journal(true);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	assert_int_equal(journal_close(journal, false, NULL), 0);
	assert_int_equal(node_table_count(nodes), 0);
	backing_close(backing);
	node_table_free(nodes);
	db_close(db);
	snprintf(command, sizeof command, "rm -rf '%s'", directory);
	return system(command) == 0 ? 0 : -1;
}

static void forget_table(void)
{
	struct db_conn *conn;

	assert_int_equal(db_begin(db, false, &conn, NULL), 0);
	assert_int_equal(db_exec(conn, "DELETE FROM unsettled; DELETE FROM journal_inode", NULL), 0);
	assert_int_equal(db_commit(db, NULL), 0);
}

static void forget_rows(struct cut *cut)
{
	struct db_conn *conn;

	assert_int_equal(db_begin(db, false, &conn, NULL), 0);
	assert_int_equal(cut_forget_rows(cut, conn, NULL), 0);
	assert_int_equal(db_commit(db, NULL), 0);
}

static struct node *made_up(uint64_t number)
{
	struct node_key key = {.length = 2 + sizeof number};

	key.bytes[0] = 1;
	memcpy(key.bytes + 2, &number, sizeof number);
	return node_get(nodes, &key, S_IFREG, -1);
}

static struct node *record_new(uint64_t number)
{
	struct node *node = made_up(number);
	struct mutation mutation;

	assert_non_null(node);
	assert_int_equal(mutation_begin(&mutation, journal), 0);
	mutation_lock(&mutation, node, NULL, NULL, NULL);
	assert_int_equal(mutation_attrs(&mutation, node), 0);
	mutation_end(&mutation);
	return node;
}

struct search { const struct node *node; bool found; };

static int search_log(void *context, const struct node_key *key, int64_t epoch)
{
	struct search *search = context;

	search->found |= node_key_equal(key, &search->node->key) && epoch >= search->node->dirt->epoch;
	return 0;
}

static bool is_logged(const struct node *node)
{
	struct search search = {.node = node};

	assert_int_equal(unsettled_log_each(journal->state_fd, search_log, &search), 0);
	return search.found;
}

static bool has_unsettled_row(const struct node *node)
{
	struct db_conn *conn;
	int found;

	assert_int_equal(db_read_begin(db, &conn, NULL), 0);
	found = db_step(conn, NULL, "SELECT 1 FROM unsettled WHERE key = ?", "b", node->key.bytes, (size_t)node->key.length);
	if (found == 1)
		db_reset(db_last(conn));
	db_read_end(db, conn);
	return found == 1;
}

static void test_i9_row_before_fsync(void **state)
{
	struct node *node = record_new(500);

	(void)state;
	assert_int_equal(journal_wait_unsettled(journal, node), 0);
	assert_true(is_logged(node));
	assert_true(journal_node_pending(journal, node));
	node_put(nodes, node);
}

static struct node *record_beside(const struct node *like, uint64_t *number)
{
	for (;;) {
		struct node *node = record_new((*number)++);

		if (!like || journal_shard(journal, node) == journal_shard(journal, like))
			return node;
		node_put(nodes, node);
	}
}

static size_t unflushed_beside(const struct node *node)
{
	struct shard *shard = journal_shard(journal, node);
	size_t count;

	pthread_mutex_lock(&shard->mutex);
	count = shard->unflushed_count;
	pthread_mutex_unlock(&shard->mutex);
	return count;
}

static void *wait_unsettled(void *node)
{
	return journal_wait_unsettled(journal, node) == 0 ? node : NULL;
}

static void *flush(void *unused)
{
	return journal_flush(journal, NULL) == 0 ? unused : NULL;
}

/* I9: an fsync waits for its own row, not for what others recorded, and not for the flush that may be writing that. */
static void test_i9_fsync_beside_others(void **state)
{
	uint64_t number = 1000;
	struct node *waiting, *blocking;
	pthread_t flusher;
	void *done;

	(void)state;
	assert_int_equal(journal_flush(journal, NULL), 0);
	blocking = record_beside(NULL, &number);
	waiting = record_beside(blocking, &number);
	small_lock_take(&blocking->lock);
	assert_int_equal(pthread_create(&flusher, NULL, flush, waiting), 0);
	int64_t began = clock_mono_ns();
	while (unflushed_beside(waiting) > 1) { /* until the flush stops at our lock */
		if (clock_mono_ns() - began > 60 * NS_PER_S)
			fail_msg("waited a minute for the flush");
		sched_yield();
	}
	assert_int_equal(journal_wait_unsettled(journal, waiting), 0);
	assert_true(is_logged(waiting));
	assert_false(is_logged(blocking));
	small_lock_leave(&blocking->lock);
	assert_int_equal(pthread_join(flusher, &done), 0);
	assert_ptr_equal(done, waiting);
	assert_true(has_unsettled_row(blocking));
	node_put(nodes, waiting);
	node_put(nodes, blocking);
}

#define CROWD 40

/* I9: they write for each other, and each has its row when it goes on. */
static void test_i9_many_at_once(void **state)
{
	struct node *crowd[CROWD];
	pthread_t threads[CROWD];
	struct journal_counts counts;

	(void)state;
	for (uint64_t i = 0; i < CROWD; i++)
		crowd[i] = record_new(3000 + i / 2); /* two threads for each inode */
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_unsettled, crowd[i]), 0);
	for (int i = 0; i < CROWD; i++) {
		void *done;

		assert_int_equal(pthread_join(threads[i], &done), 0);
		assert_ptr_equal(done, crowd[i]);
		assert_true(is_logged(crowd[i]));
	}
	assert_int_equal(journal_flush(journal, NULL), 0);
	journal_get_counts(journal, &counts);
	assert_true(counts.unsettled >= CROWD / 2);
	for (int i = 0; i < CROWD; i++)
		node_put(nodes, crowd[i]);
}

/* I9: when the database can't be written (here: no file may grow), the mark that all inodes are unsettled takes the place of the row. */
static void test_i9_without_database(void **state)
{
	struct rlimit before, none;
	struct node *node = record_new(4000);
	int result, fd;
	char mark = 0;

	(void)state;
	assert_int_equal(journal_flush(journal, NULL), 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = (struct rlimit){1, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	result = journal_wait_unsettled(journal, node);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(result, 0);
	fd = openat(journal->state_fd, "overflow", O_RDONLY);
	assert_int_equal(read(fd, &mark, 1), 1);
	assert_int_equal(mark, 1);
	close(fd);
	/* Neither the log nor its writer is asked again; the database is. */
	assert_int_equal(journal_wait_unsettled(journal, node), 0);
	assert_true(has_unsettled_row(node));
	node_put(nodes, node);
	assert_int_equal(journal_close(journal, true, NULL), 0);
	open_journal(true);
}

static int64_t count_unsettled(void)
{
	struct db_conn *conn;
	int64_t count;

	assert_int_equal(db_read_begin(db, &conn, NULL), 0);
	assert_int_equal(db_step(conn, NULL, "SELECT count(*) FROM unsettled", ""), 1);
	count = db_int(db_last(conn), 0);
	db_read_end(db, conn);
	return count;
}

/* I9: what is only in the log enters the table after a crash; what was settled since does not. */
static void test_i9_log_after_a_crash(void **state)
{
	struct error error = {0};
	struct node *node;
	struct cut *cut;
	int64_t epoch;

	(void)state;
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0); /* what other tests left dirty */
	forget_rows(cut);
	cut_commit(cut);
	node = record_new(5000);
	assert_int_equal(journal_wait_unsettled(journal, node), 0);
	assert_true(is_logged(node));
	/* A crash: nothing of what memory has is written. */
	journal_store_stop(journal);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	cut_commit(cut);
	assert_int_equal(journal_close(journal, false, &error), 0);
	forget_table();
	open_journal(false);
	assert_true(count_unsettled() > 0);
	assert_true(has_unsettled_row(node));
	/* Settled: what the log says of it is history. */
	epoch = atomic_load(&journal->epoch);
	assert_int_equal(journal_settle(journal, epoch, &error), 0);
	assert_int_equal(count_unsettled(), 0);
	assert_int_equal(journal_close(journal, false, &error), 0);
	open_journal(false);
	assert_int_equal(count_unsettled(), 0);
	node_put(nodes, node);
}

/* I9: more fsyncs than the log holds: it turns while they go on. */
static void test_i9_log_turns(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 2500; i++) {
		struct node *node = record_new(10000 + i);

		assert_int_equal(journal_wait_unsettled(journal, node), 0);
		if (!is_logged(node))
			assert_true(has_unsettled_row(node));
		node_put(nodes, node);
	}
}

/* I10: what is spooled before the journal thread came to it is unsettled all the same, until a sync of the filesystem. */
static void test_i10_spooled_at_once(void **state)
{
	struct journal_counts counts;
	struct node *node;
	struct cut *cut;
	int64_t epoch;

	(void)state;
	assert_int_equal(journal_flush(journal, NULL), 0); /* the thread sleeps now for a second */
	node = record_new(UINT64_MAX);
	assert_int_equal(journal_cut(journal, NS_PER_S, &cut), 0);
	epoch = cut_epoch(cut);
	forget_rows(cut);
	cut_commit(cut);
	assert_true(has_unsettled_row(node));
	journal_get_counts(journal, &counts);
	assert_true(counts.unsettled > 0);
	assert_int_equal(journal_flush(journal, NULL), 0);
	assert_int_equal(journal_settle(journal, epoch, NULL), 0);
	assert_false(has_unsettled_row(node));
	node_put(nodes, node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_i9_row_before_fsync),
		cmocka_unit_test(test_i9_fsync_beside_others),
		cmocka_unit_test(test_i9_many_at_once),
		cmocka_unit_test(test_i9_without_database),
		cmocka_unit_test(test_i9_log_after_a_crash),
		cmocka_unit_test(test_i9_log_turns),
		cmocka_unit_test(test_i10_spooled_at_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
