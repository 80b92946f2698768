/* Files that change through a mapping that nobody sees (suspect.h): they get into versions all the same, and until it is certain that nobody can any more, the volume never says that it is synced (I10, I24).
 * The test maps files of the tree itself, as the kernel does for a process that has opened one through the mount in passthrough mode. */
#include "machine.h"

#include "clock.h"
#include "db.h"
#include "failpoint.h"
#include "rescan.h"
#include "suspect.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES 300000

static int setup(void **state)
{
	struct machine *machine = machine_setup(state, "suspect");

	machine_begin(machine, "head -c %d /dev/urandom >f; echo other >other", BYTES);
	return 0;
}

static struct node *node_of(struct machine *machine, const char *name)
{
	struct backing *backing = volume_backing(machine->volume);
	struct node_key key;
	struct stat st;
	int fd;

	assert_int_equal(backing_identify(backing, backing_root_fd(backing), name, &key, &st, &fd), 0);
	struct node *node = node_get(volume_nodes(machine->volume), &key, st.st_mode & S_IFMT, fd);
	close(fd);
	assert_non_null(node);
	return node;
}

static int add(struct machine *machine, const char *name)
{
	struct node *node = node_of(machine, name);
	int rc = suspect_add(volume_journal(machine->volume), node);

	node_put(volume_nodes(machine->volume), node);
	return rc;
}

static bool is_suspect(struct machine *machine, const char *name)
{
	struct node *node = node_of(machine, name);
	bool is = suspect_is(volume_journal(machine->volume), node);

	node_put(volume_nodes(machine->volume), node);
	return is;
}

/* A shared writable mapping; the descriptor is closed. */
static char *map(struct machine *machine, const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", machine->tree, name);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	char *bytes = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(bytes != MAP_FAILED);
	close(fd);
	return bytes;
}

static int64_t versions(struct machine *machine)
{
	return machine_int(machine, "SELECT count(*) FROM version");
}

static int64_t rows(struct machine *machine)
{
	return machine_int(machine, "SELECT count(*) FROM suspect");
}

static void check_not_synced(struct machine *machine)
{
	struct engine_status status = machine_status(machine);

	assert_int_not_equal(status.state, ENGINE_SYNCED);
	assert_int_equal(status.suspect_files, 1);
	assert_true(status.safe_until_ns != INT64_MAX);
}

static void check_synced(struct machine *machine)
{
	/* A sync is answered when its version is confirmed; what the threads count goes down right after. */
	MACHINE_AWAIT(machine, "synced", machine_status(machine).state == ENGINE_SYNCED);
	struct engine_status status = machine_status(machine);
	assert_int_equal(status.suspect_files, 0);
	assert_true(status.safe_until_ns == INT64_MAX);
	assert_int_equal(rows(machine), 0);
}

/* I24; and each store is in the version of the next sync, also one to a page that is dirty already, which changes no timestamp. */
static void test_i24_stores_get_into_versions(void **state)
{
	struct machine *machine = *state;
	char *bytes = map(machine, "f");

	assert_int_equal(add(machine, "f"), 0);
	assert_int_equal(add(machine, "f"), 0);
	assert_int_equal(rows(machine), 1);
	check_not_synced(machine);
	for (int i = 0; i < 3; i++) {
		bytes[4096]++;
		MACHINE_OK(machine, machine_sync(machine));
		machine_compare(machine);
		check_not_synced(machine);
	}
	int64_t before = versions(machine);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_sync(machine));
	assert_int_equal(versions(machine), before); /* nothing was stored */
	bytes[BYTES - 1]++;
	munmap(bytes, BYTES);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_synced(machine);
	assert_false(is_suspect(machine, "f"));
	assert_int_equal(versions(machine), before + 1);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* I10: not clean, and the next mount goes on where this one ended, whatever the timestamps say. */
static void test_i10_a_mapping_outlives_the_mount(void **state)
{
	struct machine *machine = *state;
	char *bytes = map(machine, "f");

	bytes[0]++;
	assert_int_equal(add(machine, "f"), 0);
	MACHINE_OK(machine, machine_sync(machine));
	assert_int_equal(machine_unmount(machine, NS_PER_S, true), ERR_TIMEOUT);
	assert_non_null(strstr(machine->error.message, "mapped for writing"));
	bytes[0]++;
	machine_mount(machine, false, false);
	assert_true(is_suspect(machine, "f"));
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_not_synced(machine);
	munmap(bytes, BYTES);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true)); /* the last cut proves it */
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	check_synced(machine);
	machine_compare(machine);
}

static void test_others_that_may_write(void **state)
{
	struct machine *machine = *state;
	char path[200];

	snprintf(path, sizeof(path), "%s/f", machine->tree);
	int fd = open(path, O_WRONLY);
	assert_int_equal(add(machine, "f"), 0);
	MACHINE_OK(machine, machine_sync(machine));
	check_not_synced(machine);
	close(fd);
	/* Read-only mappings don't matter. */
	fd = open(path, O_RDONLY);
	void *bytes = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	MACHINE_OK(machine, machine_sync(machine));
	check_synced(machine);
	munmap(bytes, BYTES);
	close(fd);
}

static void test_without_a_name(void **state)
{
	struct machine *machine = *state;
	char *bytes = map(machine, "f");

	assert_int_equal(add(machine, "f"), 0);
	machine_unlink(machine, "f");
	MACHINE_OK(machine, machine_sync(machine));
	bytes[0]++;
	check_synced(machine);
	munmap(bytes, BYTES);
}

/* ---------------------------------------------------------------- the guard */

static atomic_int held, resumed;
static atomic_bool may_hold;

static bool hold(void *context, const struct node *node)
{
	(void)context;
	(void)node;
	atomic_fetch_add(&held, 1);
	return atomic_load(&may_hold);
}

static void resume(void *context, const struct node *node)
{
	(void)context;
	(void)node;
	atomic_fetch_add(&resumed, 1);
}

static void test_guard(void **state)
{
	struct machine *machine = *state;
	struct journal *journal = volume_journal(machine->volume);

	atomic_store(&held, 0);
	atomic_store(&resumed, 0);
	atomic_store(&may_hold, false);
	suspect_set_guard(journal, &(struct suspect_guard){.hold = hold, .resume = resume});
	assert_int_equal(add(machine, "f"), 0);
	MACHINE_OK(machine, machine_sync(machine));
	check_not_synced(machine); /* an open that can write was counted, though its descriptor was not there */
	assert_int_equal(atomic_load(&resumed), 0);
	atomic_store(&may_hold, true);
	MACHINE_OK(machine, machine_sync(machine));
	check_synced(machine);
	assert_int_equal(atomic_load(&resumed), 1);
	assert_true(atomic_load(&held) > 1);
	suspect_set_guard(journal, NULL);
}

/* ---------------------------------------------------------------- added while it is being removed */

struct adding { struct machine *machine; struct node *node; };

static void *add_often(void *arg)
{
	struct adding *adding = arg;

	for (int i = 0; i < 500; i++)
		if (suspect_add(volume_journal(adding->machine->volume), adding->node) != 0)
			return NULL;
	return adding;
}

/* A file without a name is opened again and again, while the pipeline takes it out of the set each time. */
static void test_added_while_gone(void **state)
{
	struct machine *machine = *state;
	struct adding adding = {machine, node_of(machine, "f")};
	pthread_t threads[2];

	machine_run(machine, "rm f");
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_often, &adding), 0);
	for (int i = 0; i < 2; i++) {
		void *result;
		pthread_join(threads[i], &result);
		assert_non_null(result);
	}
	MACHINE_OK(machine, machine_sync(machine));
	assert_false(suspect_is(volume_journal(machine->volume), adding.node));
	node_put(volume_nodes(machine->volume), adding.node);
}

static void *add_it(void *machine)
{
	return add(machine, "f") == 0 ? machine : NULL;
}

static struct journal *open_without_pipeline(struct machine *machine)
{
	struct error *error = &machine->error;
	bool clean, same_boot;

	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	MACHINE_OK(machine, volume_open(machine->config, &machine->volume, error));
	MACHINE_OK(machine, volume_open_backing(machine->volume, false, error));
	MACHINE_OK(machine, volume_start_journal(machine->volume, NULL, NULL, &clean, &same_boot, error));
	assert_true(clean);
	return volume_journal(machine->volume);
}

static void wait_until_due(struct journal *journal)
{
	for (int64_t began = clock_mono_ns(); suspect_due(journal) == INT64_MAX; sched_yield())
		if (clock_mono_ns() - began > 60 * NS_PER_S)
			fail_msg("waited a minute for the check to be due");
}

/* As the pipeline does it: 1 quiet; 2 cut; 3 the transaction removes the row; 4 somebody opens it again; 5 commit. */
static void test_added_while_removed(void **state)
{
	struct machine *machine = *state;
	struct error *error = &machine->error;
	struct journal *journal = open_without_pipeline(machine);

	for (int committed = 0; committed < 2; committed++) {
		struct db_conn *conn;
		struct cut *cut;
		pthread_t thread;
		void *result;

		assert_int_equal(add(machine, "f"), 0);
		assert_int_equal(suspect_due(journal), 0);
		MACHINE_OK(machine, suspect_check(journal, false, error));
		assert_true(suspect_due(journal) == INT64_MAX);
		MACHINE_OK(machine, journal_cut(journal, NS_PER_S, &cut));
		MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, error));
		MACHINE_OK(machine, cut_forget_rows(cut, conn, error));
		assert_int_equal(pthread_create(&thread, NULL, add_it, machine), 0);
		/* It is on its way when its check is due again; then it waits for our transaction. */
		wait_until_due(journal);
		if (committed)
			MACHINE_OK(machine, db_commit(volume_db(machine->volume), error));
		else
			db_rollback(volume_db(machine->volume));
		pthread_join(thread, &result);
		assert_non_null(result);
		if (committed)
			cut_commit(cut);
		else
			cut_abandon(cut);
		assert_int_equal(rows(machine), 1);
		assert_true(is_suspect(machine, "f"));
	}
	/* And without anybody in between. */
	struct db_conn *conn;
	struct cut *cut;
	MACHINE_OK(machine, suspect_check(journal, false, error));
	MACHINE_OK(machine, journal_cut(journal, NS_PER_S, &cut));
	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, error));
	MACHINE_OK(machine, cut_forget_rows(cut, conn, error));
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), error));
	cut_commit(cut);
	assert_int_equal(rows(machine), 0);
	assert_false(is_suspect(machine, "f"));
	volume_close(machine->volume, false);
	machine_mount(machine, false, false); /* for the teardown */
}

/* ---------------------------------------------------------------- the database refuses */

static void sql(struct machine *machine, const char *text)
{
	struct db_conn *conn;

	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, &machine->error));
	MACHINE_OK(machine, db_exec(conn, text, &machine->error));
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), &machine->error));
}

/* The mark survives a kill; what is mapped then is found by the rescan. */
static void test_database_refuses(void **state)
{
	struct machine *machine = *state;
	char *bytes = map(machine, "f");

	sql(machine, "ALTER TABLE suspect RENAME TO away");
	assert_int_equal(add(machine, "f"), 0);
	assert_true(is_suspect(machine, "f"));
	sql(machine, "ALTER TABLE away RENAME TO suspect");
	assert_int_equal(rows(machine), 0);
	assert_int_equal(machine_unmount(machine, 0, false), ERR_TIMEOUT);
	bytes[0]++;
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	assert_true(is_suspect(machine, "f"));
	assert_false(is_suspect(machine, "other"));
	assert_int_equal(rows(machine), 1);
	bytes[0]++;
	munmap(bytes, BYTES);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	check_synced(machine);
	machine_compare(machine);
}

/* Neither the row, which was being removed, nor the mark: who comes next is refused, too, and not told that all is well. */
static void test_refused_while_removed(void **state)
{
	struct machine *machine = *state;
	struct error *error = &machine->error;
	struct journal *journal = open_without_pipeline(machine);
	struct db_conn *conn;
	struct cut *cut;
	pthread_t thread;
	void *result;

	assert_int_equal(add(machine, "f"), 0);
	MACHINE_OK(machine, suspect_check(journal, false, error));
	MACHINE_OK(machine, journal_cut(journal, NS_PER_S, &cut));
	sql(machine, "ALTER TABLE suspect ADD COLUMN more INT"); /* of which INSERT says nothing */
	int state_fd = volume_state_fd(machine->volume);
	assert_int_equal(renameat(state_fd, "overflow", state_fd, "away"), 0);
	assert_int_equal(mkdirat(state_fd, "overflow", 0700), 0);
	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, error));
	MACHINE_OK(machine, cut_forget_rows(cut, conn, error));
	assert_int_equal(pthread_create(&thread, NULL, add_it, machine), 0);
	wait_until_due(journal);
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), error));
	pthread_join(thread, &result);
	assert_null(result);
	cut_commit(cut);
	assert_int_equal(add(machine, "f"), -EIO);
	sql(machine, "ALTER TABLE suspect DROP COLUMN more");
	assert_int_equal(unlinkat(state_fd, "overflow", AT_REMOVEDIR), 0);
	assert_int_equal(renameat(state_fd, "away", state_fd, "overflow"), 0);
	assert_int_equal(rows(machine), 0);
	assert_int_equal(add(machine, "f"), 0);
	assert_int_equal(rows(machine), 1);
	volume_close(machine->volume, false);
	machine_mount(machine, false, false); /* for the teardown */
}

/* It goes on refusing while the next session looks: that does not take the mark away. */
static void test_database_refuses_again(void **state)
{
	struct machine *machine = *state;
	char *bytes = map(machine, "f");

	sql(machine, "ALTER TABLE suspect ADD COLUMN more INT"); /* of which INSERT says nothing */
	assert_int_equal(add(machine, "f"), 0);
	for (int session = 0; session < 2; session++) {
		assert_int_equal(machine_unmount(machine, 0, false), ERR_TIMEOUT);
		bytes[0]++;
		machine_mount(machine, false, false);
		MACHINE_OK(machine, machine_sync(machine));
		machine_compare(machine);
		assert_true(is_suspect(machine, "f"));
		assert_int_equal(rows(machine), 0);
	}
	sql(machine, "ALTER TABLE suspect DROP COLUMN more");
	munmap(bytes, BYTES);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	check_synced(machine);
}

/* ---------------------------------------------------------------- */

static void test_leases(void **state)
{
	struct machine *machine = *state;
	struct backing *backing = volume_backing(machine->volume);

	if (geteuid() != 0)
		skip(); /* the scratch file is given away */
	assert_true(backing_leases_tell(backing));
	assert_true(backing_has_direct_io(backing));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_i24_stores_get_into_versions), TEST(test_i10_a_mapping_outlives_the_mount), TEST(test_others_that_may_write),
		TEST(test_without_a_name), TEST(test_guard), TEST(test_added_while_removed), TEST(test_added_while_gone), TEST(test_database_refuses), TEST(test_database_refuses_again), TEST(test_refused_while_removed), TEST(test_leases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
