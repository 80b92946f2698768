/* Fault 20: the local database is found damaged while it is in use. Nothing is built on it any more, whoever waits is told what to do, and the next mount fills a new one, also after a kill, and also when no
 * check would find the damage again. */
#include "machine.h"

#include "clock.h"
#include "db.h"
#include "engine_internal.h"
#include "pipeline_internal.h"
#include "recover.h"
#include "repair.h"
#include "spool.h"
#include "sync.h"

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int setup(void **state)
{
	struct machine *machine = machine_setup(state, "damaged");

	machine_begin(machine, "mkdir a; for i in $(seq 30); do echo $i >a/f$i; done");
	return 0;
}

static int open_file(struct machine *machine, off_t *size)
{
	char path[160];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/state/docs/volume.db", machine->base);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*size = st.st_size;
	return fd;
}

/* All pages but the first, so that it is still a database. */
static void damage_all(struct machine *machine)
{
	static const char junk[2048] = "not a page of a database";
	off_t size;
	int fd = open_file(machine, &size);

	for (off_t at = 4096; at < size; at += 4096)
		assert_int_equal(pwrite(fd, junk, sizeof(junk), at), (ssize_t)sizeof(junk));
	close(fd);
}

/* A value of many pages, at the end of the file; unmounts. */
static void add_filler(struct machine *machine, size_t length)
{
	void *filler = calloc(1, length);
	struct db_conn *conn;

	assert_non_null(filler);
	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, &machine->error));
	MACHINE_OK(machine, db_step(conn, &machine->error, "INSERT INTO pack VALUES(1000000, x'00', x'00', ?, 0, 0, 1)", "b", filler, length));
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), &machine->error));
	free(filler);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Only a check reads there. */
static void damage_filler(struct machine *machine, off_t pages_from_end)
{
	off_t size;
	int fd = open_file(machine, &size);

	assert_int_equal(pwrite(fd, "????", 4, size / 4096 * 4096 - pages_from_end * 4096), 4); /* the next page of a chain */
	close(fd);
}

/* One of so many bytes that the mount does not wait for its check. */
static void make_large_and_damage(struct machine *machine)
{
	add_filler(machine, 65 << 20);
	damage_filler(machine, 1000);
}

static void check_refused(struct machine *machine)
{
	int64_t version;

	assert_int_equal(machine_sync(machine), ERR_CORRUPT);
	assert_non_null(strstr(machine->error.message, "volume.db"));
	assert_non_null(strstr(machine->error.message, "mount it again"));
	assert_int_equal(sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &version, &machine->error), ERR_CORRUPT); /* nor is a scan made */
	assert_non_null(strstr(machine->error.message, "mount it again"));
	assert_int_equal(machine_status(machine).state, ENGINE_DEGRADED);
	assert_non_null(strstr(machine_status(machine).last_error, "mount it again"));
}

static void check_mended(struct machine *machine)
{
	machine_mount(machine, false, false);
	machine_run(machine, "ls %s/state/docs/volume.db.damaged-* >/dev/null", machine->base);
	machine_run(machine, "test ! -e %s/state/docs/rebuild", machine->base);
	machine_run(machine, "test \"$(cat late)\" = unsent");
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version WHERE flags & 1=0"), 2);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "rm -r %s/state/docs/volume.db.damaged-*", machine->base);
	machine_mount(machine, false, false); /* an ordinary one */
	MACHINE_OK(machine, machine_sync(machine)); /* an unmount before the scan is at its end says so */
	machine_run(machine, "test -z \"$(ls %s/state/docs | grep damaged)\"", machine->base);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_found_by_check(void **state)
{
	struct machine *machine = *state;

	make_large_and_damage(machine);
	machine_mount(machine, false, false);
	machine_run(machine, "echo unsent >late");
	check_refused(machine);
	machine_unmount(machine, 0, true);
	check_mended(machine);
}

/* In a process that is killed; meanwhile the file becomes whole again, as with a disk that gives now these bytes and now those. */
static void test_found_in_use_and_killed(void **state)
{
	struct machine *machine = *state;
	int status;

	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "cp %s/state/docs/volume.db %s/whole", machine->base, machine->base);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		machine_mount(machine, false, false);
		if (machine_sync(machine) != 0)
			_exit(2);
		damage_all(machine);
		machine_create(machine, "late");
		machine_write(machine, "late", 0, "unsent", 6);
		check_refused(machine);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	machine_run(machine, "rm %s/state/docs/volume.db-*; cp %s/whole %s/state/docs/volume.db", machine->base, machine->base, machine->base);
	check_mended(machine);
}

static void *sync_run(void *context)
{
	struct machine *machine = context;
	int64_t version;

	return (void *)(intptr_t)sync_engine()->sync(machine->engine, false, 60 * NS_PER_S, &version, &(struct error){0});
}

/* While a version is made: what it was made from may be wrong, a record's base as well. It is not committed. */
static void test_found_during_seal(void **state)
{
	struct machine *machine = *state;
	struct journal_counts counts;
	struct db_conn *conn;
	pthread_t thread;
	void *rc;

	add_filler(machine, 4 << 20);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	damage_filler(machine, 500);
	MACHINE_OK(machine, db_begin(volume_db(machine->volume), false, &conn, &machine->error)); /* nobody else commits */
	machine_create(machine, "late");
	machine_write(machine, "late", 0, "unsent", 6);
	int64_t before = machine_status(machine).head;
	assert_int_equal(pthread_create(&thread, NULL, sync_run, machine), 0);
	MACHINE_AWAIT(machine, "the cut", (journal_get_counts(volume_journal(machine->volume), &counts), !counts.first_change_ns));
	assert_int_equal(db_quick_check(volume_db(machine->volume), &machine->error), ERR_CORRUPT);
	db_rollback(volume_db(machine->volume));
	pthread_join(thread, &rc);
	assert_int_equal((intptr_t)rc, ERR_CORRUPT);
	assert_int_equal(machine_status(machine).head, before);
	machine_unmount(machine, 0, true);
	check_mended(machine);
}

#define UNSENT 20

/* Versions that no remote has yet, then damage. */
static void make_unsent_and_damage(struct machine *machine)
{
	int64_t version;
	char name[16];

	add_filler(machine, 4 << 20);
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_mount(machine, false, false);
	for (int i = 0; i < UNSENT; i++) {
		snprintf(name, sizeof(name), "unsent%d", i);
		machine_create(machine, name);
		MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
	}
	damage_filler(machine, 500);
	assert_int_equal(db_quick_check(volume_db(machine->volume), &machine->error), ERR_CORRUPT);
	assert_int_equal(machine_sync(machine), ERR_CORRUPT); /* the status has two troubles to tell of */
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
}

/* The next mount empties the spool: what is in it has to go up before, as at any other unmount. */
static void test_spool_goes_up(void **state)
{
	struct machine *machine = *state;

	make_unsent_and_damage(machine);
	int64_t before = machine_status(machine).confirmed;
	MACHINE_AWAIT(machine, "the remote to be tried again",
		      machine_sync(machine) == ERR_CORRUPT && machine_status(machine).confirmed > before);
	assert_int_equal(machine_unmount(machine, 60 * NS_PER_S, true), ERR_CORRUPT);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	assert_true(machine_int(machine, "SELECT count(*) FROM version WHERE flags & 1=0") >= 1 + UNSENT);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Without time to wait the reason is still the damage: what the verb without a mount says, whom a mere lack of time does not matter. */
static void test_no_time_for_the_spool(void **state)
{
	struct machine *machine = *state;

	make_unsent_and_damage(machine);
	assert_int_equal(machine_unmount(machine, 0, true), ERR_CORRUPT);
	assert_non_null(strstr(machine->error.message, "mount it again"));
}

static int deny_meta(void *context, int action, const char *table, const char *column, const char *database, const char *trigger)
{
	int *left = context;

	(void)column;
	(void)database;
	(void)trigger;
	return action == SQLITE_READ && strcmp(table, "meta") == 0 && (*left)-- > 0 ? SQLITE_DENY : SQLITE_OK;
}

/* Not damage: a read that fails once. What is in the spool must not be judged by the number that it did not give. */
static void test_unread_once(void **state)
{
	struct machine *machine = *state;
	struct spool *spool;
	struct db_conn *conn;
	bool rolled_back;
	int64_t version;
	int left = 1;

	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_create(machine, "unsent");
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
	machine_unmount(machine, 0, true);
	machine_open(machine, false, false);
	MACHINE_OK(machine, spool_open(machine->volume, &spool, &machine->error));
	MACHINE_OK(machine, db_read_begin(volume_db(machine->volume), &conn, &machine->error));
	sqlite3_set_authorizer(db_handle(conn), deny_meta, &left);
	db_read_end(volume_db(machine->volume), conn); /* the next reader's, too */
	assert_int_equal(repair_spool(machine->volume, NULL, spool, &rolled_back, &machine->error), ERR_FAILED);
	assert_false(rolled_back);
	assert_int_equal(left, 0);
	MACHINE_OK(machine, repair_spool(machine->volume, NULL, spool, &rolled_back, &machine->error));
	assert_false(rolled_back);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version"), 2);
	spool_free(spool);
	machine_unmount(machine, 0, true);
}

/* Nor must a directory be taken for the right one, nor a record name no checkpoint, because what says which it is was not read. */
static void test_identity_and_base_unread_once(void **state)
{
	struct machine *machine = *state;
	struct record_base base;
	struct volume *volume;
	struct db_conn *conn;
	int left = 1;

	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	MACHINE_OK(machine, volume_open(machine->config, &volume, &machine->error));
	MACHINE_OK(machine, db_read_begin(volume_db(volume), &conn, &machine->error));
	sqlite3_set_authorizer(db_handle(conn), deny_meta, &left);
	assert_int_equal(recover_load_base(conn, &base, &machine->error), ERR_FAILED);
	left = 1;
	db_read_end(volume_db(volume), conn);
	machine_run(machine, "mv %s %s.away; mkdir %s", machine->tree, machine->tree, machine->tree);
	assert_int_equal(volume_open_backing(volume, false, &machine->error), ERR_FAILED);
	assert_null(strstr(machine->error.message, "adopt"));
	volume_close(volume, false);
	MACHINE_OK(machine, volume_open(machine->config, &volume, &machine->error));
	assert_int_equal(volume_open_backing(volume, false, &machine->error), ERR_FAILED);
	assert_non_null(strstr(machine->error.message, "adopt"));
	volume_close(volume, false);
}

struct denied { /* of the statements that read meta, as they are prepared, one is refused */
	int nth, count;
	bool new;
};

static int deny_nth(void *context, int action, const char *table, const char *column, const char *database, const char *trigger)
{
	struct denied *denied = context;

	(void)column;
	(void)database;
	(void)trigger;
	denied->new |= action == SQLITE_SELECT;
	if (action != SQLITE_READ || strcmp(table, "meta") != 0)
		return SQLITE_OK;
	denied->count += denied->new;
	denied->new = false;
	return denied->count == denied->nth ? SQLITE_DENY : SQLITE_OK;
}

static void ignore(void *context) { (void)context; }

/* "The remote was emptied" would be said for good, if zeros were kept for the hash that was not read. */
static void test_confirmed_hash_unread_once(void **state)
{
	static const char zeros[] = "SELECT value=zeroblob(32) FROM meta WHERE name='confirmed_hash'";
	struct machine *machine = *state;
	struct denied denied = {.nth = 2}; /* numbers first, one statement for all of them */
	struct pipeline *pipeline;
	struct db_conn *conn;
	int64_t version;

	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_create(machine, "unsent");
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
	machine_unmount(machine, 0, true);
	machine_open(machine, false, false);
	MACHINE_OK(machine, pipeline_new(&pipeline, &machine->error));
	pipeline->parts.volume = pipeline->env.volume = machine->volume;
	pipeline->parts.store = machine->engine->store;
	MACHINE_OK(machine, spool_open(machine->volume, &pipeline->parts.spool, &machine->error));
	MACHINE_OK(machine, upload_start(machine->volume, pipeline->parts.store, pipeline->parts.spool, ignore, NULL, &pipeline->parts.upload,
					 &machine->error));
	MACHINE_OK(machine, db_read_begin(volume_db(machine->volume), &conn, &machine->error));
	sqlite3_set_authorizer(db_handle(conn), deny_nth, &denied);
	db_read_end(volume_db(machine->volume), conn);
	assert_int_equal(pipeline_check(pipeline, &machine->error), ERR_FAILED);
	assert_int_equal(machine_int(machine, zeros), 0);
	MACHINE_OK(machine, pipeline_check(pipeline, &machine->error));
	assert_int_equal(machine_int(machine, zeros), 0);
	store_cancel(pipeline->parts.store);
	upload_stop(pipeline->parts.upload);
	spool_free(pipeline->parts.spool);
	pipeline_free(pipeline);
	machine_unmount(machine, 0, true);
}

/* Who only reads beside the mount may have met with damage in the database before this one: it is not his to say that the new one is bad. */
static void test_reader_of_old_database(void **state)
{
	struct machine *machine = *state;
	struct volume *reader;

	add_filler(machine, 4 << 20);
	damage_filler(machine, 500);
	MACHINE_OK(machine, volume_open_reader(machine->config, &reader, &machine->error));
	assert_int_equal(db_quick_check(volume_db(reader), &machine->error), ERR_CORRUPT);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	volume_close(reader, false);
	machine_run(machine, "test ! -e %s/state/docs/rebuild", machine->base);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_found_by_check, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_found_in_use_and_killed, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_spool_goes_up, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_no_time_for_the_spool, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_found_during_seal, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_unread_once, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_identity_and_base_unread_once, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_confirmed_hash_unread_once, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_reader_of_old_database, setup, machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
