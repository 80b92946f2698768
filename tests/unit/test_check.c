#include "verbs.h"

#include "catalogue_schema.h"
#include "io.h"
#include "recover.h"
#include "sample_log.h"
#include "setup.h"
#include "volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	struct sample sample;
	struct unlock unlock;
	struct buf lines; /* of the last check, each with its newline */
	struct check_result result;
	char packs[8][RECORD_KEY_BYTES]; /* of version i + 1's file */
};

static int key_of_newest(void *context, const struct store_object *object)
{
	struct fixture *fixture = context;

	for (int i = 0; i < 8; i++) {
		if (strcmp(fixture->packs[i], object->key) == 0)
			return 0;
		if (!fixture->packs[i][0]) {
			snprintf(fixture->packs[i], RECORD_KEY_BYTES, "%s", object->key);
			return 0;
		}
	}
	return 0;
}

/* Versions 1..4: docs/file-N in a pack of its own; docs/a.txt inline in 1, replaced inline in 4. */
static void build(struct fixture *fixture)
{
	struct sample *sample = &fixture->sample;

	for (int64_t seq = 1; seq <= 4; seq++) {
		struct delta *delta = sample_delta(sample, 0);
		char name[32], data[3000];
		snprintf(name, sizeof(name), "file-%lld", (long long)seq);
		io_random(data, sizeof(data));
		if (seq == 1)
			sample_add_dir(delta, CATALOGUE_ROOT_INO, "docs\n", 2);
		if (seq == 1 || seq == 4)
			sample_add_file(sample, delta, 2, "a.txt", 3, data, 500, true);
		sample_add_file(sample, delta, 2, name, 10 + seq, data + 500, 2500, false);
		sample_commit(sample, delta, 0);
		assert_int_equal(store_list(sample->store, "pack/", NULL, key_of_newest, fixture, NULL), 0);
	}
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	sample_open(&fixture->sample, true);
	setenv("TMPDIR", fixture->sample.tmp, 1);
	fixture->unlock.passphrase_file = fixture->sample.passphrase_file;
	build(fixture);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	unsetenv("TMPDIR");
	sample_close(&fixture->sample);
	buf_free(&fixture->lines);
	free(fixture);
	return 0;
}

static void take_line(void *context, const char *line)
{
	struct fixture *fixture = context;

	assert_int_equal(buf_printf(&fixture->lines, "%s\n", line), 0);
}

static int check(struct fixture *fixture, int percent)
{
	struct error error = {0};

	buf_clear(&fixture->lines);
	assert_int_equal(buf_printf(&fixture->lines, "\n"), 0);
	int rc = sync_check(fixture->sample.config, &fixture->unlock, percent, NULL, take_line, fixture, &fixture->result,
			    &error);
	if (rc != 0 && rc != ERR_CORRUPT)
		fail_msg("%s", error.message);
	if (rc == 0)
		assert_string_equal((char *)fixture->lines.data, "\n");
	return rc;
}

static void expect_line(const struct fixture *fixture, const char *line)
{
	char *wanted = io_printf("\n%s\n", line);

	if (!strstr((char *)fixture->lines.data, wanted))
		fail_msg("no line '%s' in:%s", line, (char *)fixture->lines.data);
	free(wanted);
}

static void expect_damaged(const struct fixture *fixture, const char *key, const char *why)
{
	char *line = io_printf("damaged: %s: %s", key, why);

	expect_line(fixture, line);
	free(line);
}

static void test_sound(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(check(fixture, 0), 0);
	assert_int_equal(fixture->result.records, 4);
	assert_int_equal(fixture->result.packs, 6);
	assert_int_equal(fixture->result.chunks, 0);
	assert_int_equal(check(fixture, 100), 0);
	assert_int_equal(fixture->result.chunks, 6);
	assert_true(fixture->result.bytes > 4 * 2500);
	assert_int_equal(check(fixture, 30), 0);
}

/* I17. */
static void test_intruder(void **state)
{
	struct fixture *fixture = *state;
	struct sample *sample = &fixture->sample;

	memset(sample->writer_id, 'w', sizeof(sample->writer_id));
	sample_commit(sample, sample_delta(sample, 0), 0);
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	expect_damaged(fixture, "log/0000000000000005", "by another writer than the record before it, and no take-over (I17)");
	assert_int_equal(fixture->result.records, 5);
}

/* Fault 5. */
static void test_missing_pack(void **state)
{
	struct fixture *fixture = *state;

	sample_remove(&fixture->sample, fixture->packs[1]);
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	expect_damaged(fixture, fixture->packs[1], "it is not in the remote");
	expect_line(fixture, "  file: docs\\x0a/file-2, versions 2-4");
	assert_int_equal(fixture->result.damaged_objects, 1);
	assert_int_equal(fixture->result.damaged_files, 1);
	sample_remove(&fixture->sample, fixture->packs[3]);
	assert_int_equal(check(fixture, 100), ERR_CORRUPT);
	expect_line(fixture, "  file: docs\\x0a/file-2, versions 2-4");
	expect_line(fixture, "  file: docs\\x0a/file-4, version 4");
	assert_int_equal(fixture->result.chunks, 4);
}

/* Fault 4: only reading finds it. */
static void test_flipped_pack(void **state)
{
	struct fixture *fixture = *state;

	sample_flip(&fixture->sample, fixture->packs[0], 100);
	assert_int_equal(check(fixture, 0), 0);
	assert_int_equal(check(fixture, 100), ERR_CORRUPT);
	expect_damaged(fixture, fixture->packs[0], "its bytes are not what was stored");
	expect_line(fixture, "  file: docs\\x0a/file-1, versions 1-4");
	assert_int_equal(fixture->result.damaged_files, 1);
	/* Outside of any chunk: no file is concerned. */
	sample_flip(&fixture->sample, fixture->packs[0], 100);
	sample_flip(&fixture->sample, fixture->packs[0], 9);
	assert_int_equal(check(fixture, 100), ERR_CORRUPT);
	expect_damaged(fixture, fixture->packs[0], "its bytes are not what was stored");
	assert_int_equal(fixture->result.damaged_files, 0);
}

static void test_short_pack(void **state)
{
	struct fixture *fixture = *state;
	char *path = sample_object(&fixture->sample, fixture->packs[2]);

	chmod(path, 0600);
	assert_int_equal(truncate(path, 70), 0);
	free(path);
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "it has 70 bytes instead of"));
	expect_line(fixture, "  file: docs\\x0a/file-3, versions 3-4");
}

/* The inline pack of the newest record is in no chain yet. */
static void test_inline_pack(void **state)
{
	struct fixture *fixture = *state;

	sample_flip(&fixture->sample, "log/0000000000000004", RECORD_HEADER_BYTES + 100);
	assert_int_equal(check(fixture, 0), 0);
	assert_int_equal(check(fixture, 100), ERR_CORRUPT);
	expect_damaged(fixture, "log/0000000000000004", "its bytes are not what was stored");
	expect_line(fixture, "  file: docs\\x0a/a.txt, version 4");
}

static void test_log(void **state)
{
	struct fixture *fixture = *state;

	sample_flip(&fixture->sample, "log/0000000000000002", 3);
	sample_remove(&fixture->sample, fixture->packs[0]);
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "\ndamaged: log/0000000000000002: "));
	/* What the log says before it. */
	expect_line(fixture, "  file: docs\\x0a/file-1, version 1");
	sample_remove(&fixture->sample, "log/0000000000000002");
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "\ndamaged: log/0000000000000002: it is not in "));
}

static void test_wrong_key(void **state)
{
	struct fixture *fixture = *state;
	struct unlock none = {0};
	struct error error = {0};

	assert_int_equal(sync_check(fixture->sample.config, &none, 0, NULL, take_line, fixture, &fixture->result, &error), ERR_KEY);
}

/* ---------------------------------------------------------------- with a local database */

static void make_local(struct fixture *fixture)
{
	struct sample *sample = &fixture->sample;
	struct volume_config *config = sample->config;
	struct volume_descriptor descriptor;
	struct volume_texts texts;
	struct recover_head head;
	struct error error = {0};
	struct volume *volume;
	struct master *master;
	struct secret secret;
	char *states = io_printf("%s/state", sample->dir);

	setenv("YESTER_STATE_DIR", states, 1);
	free(states);
	config->directory = io_printf("%s/tree", sample->dir);
	mkdir(config->directory, 0755);
	if (volume_create(config, &volume, &error))
		fail_msg("%s", error.message);
	assert_int_equal(secret_read(&fixture->unlock, NULL, &secret, &error), 0);
	assert_int_equal(volume_texts_fetch(sample->store, &texts, &error), 0);
	assert_int_equal(volume_texts_unlock(&texts, &secret, "here", &descriptor, &master, &error), 0);
	assert_int_equal(setup_describe(volume_db(volume), &descriptor, &texts, &error), 0);
	assert_int_equal(recover_catalogue(sample->store, sample->master, volume_db(volume), sample->tmp, NULL, NULL, &head,
					   &error), 0);
	volume_close(volume, false);
	master_free(master);
	secret_wipe(&secret);
	volume_texts_free(&texts);
}

static void change_local(struct fixture *fixture, const char *sql)
{
	struct error error = {0};
	struct volume *volume;
	struct db_conn *conn;

	if (volume_open(fixture->sample.config, &volume, &error))
		fail_msg("%s", error.message);
	assert_int_equal(db_begin(volume_db(volume), true, &conn, NULL), 0);
	assert_int_equal(db_exec(conn, sql, NULL), 0);
	assert_int_equal(db_commit(volume_db(volume), NULL), 0);
	volume_close(volume, false);
}

static void test_local(void **state)
{
	struct fixture *fixture = *state;

	make_local(fixture);
	assert_int_equal(check(fixture, 100), 0);
	/* The remote is ahead: the versions that both know are compared. */
	struct delta *delta = sample_delta(&fixture->sample, 0);
	sample_add_file(&fixture->sample, delta, 2, "a.txt", 3, "new", 3, true);
	sample_commit(&fixture->sample, delta, 0);
	assert_int_equal(check(fixture, 0), 0);
	change_local(fixture, "UPDATE inode SET mtime_ns=mtime_ns+1 WHERE ino=12");
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "\ndamaged: local database: table inode "));
	change_local(fixture, "UPDATE inode SET mtime_ns=mtime_ns-1 WHERE ino=12; DELETE FROM extent_past");
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "\ndamaged: local database: table extent "));
}

/* Where the log is damaged, the local database says which packs there must be. */
static void test_local_helps(void **state)
{
	struct fixture *fixture = *state;

	make_local(fixture);
	sample_flip(&fixture->sample, "log/0000000000000002", 3);
	sample_remove(&fixture->sample, fixture->packs[3]);
	sample_remove(&fixture->sample, "volume");
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	expect_damaged(fixture, "volume", "it is not in the remote");
	assert_non_null(strstr((char *)fixture->lines.data, "\ndamaged: log/0000000000000002: "));
	expect_line(fixture, "  file: docs\\x0a/file-4, version 4");
	assert_int_equal(fixture->result.damaged_objects, 3);
}

/* Fault 55. */
static void test_rolled_back(void **state)
{
	struct fixture *fixture = *state;

	make_local(fixture);
	sample_remove(&fixture->sample, "log/0000000000000004");
	assert_int_equal(check(fixture, 0), ERR_CORRUPT);
	assert_non_null(strstr((char *)fixture->lines.data, "rolled back"));
}

static int remove_object(void *context, const struct store_object *object)
{
	sample_remove(&((struct fixture *)context)->sample, object->key);
	return 0;
}

/* As an absent disk looks: one answer, and no list of all that is not there. */
static void test_empty(void **state)
{
	struct fixture *fixture = *state;
	struct error error = {0};

	make_local(fixture);
	assert_int_equal(store_list(fixture->sample.store, "", NULL, remove_object, fixture, NULL), 0);
	buf_clear(&fixture->lines);
	assert_int_equal(sync_check(fixture->sample.config, &fixture->unlock, 0, NULL, take_line, fixture, &fixture->result, &error), ERR_CORRUPT);
	assert_int_equal(fixture->lines.length, 0);
	assert_non_null(strstr(error.message, "it is empty, and a volume of this machine should be there; is its disk mounted?"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_sound), TEST(test_intruder), TEST(test_missing_pack), TEST(test_flipped_pack), TEST(test_short_pack),
		TEST(test_inline_pack), TEST(test_log), TEST(test_wrong_key), TEST(test_local), TEST(test_local_helps),
		TEST(test_rolled_back), TEST(test_empty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
