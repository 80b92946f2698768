#include "verbs.h"

#include "catalogue.h"
#include "io.h"
#include "recover.h"
#include "sample_log.h"
#include "volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	struct sample sample;
	char *tree, *conf, *states;
	struct volume_config *config;
	struct unlock unlock;
	struct clone_result result;
	struct error error;
};

static void build(struct sample *sample)
{
	struct delta *delta = sample_delta(sample, 0);

	sample_add_dir(delta, CATALOGUE_ROOT_INO, "docs", 2);
	sample_add_file(sample, delta, 2, "a.txt", 3, "first", 5, true);
	sample_add_file(sample, delta, 2, "b.txt", 4, "other", 5, false);
	sample_commit(sample, delta, 0);
	delta = sample_delta(sample, 0);
	sample_add_file(sample, delta, 2, "a.txt", 3, "again!", 6, true);
	sample_commit(sample, delta, 0);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct sample *sample = &fixture->sample;

	sample_open(sample, true);
	fixture->tree = io_printf("%s/tree", sample->dir);
	fixture->conf = io_printf("%s/conf", sample->dir);
	fixture->states = io_printf("%s/state", sample->dir);
	setenv("YESTER_CONFIG_DIR", fixture->conf, 1);
	setenv("YESTER_STATE_DIR", fixture->states, 1);
	fixture->config = config_new("docs");
	fixture->config->directory = strdup(fixture->tree);
	fixture->config->remote = strdup(sample->config->remote);
	fixture->unlock.passphrase_file = sample->passphrase_file;
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	sample_close(&fixture->sample);
	config_free(fixture->config);
	free(fixture->tree);
	free(fixture->conf);
	free(fixture->states);
	free(fixture);
	return 0;
}

static int clone_at(struct fixture *fixture, int64_t at_s)
{
	memset(&fixture->error, 0, sizeof(fixture->error));
	return sync_clone(fixture->config, &fixture->unlock, at_s, NULL, NULL, &fixture->result, &fixture->error);
}

static void expect_ok(struct fixture *fixture, int rc)
{
	if (rc)
		fail_msg("%s", fixture->error.message);
}

static void expect_file(const struct fixture *fixture, const char *name, const char *text)
{
	char *path = io_printf("%s/%s", fixture->tree, name);
	struct buf bytes = {0};

	assert_int_equal(io_read_file(AT_FDCWD, path, 1 << 20, &bytes, NULL), 0);
	assert_int_equal(bytes.length, strlen(text));
	assert_memory_equal(bytes.data, text, bytes.length);
	buf_free(&bytes);
	free(path);
}

static int count(const char *path)
{
	DIR *dir = opendir(path);
	int entries = -2;

	if (!dir)
		return -1;
	while (readdir(dir))
		entries++;
	closedir(dir);
	return entries;
}

static int64_t number(const struct fixture *fixture, const char *name)
{
	struct volume *volume;
	struct db_conn *conn;

	assert_int_equal(volume_open(fixture->config, &volume, NULL), 0);
	assert_int_equal(db_read_begin(volume_db(volume), &conn, NULL), 0);
	int64_t value = db_meta_int(conn, name, -1);
	db_read_end(volume_db(volume), conn);
	volume_close(volume, false);
	return value;
}

static void test_newest(void **state)
{
	struct fixture *fixture = *state;
	struct volume_config *written;
	struct volume *volume;
	struct stat st;

	build(&fixture->sample);
	expect_ok(fixture, clone_at(fixture, -1));
	expect_file(fixture, "docs/a.txt", "again!");
	expect_file(fixture, "docs/b.txt", "other");
	assert_int_equal(stat(fixture->tree, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(fixture->result.version, 2);
	assert_int_equal(fixture->result.time_s, 20);
	assert_false(fixture->result.partial);
	assert_int_equal(fixture->result.skipped, 0);
	assert_int_equal(fixture->result.bytes, 11);

	assert_int_equal(config_read(fixture->config->file, &written, &fixture->error), 0);
	assert_string_equal(written->passphrase_file, fixture->sample.passphrase_file);
	assert_string_equal(written->directory, fixture->tree);
	config_free(written);
	assert_int_equal(number(fixture, "must_take_over"), 1);
	assert_int_equal(number(fixture, "clean"), 1);
	assert_int_equal(number(fixture, "head"), 2);
	assert_int_equal(number(fixture, "encrypted"), 1);

	/* What was written counts as captured: the next rescan has nothing to do. */
	assert_int_equal(volume_open(fixture->config, &volume, NULL), 0);
	expect_ok(fixture, volume_open_backing(volume, false, &fixture->error));
	int fd = volume_open_live(volume, 3);
	assert_true(fd >= 0);
	close(fd);
	volume_close(volume, false);
}

static void test_older(void **state)
{
	struct fixture *fixture = *state;
	struct volume *volume;

	build(&fixture->sample);
	assert_int_equal(clone_at(fixture, 9), ERR_ABSENT);
	assert_int_equal(count(fixture->tree), -1);
	assert_int_equal(count(fixture->states), 0);
	assert_int_equal(mkdir(fixture->tree, 0755), 0); /* an empty one is fine too */
	expect_ok(fixture, clone_at(fixture, 19));
	expect_file(fixture, "docs/a.txt", "first");
	assert_int_equal(fixture->result.version, 1);
	assert_int_equal(number(fixture, "head"), 2);
	assert_int_equal(volume_open(fixture->config, &volume, NULL), 0);
	expect_ok(fixture, volume_open_backing(volume, false, &fixture->error));
	assert_true(volume_open_live(volume, 3) < 0);
	volume_close(volume, false);
}

static void test_partial(void **state)
{
	struct fixture *fixture = *state;
	struct sample *sample = &fixture->sample;
	struct delta *delta = sample_delta(sample, VERSION_PARTIAL);

	sample_add_file(sample, delta, CATALOGUE_ROOT_INO, "a", 2, "x", 1, true);
	sample_commit(sample, delta, RECORD_PARTIAL);
	expect_ok(fixture, clone_at(fixture, -1));
	assert_true(fixture->result.partial);
	expect_file(fixture, "a", "x");
}

/* Fault 45 and others: nothing is made, nothing of the person's is touched. */
static void test_refusals(void **state)
{
	struct fixture *fixture = *state;
	char *wrong = io_printf("%s/wrong", fixture->sample.dir), *file = io_printf("%s/mine", fixture->tree);
	int fd = open(wrong, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(clone_at(fixture, -1), ERR_ABSENT); /* no version yet */
	assert_int_equal(count(fixture->tree), -1);
	build(&fixture->sample);
	assert_int_equal(io_write(fd, "incorrect\n", 10), 0);
	close(fd);
	fixture->unlock.passphrase_file = wrong;
	assert_int_equal(clone_at(fixture, -1), ERR_KEY);
	assert_int_equal(count(fixture->tree), -1);
	assert_true(count(fixture->states) <= 0);
	assert_true(count(fixture->conf) <= 0);
	fixture->unlock.passphrase_file = fixture->sample.passphrase_file;
	assert_int_equal(mkdir(fixture->tree, 0755), 0);
	fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(clone_at(fixture, -1), ERR_EXISTS);
	assert_int_equal(count(fixture->tree), 1);
	assert_int_equal(unlink(file), 0);
	expect_ok(fixture, clone_at(fixture, -1));
	assert_int_equal(clone_at(fixture, -1), ERR_EXISTS);
	expect_file(fixture, "docs/b.txt", "other");
	free(wrong);
	free(file);
}

/* Faults 4, 5: a missing or damaged pack costs the files in it, and no other. */
static void test_damaged(void **state)
{
	struct fixture *fixture = *state;
	char *packs = sample_object(&fixture->sample, "pack");

	build(&fixture->sample);
	sample_remove_tree(packs);
	free(packs);
	expect_ok(fixture, clone_at(fixture, -1));
	assert_int_equal(fixture->result.damaged, 1);
	expect_file(fixture, "docs/a.txt", "again!");
	char *path = io_printf("%s/docs", fixture->tree);
	assert_int_equal(count(path), 1);
	free(path);
}

static int key_of(void *context, const struct store_object *object)
{
	snprintf(context, RECORD_KEY_BYTES, "%s", object->key);
	return 1;
}

/* The store fails on the way: what was written until then is taken away, the directory that was there stays. */
static void test_undo(void **state)
{
	struct fixture *fixture = *state;
	char key[RECORD_KEY_BYTES];

	build(&fixture->sample);
	assert_int_equal(store_list(fixture->sample.store, "pack/", NULL, key_of, key, NULL), 1);
	sample_remove(&fixture->sample, key);
	char *path = sample_object(&fixture->sample, key);
	assert_int_equal(symlink(path, path), 0); /* can't be opened: ELOOP is neither absence nor damage */
	free(path);
	int rc = clone_at(fixture, -1);
	assert_true(rc != 0 && rc != ERR_CORRUPT && rc != ERR_ABSENT);
	assert_int_equal(count(fixture->tree), -1);
	assert_int_equal(count(fixture->states), 0);
	assert_int_equal(mkdir(fixture->tree, 0755), 0);
	assert_int_equal(clone_at(fixture, -1), rc);
	assert_int_equal(count(fixture->tree), 0);
	assert_int_equal(count(fixture->states), 0);
	assert_true(count(fixture->conf) <= 0);
}

static void put_slot(struct fixture *fixture, enum key_kind kind, const void *secret, size_t length)
{
	struct buf text = {0};

	assert_int_equal(key_slot_write(fixture->sample.master, kind, secret, length, &text, NULL), 0);
	struct store_body body = {.data = text.data, .fd = -1, .length = text.length};
	assert_int_equal(store_put_new(fixture->sample.store, "key/00000002", &body, NULL, NULL), 0);
	buf_free(&text);
}

static int count_object(void *context, const struct store_object *object)
{
	(void)object;
	++*(int *)context;
	return 0;
}

/* The recovery key is for paper: the clone gets a key file of its own, which opens the volume from then on. */
static void test_recovery_key(void **state)
{
	struct fixture *fixture = *state;
	struct volume_descriptor descriptor;
	char text[KEY_RECOVERY_TEXT_BYTES];
	uint8_t secret[20];
	struct master *master;
	struct stat st;
	int slots = 0;

	build(&fixture->sample);
	key_new_recovery(secret, text);
	put_slot(fixture, KEY_RECOVERY, secret, sizeof(secret));
	fixture->unlock = (struct unlock){.recovery_key = text};
	expect_ok(fixture, clone_at(fixture, -1));
	assert_int_equal(stat(fixture->config->key_file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(store_list(fixture->sample.store, "key/", NULL, count_object, &slots, NULL), 0);
	assert_int_equal(slots, 3);
	expect_ok(fixture, recover_unlock(fixture->sample.store, NULL, fixture->config, NULL, NULL, &descriptor, &master,
					  &fixture->error));
	assert_memory_equal(master_key(master), master_key(fixture->sample.master), CRYPT_KEY_BYTES);
	master_free(master);
}

static void test_key_file(void **state)
{
	struct fixture *fixture = *state;
	char *given = io_printf("%s/given.key", fixture->sample.dir);
	struct volume_descriptor descriptor;
	struct buf secret = {0};
	struct master *master;

	build(&fixture->sample);
	assert_int_equal(key_create_file(given, &secret, &fixture->error), 0);
	put_slot(fixture, KEY_FILE, secret.data, secret.length);
	fixture->unlock = (struct unlock){.key_file = given};
	expect_ok(fixture, clone_at(fixture, -1));
	assert_string_not_equal(fixture->config->key_file, given);
	assert_int_equal(unlink(given), 0);
	expect_ok(fixture, recover_unlock(fixture->sample.store, NULL, fixture->config, NULL, NULL, &descriptor, &master,
					  &fixture->error));
	master_free(master);
	buf_wipe(&secret);
	free(given);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_newest), TEST(test_older), TEST(test_partial), TEST(test_refusals), TEST(test_damaged), TEST(test_undo),
		TEST(test_recovery_key), TEST(test_key_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
