#include "recover.h"

#include "catalogue.h"
#include "catalogue_schema.h"
#include "io.h"
#include "sample_log.h"
#include "unlock.h"

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

/* A database in a directory of its own below the sample's. */
static struct db *open_db(const struct sample *sample, const char *name)
{
	char *path = io_printf("%s/%s", sample->dir, name);
	struct error error = {0};
	struct db *db;

	mkdir(path, 0700);
	if (db_open(path, true, &db, &error))
		fail_msg("%s", error.message);
	free(path);
	return db;
}

static int recover(const struct sample *sample, struct db *db, struct recover_head *head, struct error *error)
{
	return recover_catalogue(sample->store, sample->master, db, sample->tmp, NULL, NULL, head, error);
}

static int follow(const struct sample *sample, struct db *db, struct recover_head *head, struct error *error)
{
	return recover_follow(sample->store, sample->master, db, sample->tmp, head, error);
}

/* Version 1: docs/a.txt; each further one: a file of its own, and every third changes a.txt. */
static void add_versions(struct sample *sample, int count)
{
	for (int i = 0; i < count; i++) {
		int64_t seq = sample->seq + 1;
		struct delta *delta = sample_delta(sample, 0);
		char name[32], data[64];

		snprintf(name, sizeof(name), "file-%lld", (long long)seq);
		snprintf(data, sizeof(data), "content of version %lld", (long long)seq);
		if (seq == 1)
			sample_add_dir(delta, CATALOGUE_ROOT_INO, "docs", 2);
		if (seq % 3 == 1)
			sample_add_file(sample, delta, 2, "a.txt", 3, data, strlen(data), true);
		sample_add_file(sample, delta, 2, name, 10 + seq, data, strlen(data), false);
		sample_commit(sample, delta, 0);
	}
}

static int64_t scalar(struct db *db, const char *sql)
{
	struct db_conn *conn;
	char text[1024];

	snprintf(text, sizeof(text), "CREATE TEMP TABLE answer AS %s", sql);
	assert_int_equal(db_begin(db, false, &conn, NULL), 0);
	assert_int_equal(db_exec(conn, text, NULL), 0);
	assert_int_equal(db_exec(conn, "INSERT OR REPLACE INTO meta SELECT 'answer', * FROM answer; DROP TABLE answer", NULL), 0);
	int64_t value = db_meta_int(conn, "answer", -99);
	db_rollback(db);
	return value;
}

static void expect_state(const struct sample *sample, struct db *db, const struct recover_head *head)
{
	struct db_conn *conn;
	uint8_t hash[SHA256_BYTES];
	struct record_base base;
	int64_t ino;

	assert_int_equal(head->seq, sample->seq);
	assert_memory_equal(head->hash, sample->hash, SHA256_BYTES);
	assert_int_equal(head->header.seq, sample->seq);
	assert_memory_equal(&head->base, &sample->base, sizeof(head->base));
	assert_int_equal(db_read_begin(db, &conn, NULL), 0);
	assert_int_equal(db_meta_int(conn, "head", -1), sample->seq);
	assert_int_equal(db_meta_int(conn, "confirmed", -1), sample->seq);
	assert_int_equal(db_meta_blob(conn, "head_hash", hash, sizeof(hash)), 0);
	assert_memory_equal(hash, sample->hash, sizeof(hash));
	assert_int_equal(recover_load_base(conn, &base, NULL), 0);
	assert_memory_equal(&base, &sample->base, sizeof(base));
	assert_int_equal(db_meta_int(conn, "confirmed_cut_ns", 0), sample->seq * INT64_C(10000000000));
	assert_int_equal(db_meta_int(conn, "imported", 0), 1);
	for (int64_t seq = 1; seq <= sample->seq; seq++) {
		char path[64];
		snprintf(path, sizeof(path), "docs/file-%lld", (long long)seq);
		assert_int_equal(catalogue_resolve(conn, sample->seq, path, &ino), 0);
		assert_int_equal(ino, 10 + seq);
		assert_int_equal(catalogue_resolve(conn, seq, path, &ino), 0);
		if (seq > 1)
			assert_int_equal(catalogue_resolve(conn, seq - 1, path, &ino), ERR_ABSENT);
	}
	db_read_end(db, conn);
	assert_int_equal(scalar(db, "SELECT count(*) FROM version"), sample->seq);
}

static void test_log_only(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db;

	(void)state;
	sample_open(&sample, true);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_true(head.empty);
	assert_int_equal(follow(&sample, db, &head, &error), 0);
	assert_true(head.empty);
	add_versions(&sample, 1);
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_false(head.empty);
	expect_state(&sample, db, &head);
	add_versions(&sample, 40);
	if (recover(&sample, db, &head, &error))
		fail_msg("%s", error.message);
	expect_state(&sample, db, &head);
	db_close(db);
	sample_close(&sample);
}

static void test_partial(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db;

	(void)state;
	sample_open(&sample, false);
	sample_commit(&sample, sample_delta(&sample, VERSION_PARTIAL), RECORD_PARTIAL);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_int_equal(head.seq, 1);
	assert_int_equal(scalar(db, "SELECT count(*) FROM meta WHERE name IN ('imported', 'confirmed_cut_ns')"), 0);
	db_close(db);
	sample_close(&sample);
}

/* I24: what the newest version lacks is not safe, whatever this machine has forgotten. */
static void test_lacking(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db;

	(void)state;
	sample_open(&sample, false);
	sample_commit(&sample, sample_delta(&sample, VERSION_LACKING), 0);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_int_equal(scalar(db, "SELECT value FROM meta WHERE name='imported'"), 1);
	assert_int_equal(scalar(db, "SELECT count(*) FROM meta WHERE name='confirmed_cut_ns'"), 0);
	sample_commit(&sample, sample_delta(&sample, 0), 0);
	sample_commit(&sample, sample_delta(&sample, VERSION_LACKING), 0);
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_int_equal(head.seq, 3);
	assert_int_equal(scalar(db, "SELECT value FROM meta WHERE name='confirmed_cut_ns'"), scalar(db, "SELECT cut_ns FROM version WHERE seq=2"));
	db_close(db);
	sample_close(&sample);
}

/* I18: through a checkpoint; records below it may be gone, and checkpoints that no record names count for nothing. */
static void test_checkpoint(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db, *other;
	struct buf junk = {0};

	(void)state;
	sample_open(&sample, true);
	add_versions(&sample, 7);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	sample_checkpoint(&sample, db);
	add_versions(&sample, 4);
	for (int64_t seq = 1; seq <= 6; seq++) {
		char key[RECORD_KEY_BYTES];
		record_key(key, seq);
		sample_remove(&sample, key);
	}
	other = open_db(&sample, "b");
	if (recover(&sample, other, &head, &error))
		fail_msg("%s", error.message);
	expect_state(&sample, other, &head);
	assert_int_equal(follow(&sample, db, &head, &error), 0);
	expect_state(&sample, db, &head);
	assert_int_equal(follow(&sample, db, &head, &error), 0);
	expect_state(&sample, db, &head);

	/* Not named by any record: beyond the head, and between base and head. */
	assert_int_equal(buf_append(&junk, "junk", 4), 0);
	struct store_body body = {.data = junk.data, .fd = -1, .length = junk.length};
	assert_int_equal(store_put_new(sample.store, "checkpoint/00000000000000aa-0000000000000001", &body, NULL, NULL), 0);
	if (recover(&sample, other, &head, &error))
		fail_msg("%s", error.message);
	expect_state(&sample, other, &head);
	sample_remove(&sample, "checkpoint/00000000000000aa-0000000000000001");
	assert_int_equal(store_put_new(sample.store, "checkpoint/000000000000000a-0000000000000001", &body, NULL, NULL), 0);
	if (recover(&sample, other, &head, &error))
		fail_msg("%s", error.message);
	expect_state(&sample, other, &head);

	/* What the checkpoint rebuilt and what the log alone built are the same. */
	assert_int_equal(scalar(db, "SELECT sum(ino * vfrom) FROM inode"), scalar(other, "SELECT sum(ino * vfrom) FROM inode"));
	assert_int_equal(scalar(db, "SELECT sum(ino * vto) FROM extent_past"), scalar(other, "SELECT sum(ino * vto) FROM extent_past"));

	/* No log, but a checkpoint: not a volume without versions. */
	for (int64_t seq = 7; seq <= 11; seq++) {
		char key[RECORD_KEY_BYTES];
		record_key(key, seq);
		sample_remove(&sample, key);
	}
	assert_int_equal(recover(&sample, other, &head, &error), ERR_CORRUPT);
	buf_free(&junk);
	db_close(db);
	db_close(other);
	sample_close(&sample);
}

static void expect_refused(const struct sample *sample, const char *name, const char *key)
{
	struct recover_head head;
	struct error error = {0};
	struct db *db = open_db(sample, name);

	assert_int_equal(recover(sample, db, &head, &error), ERR_CORRUPT);
	if (!strstr(error.message, key))
		fail_msg("%s is not named: %s", key, error.message);
	db_close(db);
}

static void rename_object(const struct sample *sample, const char *from, const char *to)
{
	char *a = sample_object(sample, from), *b = sample_object(sample, to);

	assert_int_equal(rename(a, b), 0);
	free(a);
	free(b);
}

/* I17: a writer who did not take over is noticed; but he had the key, his record is in its place, and the user wants his files. */
static void test_intruder(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db, *other;

	(void)state;
	sample_open(&sample, true);
	add_versions(&sample, 2);
	io_random(sample.writer_id, sizeof(sample.writer_id));
	sample_commit(&sample, sample_delta(&sample, VERSION_TAKE_OVER), RECORD_TAKE_OVER);
	sample_commit(&sample, sample_delta(&sample, 0), 0);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	assert_int_equal(head.intruder, 0);
	io_random(sample.writer_id, sizeof(sample.writer_id));
	sample_commit(&sample, sample_delta(&sample, 0), 0);
	sample_commit(&sample, sample_delta(&sample, 0), 0);
	assert_int_equal(follow(&sample, db, &head, &error), 0);
	assert_int_equal(head.intruder, 5);
	other = open_db(&sample, "b");
	assert_int_equal(recover(&sample, other, &head, &error), 0);
	assert_int_equal(head.seq, 6);
	assert_int_equal(head.intruder, 5);
	db_close(other);
	db_close(db);
	sample_close(&sample);
}

/* Fault 44: swapped, dropped, truncated, replayed. */
static void test_hostile_log(void **state)
{
	static const char k3[] = "log/0000000000000003", k4[] = "log/0000000000000004", k5[] = "log/0000000000000005";
	struct sample sample;

	(void)state;
	sample_open(&sample, true);
	add_versions(&sample, 5);
	rename_object(&sample, k3, "log/aside");
	expect_refused(&sample, "dropped", k3);
	rename_object(&sample, k4, k3);
	rename_object(&sample, "log/aside", k4);
	expect_refused(&sample, "swapped", k3);
	rename_object(&sample, k4, "log/aside");
	rename_object(&sample, k3, k4);
	rename_object(&sample, "log/aside", k3);
	rename_object(&sample, k5, "log/0000000000000006");
	expect_refused(&sample, "renamed", "log/0000000000000006");
	rename_object(&sample, "log/0000000000000006", k5);
	sample_flip(&sample, k4, RECORD_HEADER_BYTES + 1); /* the inline pack: authentic by the chain only */
	expect_refused(&sample, "flipped", k5);
	sample_flip(&sample, k4, RECORD_HEADER_BYTES + 1);
	sample_flip(&sample, k5, 70);
	expect_refused(&sample, "flipped-newest", k5);
	sample_close(&sample);
}

static void test_hostile_checkpoint(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	char key[RECORD_KEY_BYTES];
	struct db *db;

	(void)state;
	sample_open(&sample, true);
	add_versions(&sample, 3);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	sample_checkpoint(&sample, db);
	add_versions(&sample, 1);
	checkpoint_key(key, sample.base.seq, sample.base.rand);
	sample_flip(&sample, key, 200);
	expect_refused(&sample, "flipped", key);
	sample_remove(&sample, key);
	expect_refused(&sample, "removed", key);
	db_close(db);
	sample_close(&sample);
}

/* Fault 55, and an older copy of the database (22). */
static void test_follow(void **state)
{
	struct sample sample;
	struct recover_head head;
	struct error error = {0};
	struct db *db;
	struct db_conn *conn;

	(void)state;
	sample_open(&sample, true);
	add_versions(&sample, 4);
	db = open_db(&sample, "a");
	assert_int_equal(recover(&sample, db, &head, &error), 0);
	add_versions(&sample, 12);
	assert_int_equal(follow(&sample, db, &head, &error), 0);
	expect_state(&sample, db, &head);

	assert_int_equal(db_begin(db, true, &conn, NULL), 0);
	assert_int_equal(db_meta_set_int(conn, "head", sample.seq + 1, NULL), 0);
	assert_int_equal(db_commit(db, NULL), 0);
	assert_int_equal(follow(&sample, db, &head, &error), ERR_FENCED);
	assert_int_equal(db_begin(db, true, &conn, NULL), 0);
	assert_int_equal(db_meta_set_int(conn, "head", sample.seq, NULL), 0);
	assert_int_equal(db_commit(db, NULL), 0);

	char newest[RECORD_KEY_BYTES];
	record_key(newest, sample.seq);
	sample_flip(&sample, newest, RECORD_HEADER_BYTES + 1);
	assert_int_equal(follow(&sample, db, &head, &error), ERR_CORRUPT);
	sample_remove(&sample, newest);
	assert_int_equal(follow(&sample, db, &head, &error), ERR_CORRUPT);
	assert_non_null(strstr(error.message, "rolled back"));
	db_close(db);
	sample_close(&sample);
}

/* ---------------------------------------------------------------- unlocking */

static int count_kept(void *context, const char *key, const void *bytes, size_t length)
{
	assert_non_null(bytes);
	assert_true(length > 0);
	assert_true(strcmp(key, "volume") == 0 || strcmp(key, "key/00000001") == 0);
	++*(int *)context;
	return 0;
}

static int try_unlock(const struct sample *sample, const struct unlock *unlock, struct error *error)
{
	struct volume_descriptor descriptor;
	struct master *master;
	int kept = 0;
	int rc = recover_unlock(sample->store, unlock, sample->config, count_kept, &kept, &descriptor, &master, error);

	assert_int_equal(rc == 0, master != NULL);
	if (!rc) {
		assert_memory_equal(descriptor.volume_id, master_volume_id(sample->master), CRYPT_ID_BYTES);
		if (descriptor.suite != SUITE_NONE)
			assert_memory_equal(master_key(master), master_key(sample->master), CRYPT_KEY_BYTES);
		assert_int_equal(kept, descriptor.suite == SUITE_NONE ? 1 : 2);
	}
	master_free(master);
	return rc;
}

static void test_unlock(void **state)
{
	struct sample sample;
	struct error error = {0};
	struct unlock unlock = {0};

	(void)state;
	sample_open(&sample, true);
	assert_int_equal(try_unlock(&sample, &unlock, &error), ERR_KEY);
	assert_int_equal(try_unlock(&sample, NULL, &error), ERR_KEY);
	unlock.passphrase_file = sample.passphrase_file;
	if (try_unlock(&sample, &unlock, &error))
		fail_msg("%s", error.message);
	sample.config->passphrase_file = strdup(sample.passphrase_file);
	assert_int_equal(try_unlock(&sample, NULL, &error), 0);
	FILE *file = fopen(sample.passphrase_file, "w");
	fputs("incorrect horse\n", file);
	fclose(file);
	assert_int_equal(try_unlock(&sample, NULL, &error), ERR_KEY);
	char text[KEY_RECOVERY_TEXT_BYTES];
	uint8_t secret[20];
	key_new_recovery(secret, text);
	struct unlock recovery = {.recovery_key = text};
	assert_int_equal(try_unlock(&sample, &recovery, &error), ERR_KEY);
	recovery.recovery_key = "nonsense";
	assert_int_equal(try_unlock(&sample, &recovery, &error), ERR_KEY);
	sample_remove(&sample, "volume");
	unlock.recovery_key = NULL;
	assert_int_equal(try_unlock(&sample, &unlock, &error), ERR_ABSENT);
	sample_close(&sample);
}

/* Fault 46: whoever has a key does not accept a volume without one. */
static void test_unlock_unencrypted(void **state)
{
	struct sample sample;
	struct error error = {0};
	struct unlock unlock = {0};

	(void)state;
	sample_open(&sample, false);
	if (try_unlock(&sample, &unlock, &error))
		fail_msg("%s", error.message);
	unlock.passphrase_file = sample.passphrase_file;
	assert_int_equal(try_unlock(&sample, &unlock, &error), ERR_KEY);
	sample_flip(&sample, "volume", 60);
	unlock.passphrase_file = NULL;
	assert_int_equal(try_unlock(&sample, &unlock, &error), ERR_CORRUPT);
	sample_close(&sample);
}

static void test_saved_texts(void **state)
{
	struct sample sample;
	struct error error = {0};
	struct volume_texts texts, again;
	struct volume_descriptor descriptor;
	struct unlock unlock = {0};
	struct secret secret;
	struct master *master;
	struct db_conn *conn;
	struct db *db;

	(void)state;
	sample_open(&sample, true);
	db = open_db(&sample, "a");
	assert_int_equal(db_begin(db, true, &conn, NULL), 0);
	assert_int_equal(volume_texts_load(conn, &again, &error), ERR_ABSENT);
	assert_int_equal(volume_texts_fetch(sample.store, &texts, &error), 0);
	assert_int_equal(volume_text_save(conn, VOLUME_KEY, texts.descriptor.data, texts.descriptor.length, &error), 0);
	for (size_t i = 0; i < texts.count; i++)
		assert_int_equal(volume_text_save(conn, texts.slots[i].key, texts.slots[i].bytes.data,
						  texts.slots[i].bytes.length, &error), 0);
	assert_int_equal(volume_texts_load(conn, &again, &error), 0);
	assert_int_equal(again.count, texts.count);
	unlock.passphrase_file = sample.passphrase_file;
	assert_int_equal(secret_read(&unlock, NULL, &secret, &error), 0);
	assert_int_equal(volume_texts_unlock(&again, &secret, "here", &descriptor, &master, &error), 0);
	master_free(master);
	secret_wipe(&secret);
	volume_texts_free(&texts);
	volume_texts_free(&again);
	db_rollback(db);
	db_close(db);
	sample_close(&sample);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_only), cmocka_unit_test(test_partial), cmocka_unit_test(test_lacking), cmocka_unit_test(test_checkpoint),
		cmocka_unit_test(test_hostile_log), cmocka_unit_test(test_intruder), cmocka_unit_test(test_hostile_checkpoint), cmocka_unit_test(test_follow),
		cmocka_unit_test(test_unlock), cmocka_unit_test(test_unlock_unencrypted), cmocka_unit_test(test_saved_texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
