#include "machine.h"

#include "clock.h"
#include "journal.h"
#include "sync.h"

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int setup(void **state)
{
	machine_setup(state, "pipeline");
	return 0;
}

static void sync_and_compare(struct machine *machine)
{
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
}

static void make_tree(struct machine *machine)
{
	machine_run(machine, "mkdir -p a/b/c d; echo one >a/one; echo two >a/b/two; ln a/one d/link; ln -s ../one a/b/sym; "
			     "head -c 3000000 /dev/urandom >d/big; truncate -s 64M sparse; printf x | dd of=sparse bs=1 seek=50000000 "
			     "conv=notrunc 2>/dev/null; mkfifo d/fifo; chmod 750 d; setfattr -n user.k -v v a/one; : >empty");
}

static void test_empty(void **state)
{
	struct machine *machine = *state;

	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM inode"), 1);
	assert_int_equal(machine_status(machine).state, ENGINE_SYNCED);
	assert_true(machine_status(machine).safe_until_ns == INT64_MAX);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_first_tree(void **state)
{
	struct machine *machine = *state;

	make_tree(machine);
	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version"), 1);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine)); /* nothing changed: nothing new, but for what was racy */
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_changes_while_unmounted(void **state)
{
	struct machine *machine = *state;

	make_tree(machine);
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "rm -r a/b; mv d e; echo more >>e/big; chmod 700 a; rm e/link; mkdir f; mv e/fifo f/; echo new >f/new");
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, false));
	machine_run(machine, "rm -r f; printf y | dd of=sparse bs=1 seek=100 conv=notrunc 2>/dev/null");
	machine_mount(machine, false, false);
	sync_and_compare(machine);
}

static void test_live_changes(void **state)
{
	struct machine *machine = *state;
	char block[4096];

	make_tree(machine);
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	uint64_t before = machine_status(machine).uploaded_bytes;
	for (int i = 0; i < 4096; i++)
		block[i] = (char)rand();
	machine_write(machine, "d/big", 1000000, block, sizeof(block));
	sync_and_compare(machine);
	assert_true(machine_status(machine).uploaded_bytes - before < 16384); /* two blocks */
	machine_truncate(machine, "d/big", 1000100);
	sync_and_compare(machine);
	machine_truncate(machine, "d/big", 2000000);
	machine_write(machine, "d/big", 1999990, "end", 3);
	machine_rename(machine, "a/one", "first");
	machine_unlink(machine, "a/b/two");
	machine_create(machine, "a/b/three");
	machine_write(machine, "a/b/three", 0, "333", 3);
	sync_and_compare(machine);
	machine_rename(machine, "a/b", "d/b");
	machine_rename(machine, "d/b/three", "d/link"); /* over another */
	machine_truncate(machine, "d/big", 0);
	machine_write(machine, "d/big", 8192, block, sizeof(block));
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Changed by somebody else while the volume is in use: a sync finds it when it is told to look. */
static void test_changes_behind(void **state)
{
	struct machine *machine = *state;
	char block[4096];
	int64_t version, after;

	make_tree(machine);
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "echo more >>a/one; mv a/b c; rm d/fifo; chmod 700 d");
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &version, &machine->error));
	machine_compare(machine);
	/* What the machine itself has just written is not taken for such a change. */
	memset(block, 7, sizeof(block));
	machine_write(machine, "d/big", 4096, block, sizeof(block));
	uint64_t before = machine_status(machine).uploaded_bytes;
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &after, &machine->error));
	assert_int_equal(after, version + 1);
	assert_true(machine_status(machine).uploaded_bytes - before < 16384);
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, true, 0, &after, &machine->error));
	assert_int_equal(after, version + 1);
	machine_compare(machine);
	/* More than half of the tree is gone: uploads are held, and whoever asked for the scan hears why. */
	machine_run(machine, "for i in $(seq 300); do : >many.$i; done");
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &version, &machine->error));
	machine_run(machine, "rm many.*");
	assert_int_equal(sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &after, &machine->error), ERR_FAILED);
	assert_non_null(strstr(machine->error.message, "accept_loss"));
	/* Held, it looks again all the same when asked to. */
	machine_run(machine, "for i in $(seq 300); do : >many.$i; done");
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, true, 60 * NS_PER_S, &after, &machine->error));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Random blocks until the extents are dense, each round compared. */
static void test_dense_extents(void **state)
{
	struct machine *machine = *state;
	char block[4096];

	machine_run(machine, "head -c 5000000 /dev/urandom >file");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	srand(7);
	for (int round = 0; round < 30; round++) {
		for (int i = 0; i < 25; i++) {
			memset(block, i % 5 == 0 ? 0 : rand() % 255 + 1, sizeof(block));
			machine_write(machine, "file", rand() % 1200 * 4096, block, sizeof(block));
		}
		MACHINE_OK(machine, machine_sync(machine));
	}
	machine_compare(machine);
	assert_true(machine_int(machine, "SELECT max(n) FROM (SELECT count(*) AS n FROM extent GROUP BY start / 2097152)") < 400);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* What a file holds of data, in the newest version. */
static void holds(struct machine *machine, const char *path, int64_t extents, int64_t bytes)
{
	char query[200];

	snprintf(query, sizeof(query), "SELECT count(*) FROM extent JOIN name USING(ino) WHERE cast(name AS text)='%s'", path);
	assert_int_equal(machine_int(machine, query), extents);
	snprintf(query, sizeof(query), "SELECT sum(length) FROM extent JOIN name USING(ino) WHERE cast(name AS text)='%s'", path);
	assert_int_equal(machine_int(machine, query), bytes);
}

/* Chunks end where data ends: holes are neither read nor stored, in an import nor from a cut; small ones within data are no reason for more chunks. */
static void test_holes(void **state)
{
	struct machine *machine = *state, other;
	char block[8192];

	machine_run(machine, "for i in $(seq 20); do dd if=/dev/urandom of=imported bs=4096 count=2 seek=$((i * 2048)) conv=notrunc status=none; done; "
			     "for i in 0 2 4 6; do dd if=/dev/urandom of=imported bs=4096 count=1 seek=$((50000 + i)) conv=notrunc status=none; done; "
			     "truncate -s 300M imported");
	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	holds(machine, "imported", 21, 20 * 8192 + 7 * 4096);
	machine_create(machine, "written");
	memset(block, 'w', sizeof(block));
	for (int i = 1; i <= 20; i++)
		machine_write(machine, "written", i * (INT64_C(8) << 20), block, sizeof(block));
	for (int i = 0; i < 8; i += 2)
		machine_write(machine, "written", (50000 + i) * 4096, block, 4096);
	machine_truncate(machine, "written", 300 << 20);
	sync_and_compare(machine);
	holds(machine, "written", 21, 20 * 8192 + 7 * 4096);
	machine_make(&other, "holes", machine->remote);
	machine_clone(&other);
	machine_run(&other, "test $(stat -c %%b imported) -le 512 && test $(stat -c %%b written) -le 512"); /* of 512 bytes each */
	machine_free(&other);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_import(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, "for i in $(seq 60); do mkdir d$i; for j in $(seq 100); do echo $i $j >d$i/f$j; done; done; "
			     "head -c 80000000 /dev/urandom >large");
	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_true(machine_int(machine, "SELECT count(*) FROM version WHERE flags & 1") > 0);
	assert_int_equal(machine_int(machine, "SELECT flags & 1 FROM version ORDER BY seq DESC LIMIT 1"), 0);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM backlog_inode"), 0);
	assert_true(machine_status(machine).safe_until_ns > 0);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static void test_loss_is_held(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, "for i in $(seq 50); do echo $i >f$i; done");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "rm f1* f2* f3*; echo new >new");
	machine_mount(machine, false, false);
	assert_int_equal(machine_sync(machine), ERR_FAILED);
	assert_non_null(strstr(machine->error.message, "accept_loss"));
	assert_int_equal(machine_status(machine).state, ENGINE_DEGRADED);
	machine_unmount(machine, 0, true);
	machine_mount(machine, false, true);
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* A version of many times the spool's limit: its packs leave while it is sealed, and neither rows nor files stay of them. */
static void test_small_spool(void **state)
{
	struct machine *machine = *state;

	machine->config->spool_limit_bytes = 2 << 20;
	machine->config->pack_size_bytes = 1 << 20;
	machine_run(machine, "head -c 24000000 /dev/urandom >large; echo small >small");
	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_true(machine_int(machine, "SELECT count(*) FROM pack WHERE record=0") >= 10);
	assert_true(machine_int(machine, "SELECT count(*) FROM spool WHERE kind=1") < 8);
	machine_run(machine, "test $(ls %s/state/docs/spool | wc -l) -eq %d", machine->base,
		    (int)machine_int(machine, "SELECT count(*) FROM spool"));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version WHERE flags & 1"), 0);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* What is dirty is in memory: when it is very much, a version is made long before its time (the interval is an hour here). */
static void test_much_is_cut_early(void **state)
{
	struct machine *machine = *state;
	struct journal_counts counts;
	struct node_key root;
	struct stat st;

	machine_init(machine);
	machine_mount(machine, false, false);
	sync_and_compare(machine);
	struct journal *journal = volume_journal(machine->volume);
	struct backing *backing = volume_backing(machine->volume);
	assert_int_equal(backing_identify(backing, backing_root_fd(backing), "", &root, &st, NULL), 0);
	for (int i = 0; i < JOURNAL_MANY; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(journal_note_name(journal, &root, name, NULL, 0), 0);
	}
	MACHINE_AWAIT(machine, "a version before its time", (journal_get_counts(journal, &counts), counts.dirty_names < JOURNAL_MANY / 2));
	sync_and_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Unmounted in the middle of a version that the spool has no room for, while the remote is away: what was sealed is not sealed again. */
static void test_given_up(void **state)
{
	struct machine *machine = *state;

	machine->config->spool_limit_bytes = 4 << 20;
	machine->config->pack_size_bytes = 1 << 20;
	machine_run(machine, "head -c 20000000 /dev/urandom >large");
	machine_init(machine);
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_mount(machine, false, false);
	MACHINE_AWAIT(machine, "a full spool", machine_status(machine).spool_bytes >= 4 << 20);
	assert_int_equal(machine_unmount(machine, 0, true), ERR_TIMEOUT);
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
	machine_mount(machine, false, false);
	assert_int_equal(machine_int(machine, "SELECT flags & 1 FROM version WHERE seq=1"), 1);
	/* As many as filled it: their number depends on the data. */
	assert_true(machine_int(machine, "SELECT sum(size) FROM pack WHERE vfrom=1") >= 4000000);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM inode WHERE vfrom=1"), 0);
	sync_and_compare(machine);
	assert_true(machine_int(machine, "SELECT sum(size) FROM pack") < 20100000);
	machine_run(machine, "test $(cat %s/pack/*/* | wc -c) -lt 20100000", machine->remote);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_first_tree, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_changes_while_unmounted, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_live_changes, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_changes_behind, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_dense_extents, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_import, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_loss_is_held, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_small_spool, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_much_is_cut_early, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_given_up, setup, machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
