/* Versions against what happens while they are made: operations after the cut, during an import, between a scan and what becomes of it. */
#include "machine.h"

#include "catalogue.h"
#include "clock.h"
#include "history.h"
#include "sync.h"

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int setup(void **state)
{
	machine_setup(state, "sealing");
	return 0;
}

static void read_version(struct machine *machine, int64_t seq, const char *path, int64_t offset, void *data, size_t length)
{
	struct history_file *file;
	struct db_conn *conn;
	int64_t ino;

	MACHINE_OK(machine, db_read_begin(volume_db(machine->volume), &conn, &machine->error));
	assert_int_equal(catalogue_resolve(conn, seq, path, &ino), 0);
	db_read_end(volume_db(machine->volume), conn);
	MACHINE_OK(machine, history_open(machine->volume, seq, ino, &file, &machine->error));
	assert_int_equal(history_read(file, data, length, offset, &machine->error), length);
	history_close(file);
}

struct syncing {
	struct machine *machine;
	pthread_t thread;
	int64_t timeout_ns, version;
	struct error error;
	int rc;
};

static void *sync_run(void *context)
{
	struct syncing *syncing = context;

	syncing->rc = sync_engine()->sync(syncing->machine->engine, false, syncing->timeout_ns, &syncing->version, &syncing->error);
	return NULL;
}

static void sync_begin(struct machine *machine, struct syncing *syncing)
{
	*syncing = (struct syncing){.machine = machine, .timeout_ns = 60 * NS_PER_S};
	assert_int_equal(pthread_create(&syncing->thread, NULL, sync_run, syncing), 0);
}

static void wait_for_cut(struct machine *machine)
{
	struct journal_counts counts;

	do
		journal_get_counts(volume_journal(machine->volume), &counts);
	while (counts.first_change_ns);
}

/* What lies in the same block as the end of the file, beside a change in the block before, is as of the cut too (I4). */
static void test_tail_is_frozen(void **state)
{
	struct machine *machine = *state;
	char name[32];

	machine_run(machine, "head -c 8000 /dev/urandom >file; : >other; for i in $(seq 300); do echo $i >f$i; done");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	for (int64_t round = 1; round <= 30; round++) {
		struct syncing syncing;
		int64_t tail, other = 0;
		for (int i = 1; i <= 300; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			machine_write(machine, name, 0, &round, sizeof(round));
		}
		machine_write(machine, "file", 0, &round, sizeof(round));
		machine_write(machine, "other", 0, &round, sizeof(round));
		sync_begin(machine, &syncing);
		wait_for_cut(machine);
		int64_t later = -round; /* both after the cut, in this order */
		machine_write(machine, "other", 0, &later, sizeof(later));
		machine_write(machine, "file", 5000, &later, sizeof(later));
		pthread_join(syncing.thread, NULL);
		assert_int_equal(syncing.rc, 0);
		read_version(machine, syncing.version, "other", 0, &other, sizeof(other));
		read_version(machine, syncing.version, "file", 5000, &tail, sizeof(tail));
		assert_int_equal(other, round);
		assert_int_not_equal(tail, later);
	}
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Every inode has a name, every extent an inode, every name both. */
static void check_catalogue(struct machine *machine)
{
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM inode WHERE ino<>1 AND ino NOT IN (SELECT ino FROM name)"), 0);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM name WHERE ino NOT IN (SELECT ino FROM inode) OR dir NOT IN (SELECT ino FROM inode)"), 0);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM extent WHERE ino NOT IN (SELECT ino FROM inode)"), 0);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM local_inode WHERE ino NOT IN (SELECT ino FROM inode)"), 0);
}

static bool machine_gone(struct machine *machine, const char *path)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", machine->tree, path);
	return access(full, F_OK) != 0;
}

/* Directories are moved, filled and emptied while the import of their tree goes on, with cuts in between. */
static void test_moves_during_import(void **state)
{
	struct machine *machine = *state;
	char from[64], to[64];

	machine_run(machine, "mkdir many; for i in $(seq 5200); do : >many/$i; done; for i in $(seq 24); do mkdir -p d$i/e d$i/g; echo $i >d$i/e/f; "
			     "for j in $(seq 50); do echo $j >d$i/g/$j; done; truncate -s 300M d$i/sparse; done");
	machine_init(machine);
	machine->config->interval_ns = 1;
	machine_mount(machine, false, false);
	srand(11);
	for (int i = 1; i <= 24; i++) {
		int other = 1 + rand() % 24;
		int64_t head = machine_status(machine).head;
		snprintf(to, sizeof(to), "d%d/e/new", i);
		machine_create(machine, to);
		machine_write(machine, to, 0, to, strlen(to));
		snprintf(from, sizeof(from), "d%d/e", i);
		snprintf(to, sizeof(to), "d%d/moved%d", other, i);
		machine_rename(machine, from, to);
		snprintf(from, sizeof(from), "many/%d", i);
		snprintf(to, sizeof(to), "d%d/file%d", other, i);
		machine_rename(machine, from, to);
		snprintf(from, sizeof(from), "many/%d", 100 + i);
		machine_unlink(machine, from);
		for (int j = 50; j > 0; j--) {
			snprintf(from, sizeof(from), "d%d/g/%d", other, j);
			if (j == 50 && machine_gone(machine, from))
				break;
			machine_unlink(machine, from);
		}
		MACHINE_AWAIT(machine, "the next version", machine_status(machine).head != head);
	}
	for (int i = 1; i <= 24; i++) {
		snprintf(to, sizeof(to), "d%d/sparse", i);
		machine_truncate(machine, to, 0);
	}
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_catalogue(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* What goes while it is read leaves nothing behind. */
static void test_removal_during_import(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, "for i in $(seq 60); do mkdir -p d$i/e; for j in $(seq 100); do echo $i $j >d$i/e/$j; done; done; "
			     "head -c 70000000 /dev/urandom >large");
	machine_init(machine);
	machine->config->interval_ns = 1;
	machine_mount(machine, false, false);
	MACHINE_AWAIT(machine, "the import to begin", machine_status(machine).importing);
	machine_run(machine, "rm -rf d1 d2/e d3/e d[456]?");
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, true);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_catalogue(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Timestamps are as coarse as the kernel's tick: until what changes now has a later one than what was changed. */
static void wait_for_tick(struct machine *machine)
{
	struct stat st;
	char path[160];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(path, sizeof(path), "%s/probe", machine->base);
	do {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(fstat(fd, &st), 0);
		close(fd);
	} while (timespec_ns(st.st_ctim) <= timespec_ns(now));
}

/* What was changed in part by operations, and then elsewhere by somebody behind the mount: the version's stat is that of all of it, so a scan would never find the rest (I8). */
static void test_changed_on_both_sides(void **state)
{
	struct machine *machine = *state;

	machine_begin(machine, "head -c 300000 /dev/urandom >f; head -c 300000 /dev/urandom >g; head -c 300000 /dev/urandom >h; echo x >moved");
	machine_write(machine, "f", 0, "by the mount", 12);
	machine_write(machine, "g", 100, "by the mount", 12);
	machine_truncate(machine, "h", 290000);
	machine_rename(machine, "moved", "to");
	wait_for_tick(machine);
	machine_run(machine, "printf behind | dd of=f bs=1 seek=200000 conv=notrunc status=none; printf longer >>g; printf behind | dd of=h bs=1 seek=5 conv=notrunc status=none; "
			     "printf longer >>to");
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	machine_write(machine, "f", 0, "once more", 9);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

struct writing {
	struct machine *machine;
	pthread_t thread;
	atomic_bool stop;
};

static void *write_run(void *context)
{
	struct writing *writing = context;

	for (int64_t i = 0; !atomic_load(&writing->stop); i++)
		machine_write(writing->machine, "busy", i * 4096 % 70000000, &i, sizeof(i));
	return NULL;
}

/* A large file that is never at rest does not keep the import from its end. */
static void test_import_of_busy_file(void **state)
{
	struct machine *machine = *state;
	struct writing writing = {.machine = machine};

	machine_run(machine, "head -c 70000000 /dev/urandom >busy");
	machine_init(machine);
	machine->config->interval_ns = 1;
	machine_mount(machine, false, false);
	assert_int_equal(pthread_create(&writing.thread, NULL, write_run, &writing), 0);
	int rc = machine_sync(machine);
	atomic_store(&writing.stop, true);
	pthread_join(writing.thread, NULL);
	machine_ok(machine, rc);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

static uint64_t abandoned(struct machine *machine)
{
	struct journal_counts counts;

	journal_get_counts(volume_journal(machine->volume), &counts);
	return counts.abandoned;
}

/* A cut that can't be sealed is tried again in a while, not at once because of each change. */
static void test_failing_cut_rests(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, ": >file");
	machine_init(machine);
	machine->config->interval_ns = 1;
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "mv %s/state/docs %s/state/away", machine->base, machine->base);
	for (int64_t i = 0; abandoned(machine) == 0; i++)
		machine_write(machine, "file", 0, &i, sizeof(i));
	for (int64_t i = 0; i < 5000; i++)
		machine_write(machine, "file", 0, &i, sizeof(i));
	assert_true(abandoned(machine) < 3);
	assert_int_equal(machine_status(machine).state, ENGINE_DEGRADED);
	machine_run(machine, "mv %s/state/away %s/state/docs", machine->base, machine->base);
	MACHINE_OK(machine, machine_sync(machine)); /* who asks does not wait for it */
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Who waits for the remote for ever does not keep the volume mounted, nor meets what is no more. */
static void test_unmount_ends_waiting(void **state)
{
	struct machine *machine = *state;
	struct syncing syncing = {.machine = machine, .timeout_ns = -1};

	machine_run(machine, ": >file");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_write(machine, "file", 0, "x", 1);
	assert_int_equal(pthread_create(&syncing.thread, NULL, sync_run, &syncing), 0);
	MACHINE_AWAIT(machine, "version 2", machine_status(machine).head >= 2);
	assert_int_equal(sync_engine()->stop(machine->engine, 0, &machine->error), ERR_TIMEOUT);
	pthread_join(syncing.thread, NULL);
	assert_int_equal(syncing.rc, ERR_TIMEOUT);
	assert_non_null(strstr(syncing.error.message, "unmounted"));
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
	machine_unmount(machine, 0, true);
}

/* All versions are in the remote, but not everything is in a version. */
static void test_unmount_before_scanned(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, "for i in $(seq 3000); do : >f$i; done");
	machine_init(machine);
	machine_mount(machine, false, false);
	assert_int_equal(machine_unmount(machine, NS_PER_S, true), ERR_TIMEOUT);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* I7: edits made while it was unmounted, and at once a change through the mount. No version that is called whole has that and lacks one of the edits. */
static void test_i7_edits_before_the_mount(void **state)
{
	struct machine *machine = *state;
	int64_t before;

	machine_run(machine, "mkdir d; for i in $(seq 3000); do echo $i >d/$i; done");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "for i in $(seq 3000); do echo more >>d/$i; done");
	machine->config->interval_ns = 1;
	machine_mount(machine, false, false);
	before = machine_status(machine).head;
	machine_create(machine, "live");
	MACHINE_AWAIT(machine, "the next version", machine_status(machine).head != before);
	MACHINE_OK(machine, machine_sync(machine));
	machine->config->interval_ns = 3600 * NS_PER_S;
	assert_true(machine_int(machine, "SELECT count(*) FROM inode WHERE vfrom > 1") >= 3000);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM version WHERE flags & 1 = 0 AND seq < (SELECT max(vfrom) FROM inode) "
					      "AND seq >= (SELECT vfrom FROM name WHERE name = CAST('live' AS BLOB))"),
			 0);
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* What is sent ahead of its record counts as cache when that is confirmed, not before, and not never. */
static void test_cache_is_bounded(void **state)
{
	struct machine *machine = *state;
	char *block = malloc(600000);
	int64_t version;

	machine_run(machine, ": >file");
	machine_init(machine);
	machine->config->cache_limit_bytes = 500000;
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 600000; i++)
			block[i] = (char)rand();
		machine_write(machine, "file", 0, block, 600000);
		MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
	}
	free(block);
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "test $(du -sk %s/state/docs/spool | cut -f 1) -lt 1000", machine->base);
}

/* A version larger than the spool waits for its packs to leave: not at the end, when the remote is away. */
static void test_unmount_while_spool_is_full(void **state)
{
	struct machine *machine = *state;
	size_t length = 8 << 20;
	int *block = malloc(length);

	machine_run(machine, ": >file");
	machine_init(machine);
	machine->config->spool_limit_bytes = 70 << 20;
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	for (int64_t i = 0; i < 15; i++) {
		for (size_t j = 0; j < length / sizeof(int); j++)
			block[j] = rand();
		machine_write(machine, "file", i * (int64_t)length, block, length);
	}
	free(block);
	alarm(60);
	assert_int_equal(machine_unmount(machine, NS_PER_S, true), ERR_TIMEOUT);
	alarm(0);
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* I8: a file that is captured right after its change is not read again by each mount; a later change that its times do not show is found all the same. */
static void test_calm_after_unmount(void **state)
{
	struct machine *machine = *state;
	int64_t head;

	machine_run(machine, "head -c 3000000 /dev/urandom >file");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	do { /* until it was quick enough */
		machine_write(machine, "file", 8192, "now", 3);
		MACHINE_OK(machine, machine_sync(machine));
	} while (machine_int(machine, "SELECT count(*) FROM local_inode WHERE racy") == 0);
	head = machine_status(machine).head;
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "printf x | dd of=file bs=1 seek=5 conv=notrunc 2>/dev/null"); /* now, or a tick later: it shows */
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	assert_int_equal(machine_status(machine).head, head + 1);
	machine_compare(machine);
	MACHINE_AWAIT(machine, "the file to be no longer racy",
		      !machine_int(machine, "SELECT count(*) FROM local_inode WHERE racy AND ctime_ns > (julianday('now') - 2440587.5) * 86400e9 - 5e7"));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_mount(machine, false, false);
	assert_int_equal(machine_int(machine, "SELECT count(*) FROM local_inode WHERE racy"), 0);
	MACHINE_OK(machine, machine_sync(machine));
	assert_int_equal(machine_status(machine).head, head + 1);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* The database is lost, and files were removed, moved and changed since the newest version. */
static void test_lost_database(void **state)
{
	struct machine *machine = *state;

	machine_run(machine, "mkdir -p a/b/c d; for i in $(seq 30); do echo $i >a/b/f$i; done; echo x >d/x; echo y >d/y; echo z >z");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_run(machine, "rm a/b/f1 z; mv a/b/f2 a/moved; mv d/x d/y; rmdir a/b/c; echo more >>a/b/f3; rm %s/state/docs/volume.db*", machine->base);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_catalogue(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* Two machines made a directory of the same name; who takes over has its own tree afterwards. */
static void test_take_over_of_same_directory(void **state)
{
	struct machine *machine = *state, other;

	machine_run(machine, "echo a >a");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
	machine_make(&other, "second", machine->remote);
	machine_clone(&other);
	machine_run(&other, "mkdir -p n/m; echo theirs >n/theirs; echo theirs >n/m/both; echo theirs >n/m/theirs");
	machine_mount(&other, false, false);
	MACHINE_OK(&other, machine_sync(&other));
	machine_unmount(&other, NS_PER_S, true);
	machine_run(machine, "mkdir -p n/m; echo ours >n/ours; echo ours >n/m/both");
	machine_mount(machine, true, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_catalogue(machine);
	machine_free(&other);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

/* What was removed through the mount and is in no version yet is no loss to ask about. */
static void test_removed_is_not_lost(void **state)
{
	struct machine *machine = *state;
	int64_t version;
	char name[16];

	machine_run(machine, "for i in $(seq 50); do echo $i >f$i; done");
	machine_init(machine);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_run(machine, "mv %s %s.away", machine->remote, machine->remote);
	machine_write(machine, "f50", 0, "x", 1);
	MACHINE_OK(machine, sync_engine()->sync(machine->engine, false, 0, &version, &machine->error));
	machine_unmount(machine, 0, true);
	machine->config->spool_limit_bytes = 1; /* no cut from now on */
	machine_mount(machine, false, false);
	for (int i = 1; i <= 40; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		machine_unlink(machine, name);
	}
	machine_unmount(machine, 0, true);
	machine->config->spool_limit_bytes = 0;
	machine_run(machine, "mv %s.away %s", machine->remote, machine->remote);
	machine_mount(machine, false, false);
	MACHINE_OK(machine, machine_sync(machine));
	machine_compare(machine);
	check_catalogue(machine);
	MACHINE_OK(machine, machine_unmount(machine, NS_PER_S, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tail_is_frozen, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_moves_during_import, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_removal_during_import, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_changed_on_both_sides, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_import_of_busy_file, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_failing_cut_rests, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_unmount_ends_waiting, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_unmount_before_scanned, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_i7_edits_before_the_mount, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_cache_is_bounded, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_unmount_while_spool_is_full, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_calm_after_unmount, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_removed_is_not_lost, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_lost_database, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(test_take_over_of_same_directory, setup, machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
