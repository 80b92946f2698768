/* Deltas and checkpoint images: building, limits of what may be applied, and images that lie. */
#include "catalogue.h"
#include "clock.h"
#include "delta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], dir2[64];
static struct db *db;
static struct error error;

static void remove_all(const char *path)
{
	static const char *const files[] = {"volume.db", "volume.db-wal", "volume.db-shm", "image"};
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char name[96];
		snprintf(name, sizeof(name), "%s/%s", path, files[i]);
		unlink(name);
	}
	assert_int_equal(rmdir(path), 0); /* temporary files have no names */
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test_delta-XXXXXX");
	strcpy(dir2, "/tmp/test_delta-XXXXXX");
	if (!mkdtemp(dir) || !mkdtemp(dir2))
		return -1;
	return db_open(dir, true, &db, &error);
}

static int teardown(void **state)
{
	(void)state;
	db_close(db);
	remove_all(dir);
	remove_all(dir2);
	return 0;
}

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		if (call)                                                                                              \
			fail_msg("%s: %s", #call, error.message);                                                      \
	} while (0)

static struct delta *start(int64_t seq)
{
	struct delta *delta;
	struct version_row version = {.time_s = 1000 + seq, .cut_ns = 5};
	OK(delta_new(dir, seq, &delta, &error));
	OK(delta_set_version(delta, &version, &error));
	return delta;
}

static void inode(struct delta *delta, int64_t ino, uint32_t mode)
{
	struct inode_row row = {.ino = ino, .mode = mode, .nlink = 1, .size = 100};
	OK(delta_add_inode(delta, &row, &error));
}

static void extent(struct delta *delta, int64_t ino, int64_t at, int64_t length)
{
	OK(delta_add_extent(delta, &(struct extent_row){ino, at, length, 1, 0}, &error));
}

/* Applies, rolls back on failure, frees. */
static int apply(struct delta *delta)
{
	struct db_conn *conn;
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	int rc = delta_apply(delta, conn, &error);
	if (rc)
		db_rollback(db);
	else
		assert_int_equal(db_commit(db, &error), 0);
	delta_free(delta);
	return rc;
}

static void first_version(void)
{
	struct delta *delta = start(1);
	struct chunk_row chunk = {.num = 1, .pack = 1, .length = 100000, .stored = 50};
	struct pack_row pack = {.num = 1, .size = 100, .record = 1};
	inode(delta, 1, S_IFDIR | 0755);
	inode(delta, 2, S_IFREG | 0644);
	inode(delta, 3, S_IFDIR | 0755);
	inode(delta, 4, S_IFDIR | 0755);
	OK(delta_add_name(delta, 1, "file", 4, 2, &error));
	OK(delta_add_name(delta, 1, "d", 1, 3, &error));
	OK(delta_add_name(delta, 3, "e", 1, 4, &error));
	OK(delta_add_chunk(delta, &chunk, &error));
	OK(delta_add_pack(delta, &pack, &error));
	extent(delta, 2, 0, 1000);
	extent(delta, 2, 1000, 500);
	OK(delta_add_pin(delta, "keep", 1, &error));
	OK(apply(delta));
}

/* --- Building and applying --- */

static void test_order_of_versions(void **state) /* I26 */
{
	(void)state;
	assert_int_equal(apply(start(2)), ERR_CORRUPT);
	first_version();
	assert_int_equal(apply(start(1)), ERR_CORRUPT);
	assert_int_equal(apply(start(3)), ERR_CORRUPT);
	struct delta *delta = start(2);
	OK(delta_set_version(delta, &(struct version_row){.time_s = 1001}, &error)); /* the same second */
	assert_int_equal(apply(delta), ERR_CORRUPT);
	OK(delta_new(dir, 2, &delta, &error));
	assert_int_equal(apply(delta), ERR_CORRUPT); /* no version row */
	OK(apply(start(2)));
}

static void test_overlaps_refused(void **state)
{
	(void)state;
	static const struct { int64_t at, length; int want; } tries[] = {
		{0, 1001, ERR_CORRUPT}, {500, 10, ERR_CORRUPT}, {999, 1, ERR_CORRUPT}, {1499, 100, ERR_CORRUPT},
		{0, 1000, 0}, {1000, 500, 0}, {1000, 600, 0}, {1500, 1, 0}, {0, 10, 0},
	};
	first_version();
	for (size_t i = 0; i < sizeof(tries) / sizeof(*tries); i++) {
		struct delta *delta = start(2);
		struct db_conn *conn;
		extent(delta, 2, tries[i].at, tries[i].length);
		OK(db_begin(db, false, &conn, &error));
		assert_int_equal(delta_apply(delta, conn, &error), tries[i].want);
		db_rollback(db);
		delta_free(delta);
	}
}

static void test_last_call_counts(void **state)
{
	(void)state;
	struct db_conn *conn;
	struct inode_hold hold;
	struct extent_place *places;
	size_t count;
	int64_t ino;
	first_version();
	struct delta *delta = start(2);
	inode(delta, 9, S_IFREG | 0600);
	OK(delta_add_name(delta, 1, "new", 3, 9, &error));
	extent(delta, 2, 1500, 10);
	OK(delta_add_inode_end(delta, 9, &error));
	OK(delta_add_name_end(delta, 1, "new", 3, &error));
	OK(delta_add_extent_end(delta, 2, 1500, &error));
	/* the other way round: ended, then added again */
	OK(delta_add_name_end(delta, 1, "file", 4, &error));
	OK(delta_add_name(delta, 1, "file", 4, 2, &error));
	OK(delta_add_pin_end(delta, "keep", &error));
	OK(delta_add_pin(delta, "keep", 2, &error));
	OK(apply(delta));
	OK(db_read_begin(db, &conn, &error));
	assert_int_equal(catalogue_inode(conn, 2, 9, &hold), ERR_ABSENT);
	assert_int_equal(catalogue_lookup(conn, 2, 1, "new", 3, &ino), ERR_ABSENT);
	OK(catalogue_lookup(conn, 1, 1, "file", 4, &ino));
	OK(catalogue_lookup(conn, 2, 1, "file", 4, &ino));
	OK(catalogue_extents(conn, 2, 2, 0, 9999, &places, &count));
	assert_int_equal(count, 2);
	free(places);
	assert_int_equal(db_step(conn, &error, "SELECT seq FROM pin", ""), 1);
	assert_int_equal(sqlite3_column_int(db_last(conn), 0), 2);
	db_read_end(db, conn);
}

static int count_name(void *context, int64_t parent, const void *name, size_t length)
{
	(void)name, (void)length;
	((int64_t *)context)[0]++;
	((int64_t *)context)[1] = parent;
	return 0;
}

static void test_directory_keeps_one_name(void **state) /* fault 39: a cycle */
{
	(void)state;
	struct db_conn *conn;
	int64_t seen[2] = {0};
	first_version();
	struct delta *delta = start(2);
	OK(delta_add_name(delta, 4, "loop", 4, 3, &error)); /* d into d/e */
	OK(delta_add_name(delta, 1, "z1", 2, 4, &error));
	OK(delta_add_name(delta, 1, "z2", 2, 4, &error)); /* the last in key order wins */
	OK(apply(delta));
	OK(db_read_begin(db, &conn, &error));
	OK(catalogue_names_of(conn, 2, 3, count_name, seen));
	assert_true(seen[0] == 1 && seen[1] == 4);
	seen[0] = 0;
	int64_t ino;
	OK(catalogue_names_of(conn, 2, 4, count_name, seen));
	assert_true(seen[0] == 1 && seen[1] == 1);
	OK(catalogue_lookup(conn, 2, 1, "z2", 2, &ino));
	assert_int_equal(catalogue_lookup(conn, 2, 1, "z1", 2, &ino), ERR_ABSENT);
	OK(catalogue_resolve(conn, 1, "d/e", &ino)); /* the version before is as it was */
	db_read_end(db, conn);
	/* A file with two names must not become a directory. */
	delta = start(3);
	OK(delta_add_name(delta, 1, "hard", 4, 2, &error));
	OK(apply(delta));
	delta = start(4);
	inode(delta, 2, S_IFDIR | 0755);
	assert_int_equal(apply(delta), ERR_CORRUPT);
}

static void test_numbers_not_reused(void **state)
{
	(void)state;
	struct chunk_row chunk = {.num = 1, .pack = 2, .length = 100000, .stored = 50, .offset = 7}, got;
	struct pack_row pack = {.num = 1};
	struct db_conn *conn;
	first_version();
	struct delta *delta = start(2);
	OK(delta_add_pack(delta, &pack, &error));
	assert_int_equal(apply(delta), ERR_CORRUPT);
	/* a relocation: same number, id and length */
	delta = start(2);
	pack.num = 2;
	OK(delta_add_pack(delta, &pack, &error));
	OK(delta_add_chunk(delta, &chunk, &error));
	OK(delta_add_pin_end(delta, "keep", &error));
	OK(delta_add_pin(delta, "other", 2, &error));
	OK(apply(delta));
	delta = start(3);
	chunk.length--;
	OK(delta_add_chunk(delta, &chunk, &error));
	assert_int_equal(apply(delta), ERR_CORRUPT);
	OK(db_begin(db, false, &conn, &error));
	OK(catalogue_chunk(conn, 1, &got));
	assert_true(got.pack == 2 && got.offset == 7);
	OK(catalogue_rollback(conn, 1, &error));
	OK(catalogue_chunk(conn, 1, &got));
	assert_true(got.pack == 1 && got.offset == 0);
	assert_int_equal(catalogue_pack(conn, 2, &pack), ERR_ABSENT);
	assert_int_equal(db_step(conn, &error, "SELECT group_concat(name) FROM pin", ""), 1);
	assert_string_equal((const char *)sqlite3_column_text(db_last(conn), 0), "keep");
	OK(db_commit(db, &error));
	/* Once confirmed, the undo rows go, and a rollback that would need them says so. */
	delta = start(2);
	pack.num = 2, chunk.length++;
	OK(delta_add_pack(delta, &pack, &error));
	OK(delta_add_chunk(delta, &chunk, &error));
	OK(apply(delta));
	OK(db_begin(db, false, &conn, &error));
	OK(db_meta_set_int(conn, "confirmed", 2, &error));
	OK(db_commit(db, &error));
	OK(apply(start(3)));
	OK(db_begin(db, false, &conn, &error));
	assert_int_equal(catalogue_rollback(conn, 1, &error), ERR_CORRUPT);
	db_rollback(db);
}

static void test_unusable(void **state)
{
	(void)state;
	struct delta *delta = start(1);
	int fd;
	uint64_t length;
	assert_int_equal(delta_add_name(delta, 1, "a/b", 3, 2, &error), ERR_FAILED);
	OK(delta_add_name(delta, 1, "a", 1, 2, &error)); /* a refused argument is no failure */
	OK(delta_image(delta, &fd, &length, &error));
	close(fd);
	assert_int_equal(delta_add_inode_end(delta, 3, &error), ERR_FAILED);
	OK(delta_image(delta, &fd, &length, &error));
	close(fd);
	delta_free(delta);
	delta_free(NULL);
	assert_int_equal(delta_new("/nonexistent", 1, &delta, &error), ERR_ABSENT);
}

static void *add_many(void *arg)
{
	struct delta *delta = ((void **)arg)[0];
	int64_t base = (int64_t)(intptr_t)((void **)arg)[1];
	for (int64_t i = 0; i < 2500; i++) {
		char name[32];
		struct inode_row row = {.ino = base + i, .mode = S_IFREG | 0644, .nlink = 1, .size = i};
		int length = snprintf(name, sizeof(name), "file number %lld", (long long)(base + i));
		if (delta_add_inode(delta, &row, NULL) || delta_add_name(delta, 1, name, (size_t)length, base + i, NULL))
			return (void *)1;
	}
	return NULL;
}

static void test_ten_thousand(void **state)
{
	(void)state;
	struct delta *delta = start(1);
	pthread_t threads[4];
	void *args[4][2], *result;
	inode(delta, 1, S_IFDIR | 0755);
	for (intptr_t i = 0; i < 4; i++) {
		args[i][0] = delta;
		args[i][1] = (void *)(10 + i * 10000);
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, args[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &result);
		assert_null(result);
	}
	int64_t begin = clock_mono_ns();
	OK(apply(delta));
	print_message("20,000 rows applied in %.1f ms\n", (double)(clock_mono_ns() - begin) / 1e6);
	struct db_conn *conn;
	int64_t inodes, bytes;
	OK(db_read_begin(db, &conn, &error));
	OK(catalogue_totals(conn, &inodes, &bytes));
	assert_int_equal(inodes, 10000);
	assert_int_equal(bytes, 4 * 2500 * 2499 / 2);
	db_read_end(db, conn);
}

/* --- Hostile images --- */

static uint8_t *bytes_of(int fd, uint64_t length)
{
	uint8_t *bytes = malloc(length);
	assert_non_null(bytes);
	assert_int_equal(pread(fd, bytes, length, 0), (ssize_t)length);
	close(fd);
	return bytes;
}

static int fd_of(const uint8_t *bytes, uint64_t length)
{
	int fd = open(dir2, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	return fd;
}

static uint8_t *good_delta(uint64_t *length)
{
	struct delta *delta = start(5);
	int fd;
	struct chunk_row chunk = {.num = 1, .pack = 1, .length = 1000, .stored = 50};
	struct pack_row pack = {.num = 1, .size = 100, .record = 5};
	struct inode_row link = {.ino = 7, .mode = S_IFLNK | 0777, .nlink = 1, .target = "x", .target_length = 1};
	inode(delta, 1, S_IFDIR | 0755);
	inode(delta, 2, S_IFREG | 0644);
	OK(delta_add_inode(delta, &link, &error));
	OK(delta_add_name(delta, 1, "file", 4, 2, &error));
	OK(delta_add_name_end(delta, 1, "gone", 4, &error));
	OK(delta_add_inode_end(delta, 33, &error));
	OK(delta_add_chunk(delta, &chunk, &error));
	OK(delta_add_pack(delta, &pack, &error));
	OK(delta_add_pin(delta, "keep", 4, &error));
	OK(delta_add_version_server(delta, 4, 1000, &error));
	extent(delta, 2, 0, 600);
	extent(delta, 2, 600, 400);
	OK(delta_image(delta, &fd, length, &error));
	delta_free(delta);
	return bytes_of(fd, *length);
}

static int open_delta(const uint8_t *bytes, uint64_t length)
{
	struct delta *delta;
	int rc = delta_from_image(fd_of(bytes, length), length, 5, dir2, &delta, &error);
	if (!rc)
		delta_free(delta);
	else
		assert_null(delta);
	return rc;
}

/* The image after some SQL by somebody who means ill. */
static uint8_t *tampered(const uint8_t *bytes, uint64_t length, const char *sql, uint64_t *new_length)
{
	char path[96], *message = NULL;
	sqlite3 *handle;
	struct stat st;
	snprintf(path, sizeof(path), "%s/image", dir2);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, sql, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", sql, message);
	sqlite3_close(handle);
	assert_int_equal(fstat(fd, &st), 0);
	*new_length = (uint64_t)st.st_size;
	return bytes_of(fd, *new_length);
}

static void refuse_delta(const uint8_t *bytes, uint64_t length, const char *sql)
{
	uint64_t new_length;
	uint8_t *bad = tampered(bytes, length, sql, &new_length);
	int rc = open_delta(bad, new_length);
	if (rc != ERR_CORRUPT)
		fail_msg("%s: %d %s", sql, rc, rc ? error.message : "accepted");
	free(bad);
}

static void test_hostile_rows(void **state) /* fault 39 */
{
	(void)state;
	static const char *const attacks[] = {
		"INSERT INTO name VALUES(1, CAST('..' AS BLOB), 5, 9)", "INSERT INTO name VALUES(1, CAST('.' AS BLOB), 5, 9)",
		"INSERT INTO name VALUES(1, CAST('a/b' AS BLOB), 5, 9)", "INSERT INTO name VALUES(1, x'610062', 5, 9)",
		"INSERT INTO name VALUES(1, x'', 5, 9)", "INSERT INTO name VALUES(1, zeroblob(256), 5, 9)",
		"INSERT INTO name VALUES(1, CAST(printf('%256c', 'x') AS BLOB), 5, 9)", "INSERT INTO name VALUES(0, x'61', 5, 9)",
		"INSERT INTO name VALUES(1, x'61', 4, 9)", "INSERT INTO name VALUES(1, x'61', 5, 1)",
		"INSERT INTO name VALUES(7, x'61', 5, 7)", "INSERT INTO name_end VALUES(1, CAST('..' AS BLOB))",
		"UPDATE version SET seq=6", "INSERT INTO version VALUES(6, 9999, 0, 0, 0)", "DELETE FROM version",
		"UPDATE version SET time_s=-1", "UPDATE version SET time_s=999999999999999", "UPDATE version SET flags=-1",
		"UPDATE version_server SET seq=5", "UPDATE version_server SET server_s=-2",
		"UPDATE inode SET vfrom=4 WHERE ino=2", "UPDATE inode SET size=-1", "UPDATE inode SET mode=0644 WHERE ino=2",
		"UPDATE inode SET mode=1073775000 WHERE ino=2", "UPDATE inode SET uid=-1", "UPDATE inode SET gid=4294967296",
		"UPDATE inode SET mode=33188 WHERE ino=1", "UPDATE inode SET ino=0 WHERE ino=2", "UPDATE inode SET rdev=-1",
		"UPDATE inode SET nlink=-1", "UPDATE inode SET target=x'61' WHERE ino=2", "UPDATE inode SET target=NULL WHERE ino=7",
		"UPDATE inode SET target=x'6100' WHERE ino=7", "UPDATE inode SET target=zeroblob(5000) WHERE ino=7",
		"UPDATE inode SET xattrs=x'ff' WHERE ino=2", "UPDATE inode SET xattrs=x'000000000000' WHERE ino=2",
		"UPDATE inode SET xattrs=x'010061ffffffff' WHERE ino=2",
		"UPDATE inode SET xattrs=x'0100620000000001006100000000' WHERE ino=2",
		"UPDATE inode SET xattrs=x'0100610000000001006100000000' WHERE ino=2", "UPDATE inode SET xattrs=x'' WHERE ino=2",
		"UPDATE extent SET length=601 WHERE start=0", "UPDATE extent SET length=0", "UPDATE extent SET length=-5",
		"UPDATE extent SET length=16777217 WHERE start=600", "UPDATE extent SET start=-4096 WHERE start=0",
		"UPDATE extent SET start=9223372036854775800 WHERE start=600", "UPDATE extent SET skip=-1",
		"UPDATE extent SET skip=16777216", "UPDATE extent SET chunk=0", "INSERT INTO extent_end VALUES(2, -1)",
		"INSERT INTO inode_end VALUES(1)", "UPDATE chunk SET id=x'00'", "UPDATE chunk SET length=16777217",
		"UPDATE chunk SET length=0", "UPDATE chunk SET stored=-1", "UPDATE chunk SET stored=99999999999",
		"UPDATE chunk SET offset=-1", "UPDATE chunk SET codec=256", "UPDATE chunk SET dictionary=-1",
		"UPDATE chunk SET idx=-1", "UPDATE chunk SET num=-1", "UPDATE pack SET record=6", "UPDATE pack SET size=-1",
		"UPDATE pack SET salt=x'00'", "UPDATE pack SET hash=zeroblob(33)", "UPDATE pack SET id=zeroblob(15)",
		"UPDATE pin SET seq=6", "UPDATE pin SET seq=0", "UPDATE pin SET name='..'", "UPDATE pin SET name='a/b'",
		"UPDATE pin SET name=''", "INSERT INTO pin_end VALUES('a' || char(0) || 'b')",
	};
	uint64_t length;
	uint8_t *bytes = good_delta(&length);
	assert_int_equal(open_delta(bytes, length), 0);
	for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++)
		refuse_delta(bytes, length, attacks[i]);
	free(bytes);
}

static void test_hostile_schema(void **state)
{
	(void)state;
	static const char *const attacks[] = {
		"CREATE TABLE more(x)", "DROP TABLE pin_end", "CREATE INDEX i ON inode(size)", "ALTER TABLE inode RENAME TO inode2",
		"CREATE VIEW v AS SELECT 1", "CREATE TRIGGER t AFTER INSERT ON pin BEGIN SELECT 1; END",
		"ALTER TABLE chunk ADD COLUMN more INTEGER", "DROP TABLE inode; CREATE VIEW inode AS SELECT * FROM chunk",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql, 'STRICT', 'STRICT ') WHERE name='pack'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET name='pin2' WHERE name='pin'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET tbl_name='pin2' WHERE name='pin'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage=(SELECT rootpage FROM sqlite_schema WHERE name='chunk') "
		"WHERE name='pack'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage=9999 WHERE name='pack'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=NULL WHERE name='pin'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET type='view' WHERE name='pin'",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE TABLE pin(name, seq) -- junk' WHERE name='pin'",
		"PRAGMA journal_mode=WAL", "ANALYZE", "PRAGMA encoding='UTF-16'; DROP TABLE pin; CREATE TABLE pin(x)",
	};
	uint64_t length;
	uint8_t *bytes = good_delta(&length);
	for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++)
		refuse_delta(bytes, length, attacks[i]);
	free(bytes);
	/* another encoding altogether: names would be counted in other units */
	char path[96];
	sqlite3 *handle;
	struct stat st;
	static const char *const tables[] = SCHEMA_DELTA_TABLES;
	snprintf(path, sizeof(path), "%s/image", dir2);
	unlink(path);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "PRAGMA encoding='UTF-16'", NULL, NULL, NULL), SQLITE_OK);
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		assert_int_equal(sqlite3_exec(handle, tables[i], NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "INSERT INTO version VALUES(5, 1, 1, 1, 0)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
	assert_int_equal(stat(path, &st), 0);
	bytes = bytes_of(open(path, O_RDONLY), (uint64_t)st.st_size);
	assert_int_equal(open_delta(bytes, (uint64_t)st.st_size), ERR_CORRUPT);
	free(bytes);
}

static void test_hostile_bytes(void **state)
{
	(void)state;
	uint64_t length;
	uint8_t *bytes = good_delta(&length);
	unsigned seed = 1;
	struct delta *delta;
	int refused = 0;
	static const uint64_t cuts[] = {0, 1, 99, 100, 4095, 4096};
	for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++)
		assert_int_equal(open_delta(bytes, cuts[i]), ERR_CORRUPT);
	assert_int_equal(open_delta(bytes, length - 4096), ERR_CORRUPT);
	assert_int_equal(delta_from_image(fd_of(bytes, length), length + 4096, 5, dir2, &delta, &error), ERR_CORRUPT);
	assert_int_equal(delta_from_image(fd_of(bytes, length), length, 6, dir2, &delta, &error), ERR_CORRUPT);
	/* Flipped bits either are refused or leave an image whose every row is allowed; nothing crashes. */
	for (int round = 0; round < 1500; round++) {
		uint8_t *bad = malloc(length);
		memcpy(bad, bytes, length);
		uint64_t page = (uint64_t)rand_r(&seed) % (length / 4096) * 4096;
		for (int i = 1 + rand_r(&seed) % 3; i > 0; i--) {
			/* headers and cell pointers at the front, cells at the end of a page */
			uint64_t at = page + (uint64_t)(rand_r(&seed) & 1 ? rand_r(&seed) % 128 : 4095 - rand_r(&seed) % 200);
			bad[at] ^= (uint8_t)(1 << rand_r(&seed) % 8);
		}
		int rc = delta_from_image(fd_of(bad, length), length, 5, dir2, &delta, &error);
		if (rc == 0) {
			struct version_row version;
			assert_int_equal(delta_get_version(delta, &version, &error), 0);
			delta_free(delta);
		} else {
			assert_int_equal(rc, ERR_CORRUPT);
			refused++;
		}
		free(bad);
	}
	print_message("%d of 1500 refused\n", refused);
	assert_true(refused > 100);
	free(bytes);
}

static int import(const uint8_t *bytes, uint64_t length)
{
	struct db *other;
	char path[96];
	snprintf(path, sizeof(path), "%s/volume.db", dir2);
	OK(db_open(dir2, true, &other, &error));
	int rc = catalogue_import(other, fd_of(bytes, length), length, 3, dir2, &error);
	struct db_conn *conn;
	struct version_row row;
	struct error ignored;
	OK(db_read_begin(other, &conn, &ignored));
	assert_int_equal(catalogue_version_newest(conn, true, &row), rc ? ERR_ABSENT : 0); /* all or nothing */
	db_read_end(other, conn);
	db_close(other);
	unlink(path);
	return rc;
}

static void test_hostile_checkpoint(void **state)
{
	(void)state;
	static const char *const attacks[] = {
		"UPDATE name_past SET fork=fork+1", "UPDATE extent_past SET fork=fork-1", "UPDATE name_past SET vto=4",
		"UPDATE name_past SET vto=vfrom", "UPDATE name_past SET vfrom=0", "UPDATE name SET vfrom=4 WHERE name=x'64'",
		"UPDATE name_past SET name=CAST('..' AS BLOB)", "INSERT INTO name_past SELECT * FROM name_past",
		"UPDATE inode_past SET vto=vfrom", "UPDATE inode_past SET size=-1", "UPDATE extent_past SET length=0",
		"DELETE FROM version WHERE seq=3", "INSERT INTO version VALUES(4, 99999, 0, 0, 0)",
		"UPDATE version SET time_s=5 WHERE seq=2", "UPDATE version SET time_s=(SELECT time_s FROM version WHERE seq=1) WHERE seq=2",
		"INSERT INTO name VALUES(4, x'6c', 3, 3)", "UPDATE pack SET vfrom=4", "CREATE TABLE local_inode(x)",
		"INSERT INTO extent SELECT ino, start+1, vfrom, length, chunk, skip FROM extent",
	};
	int fd;
	uint64_t length, new_length;
	first_version();
	struct delta *delta = start(2);
	OK(delta_add_name_end(delta, 1, "file", 4, &error));
	inode(delta, 2, S_IFREG | 0600);
	extent(delta, 2, 0, 900);
	OK(apply(delta));
	OK(apply(start(3)));
	OK(catalogue_export(db, 3, dir, &fd, &length, &error));
	uint8_t *bytes = bytes_of(fd, length);
	OK(import(bytes, length));
	for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		uint8_t *bad = tampered(bytes, length, attacks[i], &new_length);
		int rc = import(bad, new_length);
		if (rc != ERR_CORRUPT)
			fail_msg("%s: %d %s", attacks[i], rc, rc ? error.message : "accepted");
		free(bad);
	}
	assert_int_equal(catalogue_import(db, fd_of(bytes, length), length, 3, dir, &error), ERR_EXISTS);
	free(bytes);
}

static void test_checkpoint_is_clean(void **state) /* I18: nothing local, and no damage is exported */
{
	(void)state;
	int fd;
	uint64_t length;
	struct db_conn *conn;
	first_version();
	OK(db_begin(db, false, &conn, &error));
	OK(db_meta_set_blob(conn, "secret", "LOCAL SECRET", 12, &error));
	OK(catalogue_local_set(conn, "LOCAL KEY", 9, &(struct local_row){.ino = 2}, &error));
	OK(db_commit(db, &error));
	OK(catalogue_export(db, 1, dir, &fd, &length, &error));
	uint8_t *bytes = bytes_of(fd, length);
	assert_null(memmem(bytes, length, "LOCAL", 5));
	assert_non_null(memmem(bytes, length, "file", 4));
	free(bytes);
	OK(db_begin(db, false, &conn, &error));
	OK(db_exec(conn, "UPDATE name SET name=CAST('..' AS BLOB) WHERE ino=2", &error));
	OK(db_commit(db, &error));
	assert_int_equal(catalogue_export(db, 1, dir, &fd, &length, &error), ERR_CORRUPT);
	assert_int_equal(fd, -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_order_of_versions), TEST(test_overlaps_refused), TEST(test_last_call_counts),
		TEST(test_directory_keeps_one_name), TEST(test_numbers_not_reused), TEST(test_unusable), TEST(test_ten_thousand),
		TEST(test_hostile_rows), TEST(test_hostile_schema), TEST(test_hostile_bytes), TEST(test_hostile_checkpoint),
		TEST(test_checkpoint_is_clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
