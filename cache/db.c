#include "db_internal.h"
#include "db_schema.h"
#include "failpoint.h"
#include "io.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READERS_KEPT 8
#define CHECK_AT_OPEN_BYTES (64 << 20) /* a quick_check of this much takes a tenth of a second */
#define TIDY_PAGES 1024                /* 4 MiB of WAL */
#define TIDY_HARD_PAGES (16 * TIDY_PAGES)

/* Who asked first writes first: a mutex may be taken again and again by one thread that has much to write, slice by slice, while an fsync waits for its row. */
struct queue {
	pthread_mutex_t mutex;
	pthread_cond_t moved;
	uint64_t next, served; /* mutex */
};

struct db {
	char *path;
	bool unchecked;
	atomic_bool damaged;
	struct queue write_lock;
	struct db_conn *writer; /* write_lock; NULL: opened for reading only */
	bool full;              /* write_lock: its synchronous is FULL */
	int wal_pages;          /* write_lock: as of the last commit */
	pthread_mutex_t pool_lock;
	struct db_conn *idle[READERS_KEPT]; /* pool_lock */
	int idle_count;                     /* pool_lock */
};

/* --- The write lock --- */

static void queue_enter(struct queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	for (uint64_t mine = queue->next++; mine != queue->served;)
		pthread_cond_wait(&queue->moved, &queue->mutex);
	pthread_mutex_unlock(&queue->mutex);
}

static void queue_leave(struct queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	queue->served++;
	pthread_cond_broadcast(&queue->moved);
	pthread_mutex_unlock(&queue->mutex);
}

/* --- Open and close --- */

/* Makes the file with the right mode before SQLite does, or checks the mode of what is there. */
static int file_prepare(const char *path, bool create, struct error *error)
{
	struct stat st;

	if (stat(path, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			return error_set(error, ERR_CORRUPT, 0, "%s: not a regular file", path);
		if (st.st_mode & 077)
			return error_set(error, ERR_DENIED, 0, "%s: others may open it; chmod 600 it after a look at who did", path);
		return 0;
	}
	if (errno != ENOENT || !create)
		return error_errno(error, errno, "%s", path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(error, errno, "%s", path);
	close(fd);
	return 0;
}

/* After db_close there is no WAL. */
static bool closed_cleanly(const char *path)
{
	struct stat st;
	char *wal = io_printf("%s-wal", path);
	bool clean = wal && stat(wal, &st) != 0 && errno == ENOENT;

	free(wal);
	return clean;
}

static int on_wal(void *context, sqlite3 *handle, const char *name, int pages)
{
	struct db *db = context;

	(void)handle, (void)name;
	db->wal_pages = pages;
	return SQLITE_OK;
}

static int check(struct db_conn *conn, const char *path, const char *sql, struct error *error)
{
	int rc = db_step(conn, error, sql, "");

	if (rc < 0)
		return rc;
	const char *text = rc ? (const char *)sqlite3_column_text(db_last(conn), 0) : NULL;
	rc = text && strcmp(text, "ok") == 0 ? 0 : error_set(error, ERR_CORRUPT, 0, "%s: damaged: %s", path, text ? text : "");
	db_reset(db_last(conn));
	return rc;
}

static int writer_open(struct db *db, struct error *error)
{
	int rc = db_conn_open(db->path, SQLITE_OPEN_READWRITE, NULL, &db->writer, error);

	if (rc)
		return rc;
	db_conn_watch(db->writer, &db->damaged);
	rc = db_step(db->writer, error, "PRAGMA journal_mode=WAL", "");
	if (rc < 0)
		return rc;
	bool wal = rc && strcmp((const char *)sqlite3_column_text(db_last(db->writer), 0), "wal") == 0;
	db_reset(db_last(db->writer));
	if (!wal)
		return error_set(error, ERR_UNSUPPORTED, 0, "%s: no write-ahead log on this filesystem; use a local disk", db->path);
	rc = db_exec(db->writer,
		     "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384; "
		     "PRAGMA journal_size_limit=67108864",
		     error);
	if (rc)
		return rc;
	db->full = true;
	sqlite3_wal_hook(db_handle(db->writer), on_wal, db);
	return 0;
}

static int db_new(const char *state_path, bool create, struct db **out, struct error *error)
{
	struct db *db = calloc(1, sizeof(*db));

	*out = db;
	if (!db)
		return error_errno(error, ENOMEM, "%s", state_path);
	pthread_mutex_init(&db->write_lock.mutex, NULL);
	pthread_cond_init(&db->write_lock.moved, NULL);
	pthread_mutex_init(&db->pool_lock, NULL);
	db->path = io_printf("%s/volume.db", state_path);
	if (!db->path)
		return error_errno(error, ENOMEM, "%s", state_path);
	return file_prepare(db->path, create, error);
}

int db_open_reader(const char *state_path, struct db **out, struct error *error)
{
	struct db *db;
	struct db_conn *conn;
	int64_t version;
	int rc = db_new(state_path, false, &db, error);

	*out = NULL;
	if (!rc)
		rc = db_read_begin(db, &conn, error);
	if (!rc) {
		rc = db_schema_version(conn, db->path, &version, error);
		if (!rc && version != db_schema_newest())
			rc = error_set(error, ERR_UNSUPPORTED, 0, "%s: of an older yester; mount the volume once", db->path);
		db_read_end(db, conn);
	}
	if (rc)
		db_close(db);
	else
		*out = db;
	return rc;
}

int db_open(const char *state_path, bool create, struct db **out, struct error *error)
{
	struct db *db;
	struct stat st;
	int rc = db_new(state_path, create, &db, error);

	*out = NULL;
	if (rc)
		goto out;
	bool clean = closed_cleanly(db->path);
	rc = writer_open(db, error);
	if (!rc)
		rc = db_schema_bring_up(db->writer, db->path, error);
	if (rc)
		goto out;
	db->unchecked = clean && stat(db->path, &st) == 0 && st.st_size > CHECK_AT_OPEN_BYTES;
	if (!db->unchecked)
		rc = check(db->writer, db->path, "PRAGMA quick_check(1)", error);
out:
	if (rc)
		db_close(db);
	else
		*out = db;
	return rc;
}

const char *db_path(const struct db *db) { return db->path; }

bool db_unchecked(const struct db *db) { return db->unchecked; }

bool db_damaged(const struct db *db) { return atomic_load(&db->damaged); }

void db_close(struct db *db)
{
	if (!db)
		return;
	for (int i = 0; i < db->idle_count; i++)
		db_conn_close(db->idle[i]);
	db_conn_close(db->writer); /* the last connection checkpoints and removes the WAL */
	pthread_mutex_destroy(&db->pool_lock);
	pthread_cond_destroy(&db->write_lock.moved);
	pthread_mutex_destroy(&db->write_lock.mutex);
	free(db->path);
	free(db);
}

/* --- Writing --- */

int db_begin(struct db *db, bool durable, struct db_conn **out, struct error *error)
{
	int rc = 0;

	*out = NULL;
	if (!db->writer)
		return error_set(error, ERR_DENIED, 0, "%s: open for reading only", db->path);
	queue_enter(&db->write_lock);
	if (durable != db->full) { /* has no effect once a transaction has begun */
		rc = db_exec(db->writer, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", error);
		if (!rc)
			db->full = durable;
	}
	if (!rc)
		rc = db_step(db->writer, error, "BEGIN IMMEDIATE", "");
	if (rc) {
		queue_leave(&db->write_lock);
		return rc;
	}
	*out = db->writer;
	return 0;
}

static void roll_back_locked(struct db *db)
{
	db_conn_reset_all(db->writer);
	if (!sqlite3_get_autocommit(db_handle(db->writer))) /* SQLite may have rolled back by itself */
		db_step(db->writer, NULL, "ROLLBACK", "");
}

/* A commit that changes nothing writes nothing and syncs nothing, not even what an earlier commit left to the kernel; and a row put where the same one is does
 * not count as a change (sqlite3BtreeInsert, btreeOverwriteContent in SQLite's btree.c). */
static int change_something(struct db *db, struct error *error)
{
	return db_step(db->writer, error,
		       "INSERT INTO meta(name, value) VALUES('durable', 1) ON CONFLICT(name) DO UPDATE SET value = value + 1", "");
}

int db_commit(struct db *db, struct error *error)
{
	int rc = 0;

	db_conn_reset_all(db->writer);
	FAILPOINT("db/before-commit");
	if (sqlite3_get_autocommit(db_handle(db->writer)))
		rc = error_set(error, ERR_FAILED, 0, "%s: the transaction was rolled back by an earlier failure", db->path);
	else if (db->full)
		rc = change_something(db, error);
	if (!rc)
		rc = db_step(db->writer, error, "COMMIT", "");
	if (rc)
		roll_back_locked(db);
	else
		FAILPOINT("db/after-commit");
	queue_leave(&db->write_lock);
	return rc;
}

void db_rollback(struct db *db)
{
	roll_back_locked(db);
	queue_leave(&db->write_lock);
}

void db_tidy(struct db *db)
{
	int result = SQLITE_OK;

	if (!db->writer)
		return;
	queue_enter(&db->write_lock);
	if (db->wal_pages >= TIDY_PAGES) {
		/* A WAL that readers kept from shrinking for long: wait for them (busy_timeout), so that it begins anew. */
		int mode = db->wal_pages >= TIDY_HARD_PAGES ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE;
		int pages = 0, done = 0;
		result = sqlite3_wal_checkpoint_v2(db_handle(db->writer), NULL, mode, &pages, &done);
		if (result == SQLITE_OK && pages == done)
			db->wal_pages = 0;
	}
	queue_leave(&db->write_lock);
	if (result != SQLITE_OK && result != SQLITE_BUSY)
		log_warn("%s: WAL checkpoint: %s; tried again after the next change", db->path, sqlite3_errstr(result));
}

/* --- Reading --- */

static int reader_open(struct db *db, struct db_conn **out, struct error *error)
{
	int rc = db_conn_open(db->path, SQLITE_OPEN_READWRITE, NULL, out, error);

	if (rc == ERR_CORRUPT)
		atomic_store(&db->damaged, true);
	if (rc)
		return rc;
	db_conn_watch(*out, &db->damaged);
	sqlite3_db_config(db_handle(*out), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	rc = db_exec(*out, "PRAGMA query_only=ON; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-4096", error);
	if (rc) {
		db_conn_close(*out);
		*out = NULL;
	}
	return rc;
}

int db_read_begin(struct db *db, struct db_conn **out, struct error *error)
{
	struct db_conn *conn = NULL;
	int64_t ignored;
	int rc = 0;

	*out = NULL;
	pthread_mutex_lock(&db->pool_lock);
	if (db->idle_count)
		conn = db->idle[--db->idle_count];
	pthread_mutex_unlock(&db->pool_lock);
	if (!conn)
		rc = reader_open(db, &conn, error);
	if (!rc)
		rc = db_step(conn, error, "BEGIN", "");
	if (!rc) /* BEGIN alone takes no snapshot */
		rc = db_pragma_int(conn, "SELECT 1 FROM sqlite_schema LIMIT 1", &ignored, error);
	if (rc) {
		db_conn_close(conn);
		return rc;
	}
	*out = conn;
	return 0;
}

void db_read_end(struct db *db, struct db_conn *conn)
{
	if (!conn)
		return;
	db_conn_reset_all(conn);
	if (db_step(conn, NULL, "COMMIT", "") != 0) {
		db_conn_close(conn);
		return;
	}
	pthread_mutex_lock(&db->pool_lock);
	bool keep = db->idle_count < READERS_KEPT;
	if (keep)
		db->idle[db->idle_count++] = conn;
	pthread_mutex_unlock(&db->pool_lock);
	if (!keep)
		db_conn_close(conn);
}

static int check_on_reader(struct db *db, const char *sql, struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	rc = check(conn, db->path, sql, error);
	if (rc == ERR_CORRUPT)
		atomic_store(&db->damaged, true);
	db_read_end(db, conn);
	return rc;
}

int db_quick_check(struct db *db, struct error *error)
{
	return check_on_reader(db, "PRAGMA quick_check(1)", error);
}

int db_integrity_check(struct db *db, struct error *error)
{
	return check_on_reader(db, "PRAGMA integrity_check(1)", error);
}
