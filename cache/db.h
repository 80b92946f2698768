/* db: the one database of a volume ($STATE/NAME/volume.db), SQLite in WAL mode.
 *
 * One connection writes (I11); it belongs to whoever holds the write lock (db_begin .. db_commit / db_rollback). WAL checkpoints are
 * made by it alone, with wal_autocheckpoint = 0 (SQLite 3.7.0-3.51.2 can corrupt a database whose WAL two connections write or
 * checkpoint at once). Others read through connections of a pool, briefly: a reader that stays open starves the checkpoint.
 *
 * Files: db.c opening, transactions, WAL; db_schema.c (db_schema.h) migrations; db_meta.c the table meta; db_conn.c connections and statements (db_internal.h).
 *
 * Statements are prepared once per connection and found again by their text's address (`db_prepare` with a string literal). */
#ifndef YESTER_DB_H
#define YESTER_DB_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct db;
struct db_conn; /* one SQLite connection */
struct sqlite3;
struct sqlite3_stmt;

/* Opens or creates STATE_PATH/volume.db (0600) with tables and indexes (catalogue_schema.h). ERR_CORRUPT: damaged or foreign (the caller
 * sets the file aside); ERR_UNSUPPORTED: written by a newer yester; ERR_DENIED: others may read or write it. `create` false: ERR_ABSENT when
 * there is none. quick_check runs here when the last use did not end with db_close or the file is small; a large, cleanly closed one is left
 * to db_quick_check, so that a mount need not wait for it: see db_unchecked. */
int db_open(const char *state_path, bool create, struct db **out, struct error *error);
/* Beside a process that has it open for writing: readers only (db_begin is ERR_DENIED), nothing is created or checked. ERR_ABSENT, ERR_CORRUPT,
 * ERR_UNSUPPORTED, ERR_DENIED. */
int db_open_reader(const char *state_path, struct db **out, struct error *error);
/* True when db_open left the quick_check to the caller. */
bool db_unchecked(const struct db *db);
/* PRAGMA quick_check on a reader; any thread, seconds for a large database. ERR_CORRUPT with its first line. */
int db_quick_check(struct db *db, struct error *error);
/* True once SQLite, or one of the checks, has met with damage since db_open: whatever else is read from it may be wrong. Any thread. */
bool db_damaged(const struct db *db);
/* Makes a last WAL checkpoint. NULL is fine. No reader or writer may be active. */
void db_close(struct db *db);

/* --- Writing: takes the write lock (who comes first has it first), begins IMMEDIATE. durable: synchronous=FULL, the commit survives a power cut, and all earlier ones
 * do; else NORMAL, it survives a kill. Blocks while another thread writes; no other lock may be held except as the lock order in cache.h allows. */
int db_begin(struct db *db, bool durable, struct db_conn **out, struct error *error);
int db_commit(struct db *db, struct error *error); /* on failure: rolled back; the lock is given back in any case */
void db_rollback(struct db *db);

/* --- Reading: a connection from the pool, inside a read transaction: the state as of this call until db_read_end. */
int db_read_begin(struct db *db, struct db_conn **out, struct error *error);
void db_read_end(struct db *db, struct db_conn *conn);

/* --- Statements. `sql` must be a string literal (kept by address). The statement is reset and its bindings cleared, so a loop over its rows must
 * not come back to it. NULL on error. */
struct sqlite3_stmt *db_prepare(struct db_conn *conn, const char *sql, struct error *error);
/* Binds by a format: i int64_t, b (const void *, size_t) blob, n (const void *, size_t) blob or NULL when pointer is NULL, t const char * text
 * (NULL: null), N null; then steps. Arguments are not promoted: cast a plain int to int64_t. Bytes are copied.
 * 1: a row is there (read it with sqlite3_column_*, then db_reset); 0: done (already reset); negative: enum err. */
int db_step(struct db_conn *conn, struct error *error, const char *sql, const char *format, ...);
/* Next row of the same statement: 1, 0 (and reset), negative. */
int db_next(struct db_conn *conn, struct sqlite3_stmt *stmt, struct error *error);
struct sqlite3_stmt *db_last(struct db_conn *conn); /* the statement that db_step used last on this connection */
void db_reset(struct sqlite3_stmt *stmt);
/* Runs statements without results. */
int db_exec(struct db_conn *conn, const char *sql, struct error *error);
struct sqlite3 *db_handle(struct db_conn *conn); /* catalogue, delta, checkpoint only */
/* SQLite's last error on conn into *error; ERR_NOSPACE for SQLITE_FULL, ERR_CORRUPT for SQLITE_CORRUPT/NOTADB, ERR_NOMEM, ERR_BUSY, else
 * ERR_FAILED. */
int db_error(struct db_conn *conn, struct error *error, const char *what);

/* --- meta table. Absent (or unreadable): `otherwise` / ERR_ABSENT. */
int64_t db_meta_int(struct db_conn *conn, const char *name, int64_t otherwise);
/* For whoever throws away or overwrites by it: 0 when it is there, or surely absent (*out is `otherwise`), enum err when it can't be read. */
int db_meta_read_int(struct db_conn *conn, const char *name, int64_t otherwise, int64_t *out, struct error *error);
int db_meta_set_int(struct db_conn *conn, const char *name, int64_t value, struct error *error);
int db_meta_blob(struct db_conn *conn, const char *name, void *out, size_t length);
/* Likewise: 0 when *known says whether there is one of exactly length bytes. ERR_CORRUPT: the database is damaged. */
int db_meta_read_blob(struct db_conn *conn, const char *name, void *out, size_t length, bool *known, struct error *error);
int db_meta_set_blob(struct db_conn *conn, const char *name, const void *data, size_t length, struct error *error);

/* WAL checkpoint if the WAL is larger than a few MiB; called between transactions by those who write much. Takes the write lock. */
void db_tidy(struct db *db);
/* PRAGMA integrity_check on a reader; ERR_CORRUPT with its first line. */
int db_integrity_check(struct db *db, struct error *error);

#endif
