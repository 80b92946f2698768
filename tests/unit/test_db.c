/* The database: opening, refusing, transactions, readers. */
#include "catalogue_schema.h"
#include "db.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], path[96], wal[96];
static struct error error;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test_db-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/volume.db", dir);
	snprintf(wal, sizeof(wal), "%s/volume.db-wal", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char shm[96];
	snprintf(shm, sizeof(shm), "%s/volume.db-shm", dir);
	unlink(path);
	unlink(wal);
	unlink(shm);
	return rmdir(dir);
}

static void set(struct db *db, const char *name, int64_t value)
{
	struct db_conn *conn;
	assert_int_equal(db_begin(db, true, &conn, &error), 0);
	assert_int_equal(db_meta_set_int(conn, name, value, &error), 0);
	assert_int_equal(db_commit(db, &error), 0);
}

static int64_t get(struct db *db, const char *name)
{
	struct db_conn *conn;
	assert_int_equal(db_read_begin(db, &conn, &error), 0);
	int64_t value = db_meta_int(conn, name, -1);
	db_read_end(db, conn);
	return value;
}

static void test_open(void **state)
{
	(void)state;
	struct db *db;
	struct stat st;
	assert_int_equal(db_open(dir, false, &db, &error), ERR_ABSENT);
	assert_null(db);
	assert_int_equal(db_open_reader(dir, &db, &error), ERR_ABSENT);
	mode_t mask = umask(0);
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	umask(mask);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	set(db, "head", 17);
	assert_int_equal(stat(wal, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_false(db_unchecked(db));
	db_close(db);
	assert_int_equal(stat(wal, &st), -1);
	assert_int_equal(db_open(dir, false, &db, &error), 0);
	assert_int_equal(get(db, "head"), 17);
	assert_int_equal(db_integrity_check(db, &error), 0);
	assert_int_equal(db_quick_check(db, &error), 0);
	db_close(db);
	db_close(NULL);
	assert_int_equal(chmod(path, 0640), 0); /* fault 49 */
	assert_int_equal(db_open(dir, true, &db, &error), ERR_DENIED);
	assert_int_equal(chmod(path, 0600), 0);
}

static void foreign(const char *sql)
{
	sqlite3 *handle;
	unlink(path);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
	assert_int_equal(chmod(path, 0600), 0);
}

static void test_refused(void **state)
{
	(void)state;
	struct db *db;
	foreign("CREATE TABLE other(x)");
	assert_int_equal(db_open(dir, true, &db, &error), ERR_CORRUPT);
	foreign("PRAGMA user_version=1; CREATE TABLE other(x)");
	assert_int_equal(db_open(dir, true, &db, &error), ERR_CORRUPT);
	foreign("PRAGMA user_version=-1; PRAGMA application_id=1498633298");
	assert_int_equal(db_open(dir, true, &db, &error), ERR_CORRUPT);
	foreign("PRAGMA user_version=99; PRAGMA application_id=1498633298; CREATE TABLE meta(x)");
	assert_int_equal(db_open(dir, true, &db, &error), ERR_UNSUPPORTED);
	assert_int_equal(db_open_reader(dir, &db, &error), ERR_UNSUPPORTED);
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	char junk[8192];
	memset(junk, 'j', sizeof(junk));
	assert_int_equal(write(fd, junk, sizeof(junk)), (ssize_t)sizeof(junk));
	close(fd);
	assert_int_equal(db_open(dir, true, &db, &error), ERR_CORRUPT);
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(db_open(dir, true, &db, &error), ERR_CORRUPT);
	assert_int_equal(rmdir(path), 0);
}

static int64_t pragma(sqlite3 *handle, const char *text)
{
	sqlite3_stmt *stmt;
	assert_int_equal(sqlite3_prepare_v2(handle, text, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return value;
}

/* As the first release left it. */
static void test_migration(void **state)
{
	(void)state;
	struct db *db;
	sqlite3 *handle;
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	set(db, "head", 17);
	db_close(db);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "DROP TABLE suspect; ALTER TABLE backlog_inode DROP COLUMN unreadable; "
					  "ALTER TABLE backlog_name DROP COLUMN unreadable; PRAGMA user_version=1", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
	assert_int_equal(db_open_reader(dir, &db, &error), ERR_UNSUPPORTED);
	assert_int_equal(db_open(dir, false, &db, &error), 0);
	assert_int_equal(get(db, "head"), 17);
	db_close(db);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(pragma(handle, "PRAGMA user_version"), 3);
	assert_int_equal(pragma(handle, "SELECT count(*) FROM suspect"), 0);
	assert_int_equal(pragma(handle, "SELECT count(unreadable) FROM backlog_inode"), 0);
	sqlite3_close(handle);
}

static void test_damage(void **state) /* fault 20 */
{
	(void)state;
	struct db *db;
	struct db_conn *conn;
	struct stat st;
	char zeros[4096] = {0};
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_begin(db, true, &conn, &error), 0);
	for (int64_t i = 0; i < 5000; i++)
		assert_int_equal(db_step(conn, &error, "INSERT INTO name VALUES(1, ?, 1, 2)", "b", &i, sizeof(i)), 0);
	assert_int_equal(db_commit(db, &error), 0);
	db_close(db);
	assert_int_equal(stat(path, &st), 0);
	int fd = open(path, O_WRONLY);
	for (off_t at = st.st_size / 2 & ~4095; at < st.st_size; at += 4096)
		assert_int_equal(pwrite(fd, zeros, sizeof(zeros), at), (ssize_t)sizeof(zeros));
	close(fd);
	assert_int_equal(db_open(dir, false, &db, &error), ERR_CORRUPT);
	assert_non_null(strstr(error.message, path));
}

static void test_transactions(void **state)
{
	(void)state;
	struct db *db;
	struct db_conn *conn, *reader;
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	set(db, "x", 1);
	assert_int_equal(db_read_begin(db, &reader, &error), 0);
	/* The reader keeps the state of its beginning. */
	set(db, "x", 2);
	assert_int_equal(db_meta_int(reader, "x", -1), 1);
	assert_true(db_meta_set_int(reader, "x", 9, &error) < 0);
	db_read_end(db, reader);
	assert_int_equal(get(db, "x"), 2);
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	assert_int_equal(db_meta_set_int(conn, "x", 3, &error), 0);
	assert_int_equal(db_meta_int(conn, "x", -1), 3);
	db_rollback(db);
	assert_int_equal(get(db, "x"), 2);
	/* synchronous is per transaction: a PRAGMA inside one would do nothing */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(db_begin(db, i & 1, &conn, &error), 0);
		assert_int_equal(db_step(conn, &error, "PRAGMA synchronous", ""), 1);
		assert_int_equal(sqlite3_column_int(db_last(conn), 0), i & 1 ? 2 : 1);
		db_reset(db_last(conn));
		assert_int_equal(db_commit(db, &error), 0);
	}
	/* A statement left in the middle of its rows must not keep the transaction. */
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	assert_int_equal(db_meta_set_int(conn, "y", 3, &error), 0);
	assert_int_equal(db_step(conn, &error, "SELECT name FROM meta", ""), 1);
	assert_int_equal(db_commit(db, &error), 0);
	assert_int_equal(get(db, "y"), 3);
	db_close(db);
}

static off_t wal_bytes(void)
{
	struct stat st;

	assert_int_equal(stat(wal, &st), 0);
	return st.st_size;
}

/* I9: what was committed without a sync is on disk after a durable commit, even of one that brings the same row again: SQLite must have something to write,
 * or it does not sync. */
static void test_durable_commit_of_nothing(void **state)
{
	struct db_conn *conn;
	struct db *db;
	off_t before;

	(void)state;
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	assert_int_equal(db_meta_set_int(conn, "row", 5, &error), 0);
	assert_int_equal(db_commit(db, &error), 0);
	for (int i = 0; i < 2; i++) {
		before = wal_bytes();
		assert_int_equal(db_begin(db, true, &conn, &error), 0);
		if (i == 0)
			assert_int_equal(db_step(conn, &error, "INSERT INTO meta(name, value) VALUES('row', 5) ON CONFLICT(name) DO UPDATE SET value=5", ""), 0);
		assert_int_equal(db_commit(db, &error), 0);
		assert_true(wal_bytes() > before);
	}
	db_close(db);
}

static void test_values(void **state)
{
	(void)state;
	struct db *db;
	struct db_conn *conn;
	uint8_t hash[32] = {1, 2, 3}, got[32];
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	assert_int_equal(db_meta_blob(conn, "hash", got, 32), ERR_ABSENT);
	assert_int_equal(db_meta_set_blob(conn, "hash", hash, 32, &error), 0);
	assert_int_equal(db_meta_blob(conn, "hash", got, 32), 0);
	assert_memory_equal(hash, got, 32);
	assert_int_equal(db_meta_blob(conn, "hash", got, 31), ERR_ABSENT);
	assert_int_equal(db_meta_int(conn, "hash", 5), 5);
	assert_int_equal(db_step(conn, &error, "SELECT ?, ?, ?, ?, ?, ?", "ibnntN", INT64_MIN, NULL, (size_t)0, NULL, (size_t)0,
				 "", (size_t)0, "text"), 1);
	struct sqlite3_stmt *row = db_last(conn);
	assert_true(sqlite3_column_int64(row, 0) == INT64_MIN);
	static const int types[] = {SQLITE_INTEGER, SQLITE_BLOB, SQLITE_NULL, SQLITE_BLOB, SQLITE_TEXT, SQLITE_NULL};
	for (int i = 0; i < 6; i++)
		assert_int_equal(sqlite3_column_type(row, i), types[i]);
	assert_int_equal(db_next(conn, row, &error), 0);
	assert_true(db_step(conn, &error, "SELECT nonsense", "") < 0);
	assert_true(db_step(conn, &error, "SELECT ?", "?") < 0);
	assert_true(db_step(conn, &error, "INSERT INTO meta VALUES(NULL, 1)", "") < 0);
	db_rollback(db);
	db_close(db);
}

static void test_many_statements(void **state)
{
	(void)state;
	struct db *db;
	struct db_conn *conn;
	static char texts[300][32];
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	assert_int_equal(db_begin(db, false, &conn, &error), 0);
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 300; i++) {
			snprintf(texts[i], sizeof(texts[i]), "SELECT %d", i);
			assert_int_equal(db_step(conn, &error, texts[i], ""), 1);
			assert_int_equal(sqlite3_column_int(db_last(conn), 0), i);
			db_reset(db_last(conn));
		}
	db_rollback(db);
	db_close(db);
}

static struct db *shared;

static void *writer(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		struct db_conn *conn;
		if (db_begin(shared, false, &conn, NULL))
			return (void *)1;
		if (db_meta_set_int(conn, "a", db_meta_int(conn, "a", 0) + 1, NULL) ||
		    db_meta_set_int(conn, "b", db_meta_int(conn, "b", 0) + 1, NULL) || db_commit(shared, NULL))
			return (void *)1;
		db_tidy(shared);
	}
	return NULL;
}

static void *reader(void *arg)
{
	(void)arg;
	for (int i = 0; i < 300; i++) {
		struct db_conn *conn;
		if (db_read_begin(shared, &conn, NULL))
			return (void *)1;
		int64_t a = db_meta_int(conn, "a", 0), b = db_meta_int(conn, "b", 0);
		db_read_end(shared, conn);
		if (a != b)
			return (void *)1;
	}
	return NULL;
}

static void test_threads(void **state) /* I11 */
{
	(void)state;
	pthread_t threads[16];
	assert_int_equal(db_open(dir, true, &shared, &error), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i < 4 ? writer : reader, NULL), 0);
	for (int i = 0; i < 16; i++) {
		void *result;
		pthread_join(threads[i], &result);
		assert_null(result);
	}
	assert_int_equal(get(shared, "a"), 400);
	db_close(shared);
}

static void test_tidy(void **state)
{
	(void)state;
	struct db *db;
	struct db_conn *conn;
	struct stat before, after;
	char page[3000];
	memset(page, 'p', sizeof(page));
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	for (int64_t round = 0; round < 4; round++) {
		assert_int_equal(db_begin(db, false, &conn, &error), 0);
		for (int64_t i = 0; i < 2000; i++)
			assert_int_equal(db_step(conn, &error, "INSERT OR REPLACE INTO meta VALUES(CAST(? AS TEXT), ?)", "ib", i,
						 page, sizeof(page)), 0);
		assert_int_equal(db_commit(db, &error), 0);
		if (round == 0) {
			assert_int_equal(stat(path, &before), 0);
			assert_true(before.st_size < 2000 * 3000); /* wal_autocheckpoint is off */
		}
		db_tidy(db);
	}
	assert_int_equal(stat(path, &after), 0);
	assert_true(after.st_size > 2000 * 3000);
	assert_int_equal(stat(wal, &after), 0);
	assert_true(after.st_size < 2 * 2000 * 4200); /* begun anew each round */
	db_close(db);
}

static void test_kill(void **state) /* a commit survives SIGKILL, what was not committed does not */
{
	(void)state;
	struct db *db;
	pid_t child = fork(); /* nothing is open here */
	assert_true(child >= 0);
	if (child == 0) {
		struct db_conn *conn;
		if (db_open(dir, true, &db, NULL) || db_begin(db, false, &conn, NULL) || db_meta_set_int(conn, "x", 1, NULL) ||
		    db_commit(db, NULL) || db_begin(db, true, &conn, NULL) || db_meta_set_int(conn, "x", 2, NULL))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(db_open(dir, false, &db, &error), 0);
	assert_int_equal(get(db, "x"), 1);
	db_close(db);
}

static void test_second_process_reads(void **state)
{
	(void)state;
	struct db *db;
	int to_child[2], to_parent[2], status;
	char byte;
	assert_int_equal(pipe(to_child) | pipe(to_parent), 0);
	pid_t child = fork();
	if (child == 0) {
		struct db *seen;
		struct db_conn *conn;
		if (read(to_child[0], &byte, 1) != 1 || db_open_reader(dir, &seen, NULL))
			_exit(1);
		if (get(seen, "x") != 5 || db_begin(seen, false, &conn, NULL) != ERR_DENIED)
			_exit(2);
		db_tidy(seen);
		db_close(seen);
		if (write(to_parent[1], "k", 1) != 1)
			_exit(3);
		_exit(0);
	}
	assert_int_equal(db_open(dir, true, &db, &error), 0);
	set(db, "x", 5);
	assert_int_equal(write(to_child[1], "g", 1), 1);
	close(to_parent[1]);
	assert_int_equal(read(to_parent[0], &byte, 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	set(db, "x", 6);
	assert_int_equal(get(db, "x"), 6);
	db_close(db);
	close(to_child[0]), close(to_child[1]), close(to_parent[0]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_open), TEST(test_refused), TEST(test_migration), TEST(test_damage), TEST(test_transactions),
		TEST(test_durable_commit_of_nothing), TEST(test_values),
		TEST(test_many_statements), TEST(test_threads), TEST(test_tidy), TEST(test_kill), TEST(test_second_process_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
