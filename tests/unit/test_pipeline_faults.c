#include "machine.h"

#include "behind.h"
#include "clock.h"
#include "db.h"
#include "engine_internal.h"
#include "pipeline_internal.h"
#include "sync.h"

#include <cmocka.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int setup(void **state)
{
	struct machine *machine = machine_setup(state, "faults");

	machine_begin(machine, "mkdir a; for i in $(seq 30); do echo $i >a/f$i; done; head -c 600000 /dev/urandom >big");
	return 0;
}

static void sync_and_compare(struct machine *machine)
{
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
}

static void remote_away(struct machine *machine, bool away)
{
	machine_run(machine, away ? "mv %s %s.away" : "mv %s.away %s", machine->remote, machine->remote);
}

/* One version in the spool that can't leave it. */
static void spool_one(struct machine *machine, const char *text)
{
	int64_t version;

	machine_create(machine, text);
	machine_write(machine, text, 0, text, strlen(text));
	machine_write(machine, "big", 100000, text, strlen(text));
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
}

static void await_state(struct machine *machine, enum engine_state state)
{
	MACHINE_AWAIT(machine, engine_state_word(state), machine_status(machine).state == state);
}

static void test_offline(void **state)
{
	struct machine *machine = *state;

	remote_away(machine, true);
	spool_one(machine, "one");
	spool_one(machine, "two");
	assert_int_equal(machine_status(machine).head, 3);
	assert_int_equal(machine_status(machine).confirmed, 1);
	MACHINE_AWAIT(machine, "uploads to fail", machine_status(machine).state != ENGINE_SYNCING);
	assert_true(machine_status(machine).state == ENGINE_OFFLINE || machine_status(machine).state == ENGINE_DEGRADED);
	assert_true(machine_status(machine).safe_until_ns < INT64_MAX);
	assert_int_equal(machine_unmount(machine, NS_PER_S, true), ERR_TIMEOUT);
	machine_mount(machine, false, false);
	spool_one(machine, "three");
	remote_away(machine, false);
	sync_and_compare(machine);
	await_state(machine, ENGINE_SYNCED);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void damage_spool(struct machine *machine, const char *pattern)
{
	machine_run(machine, "for f in %s/state/docs/spool/%s; do printf X | dd of=$f bs=1 seek=300 conv=notrunc 2>/dev/null; done",
		    machine->base, pattern);
}

/* I14: a spooled version that is not what it was is made anew, and all that follows it. */
static void test_damaged_record(void **state)
{
	struct machine *machine = *state;

	remote_away(machine, true);
	spool_one(machine, "one");
	spool_one(machine, "two");
	spool_one(machine, "three");
	machine_unlink(machine, "a/f1");
	spool_one(machine, "four");
	machine_unmount(machine, 0, true);
	damage_spool(machine, "log.0000000000000003");
	machine_mount(machine, false, false);
	remote_away(machine, false);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Without its row, what follows a record would wait for its turn for ever. */
static void test_missing_record(void **state)
{
	struct machine *machine = *state;
	struct db_conn *conn;

	remote_away(machine, true);
	spool_one(machine, "one");
	spool_one(machine, "two");
	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, &machine->error));
	MACHINE_OK(machine, db_step(conn, &machine->error, "DELETE FROM spool WHERE kind=2 AND seq=2", ""));
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), &machine->error));
	machine_unmount(machine, 0, true);
	remote_away(machine, false);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void set_state(struct machine *machine, int state)
{
	struct db_conn *conn;

	MACHINE_OK(machine, db_begin(volume_db(machine->volume), true, &conn, &machine->error));
	MACHINE_OK(machine, db_step(conn, &machine->error, "UPDATE spool SET state=? WHERE kind=2 AND seq=2", "i", (int64_t)state));
	MACHINE_OK(machine, db_commit(volume_db(machine->volume), &machine->error));
}

/* It may have been sent: only the remote knows. */
static void test_damaged_after_attempt(void **state)
{
	struct machine *machine = *state;

	remote_away(machine, true);
	spool_one(machine, "one");
	machine_run(machine, "cp %s/state/docs/spool/log.0000000000000002 %s/sent", machine->base, machine->base);
	set_state(machine, 1);
	machine_unmount(machine, 0, true);
	remote_away(machine, false);
	machine_run(machine, "cp %s/sent %s/log/0000000000000002", machine->base, machine->remote);
	damage_spool(machine, "log.0000000000000002");
	machine_mount(machine, false, false);
	spool_one(machine, "two");
	sync_and_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version"), 3);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* I15, I16: the PUT got through, its answer did not. What is there is ours, byte by byte. */
static void test_lost_answer(void **state)
{
	struct machine *machine = *state;

	remote_away(machine, true);
	spool_one(machine, "one");
	set_state(machine, 1);
	machine_run(machine, "cp %s/state/docs/spool/log.0000000000000002 %s.away/log/0000000000000002", machine->base,
		    machine->remote);
	machine_unmount(machine, 0, true);
	remote_away(machine, false);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_true(machine_int(machine, "SELECT server_s FROM version WHERE seq=2") > 1000000000);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Never sent as far as we know, and there: somebody else's, or this database is an older copy. */
static void test_unknown_record(void **state)
{
	struct machine *machine = *state;

	remote_away(machine, true);
	spool_one(machine, "one");
	machine_run(machine, "cp %s/state/docs/spool/log.0000000000000002 %s.away/log/0000000000000002", machine->base,
		    machine->remote);
	await_state(machine, ENGINE_DEGRADED); /* it was attempted; then the database is an older copy */
	set_state(machine, 0);
	machine_unmount(machine, 0, true);
	remote_away(machine, false);
	machine_mount(machine, false, false);
	assert_int_equal(machine_sync(machine), ERR_FENCED);
	assert_int_equal(machine_status(machine).state, ENGINE_FENCED);
	machine_unmount(machine, 0, true);
	machine_mount(machine, true, false);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_two_writers(void **state)
{
	struct machine *machine = *state, other;

	machine_make(&other, "second", machine->remote);
	machine_clone(&other);
	machine_mount(&other, false, false); /* the first mount of a clone takes over */
	spool_one(&other, "theirs");
	machine_rename(&other, "a/f2", "moved");
	MACHINE_OK(&other, machine_sync(&other));
	machine_compare(&other);
	spool_one(machine, "ours");
	machine_unlink(machine, "a/f3");
	assert_int_equal(machine_sync(machine), ERR_FENCED);
	assert_int_equal(machine_status(machine).state, ENGINE_FENCED);
	machine_unmount(machine, 0, true);
	machine_mount(machine, false, false); /* still fenced */
	assert_int_equal(machine_sync(machine), ERR_FENCED);
	machine_unmount(machine, 0, true);
	machine_mount(machine, true, false);
	sync_and_compare(machine);
	spool_one(machine, "more");
	sync_and_compare(machine);
	machine_create(&other, "late");
	assert_int_equal(machine_sync(&other), ERR_FENCED);
	machine_free(&other);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* I14, I17: take_over at the first mount that meets the other's version, while one of ours with that number is on its way. */
static void take_over_at_once(struct machine *machine, int sent)
{
	struct machine other;

	machine_make(&other, "second", machine->remote);
	machine_clone(&other);
	remote_away(machine, true);
	spool_one(machine, "ours");
	await_state(machine, ENGINE_DEGRADED);
	set_state(machine, sent);
	machine_unmount(machine, 0, true);
	remote_away(machine, false);
	machine_mount(&other, false, false);
	MACHINE_OK(&other, machine_sync(&other));
	assert_int_equal(machine_status(&other).confirmed, 2);
	machine_unmount(&other, 0, true);
	machine_mount(machine, true, false);
	sync_and_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT flags & 2 FROM version WHERE seq=3"), 2); /* I17 */
	machine_free(&other);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_take_over_unsent(void **state) { take_over_at_once(*state, 0); }
static void test_take_over_sent(void **state) { take_over_at_once(*state, 1); }

static void test_emptied_remote(void **state)
{
	struct machine *machine = *state;
	int64_t version;

	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "cp -a %s %s.kept; rm -rf %s/*", machine->remote, machine->remote, machine->remote);
	machine_mount(machine, false, false);
	spool_one(machine, "one");
	assert_int_equal(sync_engine()->sync(machine->engine, false, NS_PER_S, &version, &machine->error), ERR_TIMEOUT);
	assert_non_null(strstr(machine->error.message, "emptied or rolled back"));
	assert_int_equal(machine_status(machine).state, ENGINE_DEGRADED);
	machine_run(machine, "test -z \"$(find %s -type f)\"", machine->remote);
	machine_run(machine, "cp -a %s.kept/. %s/", machine->remote, machine->remote);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_rolled_back_remote(void **state)
{
	struct machine *machine = *state;
	int64_t version;

	spool_one(machine, "one");
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "mv %s/log/0000000000000002 %s/kept", machine->remote, machine->base);
	machine_mount(machine, false, false);
	spool_one(machine, "two");
	assert_int_equal(sync_engine()->sync(machine->engine, false, NS_PER_S, &version, &machine->error), ERR_TIMEOUT);
	assert_non_null(strstr(machine->error.message, "rolled back"));
	machine_run(machine, "mv %s/kept %s/log/0000000000000002", machine->base, machine->remote);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* In a child that is nobody: what goes wrong there is an exit status. */
#define EXPECT(machine, condition)                                                                                     \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			_exit(fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, (machine)->error.message) > 0 ? 1 : 2); \
	} while (0)

#define SCANS_MAX 10
struct impatient {
	struct machine machine;
	int scans;
};

static int unreadable_as_nobody(void)
{
	struct machine machine;

	machine_make(&machine, "nobody", NULL);
	machine_run(&machine, "mkdir sub; echo 1 >sub/secret; chmod 0 sub/secret; echo 2 >open");
	machine_init(&machine);
	machine_mount(&machine, false, false);
	EXPECT(&machine, machine_sync(&machine) == ERR_DENIED);
	EXPECT(&machine, strstr(machine.error.message, "sub/secret: can't be read (Permission denied)"));
	EXPECT(&machine, machine_status(&machine).state == ENGINE_DEGRADED && machine_status(&machine).safe_until_ns == 0);
	/* The rest goes on, in versions that lack it. */
	machine_create(&machine, "more");
	EXPECT(&machine, machine_sync(&machine) == ERR_DENIED);
	EXPECT(&machine, machine_int(&machine, "SELECT count(*) FROM name WHERE cast(name AS text) IN ('more', 'open', 'secret')") == 2);
	/* Less and less often; each version that is asked for is a try. */
	EXPECT(&machine, machine_sync(&machine) == ERR_DENIED && machine_sync(&machine) == ERR_DENIED);
	EXPECT(&machine, machine.engine->pipeline->retry_ns >= 120 * NS_PER_S);
	machine_run(&machine, "chmod 600 sub/secret");
	EXPECT(&machine, machine_sync(&machine) == 0);
	EXPECT(&machine, machine_status(&machine).state == ENGINE_SYNCED);
	EXPECT(&machine, machine_sync(&machine) == 0 && machine.engine->pipeline->retry_ns == 0);
	EXPECT(&machine, machine_unmount(&machine, NS_PER_S, true) == 0);
	machine_free(&machine);
	return 0;
}

/* What no version needs, neither while it can't be read nor once it can, is over when it can. Large: the import reads it, not a cut. */
static int healed_as_it_was(void)
{
	struct machine machine;

	machine_make(&machine, "nobody", NULL);
	machine_run(&machine, "truncate -s 80M new");
	machine_init(&machine);
	machine_mount(&machine, false, false);
	EXPECT(&machine, machine_sync(&machine) == 0);
	machine_run(&machine, "chmod 0 new");
	machine_rename(&machine, "new", "big");
	EXPECT(&machine, machine_sync(&machine) == 0); /* attributes are all that this one wants of it */
	int64_t newest = machine_status(&machine).head;
	machine_fail_to_write(&machine, "big", 0, 80 << 20);
	EXPECT(&machine, machine_sync(&machine) == ERR_DENIED);
	EXPECT(&machine, machine_status(&machine).head == newest && machine_status(&machine).state == ENGINE_DEGRADED);
	EXPECT(&machine, setresuid(0, 0, 0) == 0); /* who may read anything */
	EXPECT(&machine, machine_sync(&machine) == 0);
	EXPECT(&machine, machine_status(&machine).head == newest);
	EXPECT(&machine, machine_status(&machine).state == ENGINE_SYNCED);
	EXPECT(&machine, machine_unmount(&machine, NS_PER_S, true) == 0);
	machine_free(&machine);
	return 0;
}

/* Somebody asks once more during each scan, as `yester umount` does, which waits for a second at a time. Not without end: the test is to come to one. */
static void ask_again(void *context)
{
	struct impatient *impatient = context;
	struct pipeline *pipeline = impatient->machine.engine->pipeline;

	if (++impatient->scans > SCANS_MAX)
		return;
	pthread_mutex_lock(&pipeline->lock);
	pipeline->sync_asked++;
	pthread_mutex_unlock(&pipeline->lock);
}

static void nothing(void *context)
{
	(void)context;
}

static void no_inode(void *context, const struct node_key *key, const struct stat *st)
{
	(void)context, (void)key, (void)st;
}

static void no_name(void *context, const struct node_key *dir, const char *name)
{
	(void)context, (void)dir, (void)name;
}

/* A directory that can't be looked at is tried again when somebody wants a version, by a scan of the tree. */
static int asked_during_each_scan(void)
{
	struct impatient impatient = {0};
	struct behind_listener listener = {nothing, ask_again, no_inode, no_name, &impatient};
	struct machine *machine = &impatient.machine;

	machine_make(machine, "nobody", NULL);
	machine_run(machine, "mkdir closed; echo 1 >closed/in; chmod 0 closed; echo 2 >open");
	machine_init(machine);
	MACHINE_OK(machine, volume_open(machine->config, &machine->volume, &machine->error));
	MACHINE_OK(machine, volume_open_backing(machine->volume, false, &machine->error));
	volume_set_listener(machine->volume, &listener);
	MACHINE_OK(machine, sync_engine()->open(machine->volume, &(struct engine_options){0}, &machine->engine, &machine->error));
	MACHINE_OK(machine, sync_engine()->start(machine->engine, &machine->error));
	EXPECT(machine, machine_sync(machine) == ERR_DENIED);
	EXPECT(machine, strstr(machine->error.message, "closed/: can't be read (Permission denied)"));
	EXPECT(machine, impatient.scans < SCANS_MAX);
	machine_run(machine, "chmod 700 closed");
	EXPECT(machine, machine_sync(machine) == 0);
	EXPECT(machine, machine_status(machine).state == ENGINE_SYNCED);
	EXPECT(machine, machine_unmount(machine, NS_PER_S, true) == 0);
	machine_free(machine);
	return 0;
}

static void as_nobody(int (*fn)(void))
{
	int status;

	if (geteuid() != 0)
		skip();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 0) < 0)
			_exit(3);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_unreadable(void **state)
{
	(void)state;
	as_nobody(unreadable_as_nobody);
}

static void test_healed_as_it_was(void **state)
{
	(void)state;
	as_nobody(healed_as_it_was);
}

/* In a directory that gives a list of its names, and looks none of them up, nobody can tell what is gone. */
static int listed_only(void)
{
	struct machine machine;

	machine_make(&machine, "nobody", NULL);
	machine_run(&machine, "mkdir sub; echo 1 >sub/in");
	machine_init(&machine);
	machine_mount(&machine, false, false);
	EXPECT(&machine, machine_sync(&machine) == 0);
	EXPECT(&machine, machine_unmount(&machine, NS_PER_S, true) == 0);
	machine_run(&machine, "rm sub/in; chmod 400 sub");
	machine_mount(&machine, false, false);
	EXPECT(&machine, machine_sync(&machine) == ERR_DENIED);
	EXPECT(&machine, strstr(machine.error.message, "sub/in: can't be read (Permission denied)"));
	EXPECT(&machine, machine_int(&machine, "SELECT count(*) FROM name WHERE cast(name AS text)='in'") == 1);
	machine_run(&machine, "chmod 700 sub");
	EXPECT(&machine, machine_sync(&machine) == 0);
	EXPECT(&machine, machine_status(&machine).state == ENGINE_SYNCED);
	EXPECT(&machine, machine_int(&machine, "SELECT count(*) FROM name WHERE cast(name AS text)='in'") == 0);
	EXPECT(&machine, machine_unmount(&machine, NS_PER_S, true) == 0);
	machine_free(&machine);
	return 0;
}

static void test_unreadable_directory(void **state)
{
	(void)state;
	as_nobody(asked_during_each_scan);
	as_nobody(listed_only);
}

#ifdef YESTER_FAILPOINTS
static void test_checkpoints(void **state)
{
	struct machine *machine = *state;
	char name[16];

	setenv("YESTER_CHECKPOINT_RECORDS", "4", 1);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		spool_one(machine, name);
		MACHINE_OK(machine, machine_sync(machine));
	}
	unsetenv("YESTER_CHECKPOINT_RECORDS");
	machine_run(machine, "test $(ls %s/checkpoint | wc -l) -gt 1", machine->remote);
	assert_true(machine_int(machine, "SELECT value FROM meta WHERE name='base_seq'") > 0);
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_offline, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_damaged_record, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_missing_record, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_damaged_after_attempt, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_lost_answer, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_unknown_record, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_two_writers, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_take_over_unsent, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_take_over_sent, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_emptied_remote, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_rolled_back_remote, setup, machine_teardown),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_healed_as_it_was),
		cmocka_unit_test(test_unreadable_directory),
#ifdef YESTER_FAILPOINTS
		cmocka_unit_test_setup_teardown(test_checkpoints, setup, machine_teardown),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
