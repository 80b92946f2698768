/* db_internal: connections and their statements, for the modules that speak SQLite themselves (db, image, delta, catalogue). */
#ifndef YESTER_DB_INTERNAL_H
#define YESTER_DB_INTERNAL_H

#include "db.h"

#include <sqlite3.h>
#include <stdatomic.h>

/* Opens a connection with the PRAGMAs that every connection of ours has (facts: mmap_size 0, cell_size_check, trusted_schema off, no
 * foreign keys, temporary tables in memory, defensive). `flags` as sqlite3_open_v2; NOMUTEX is added: one thread at a time. vfs NULL: the
 * default. On failure *out is NULL. */
int db_conn_open(const char *path, int flags, const char *vfs, struct db_conn **out, struct error *error);
/* *damaged becomes true, and stays so, when SQLite reports damage to conn. */
void db_conn_watch(struct db_conn *conn, atomic_bool *damaged);
/* Finalizes its statements and closes. NULL is fine. */
void db_conn_close(struct db_conn *conn);
/* Resets every statement that is still in the middle of its rows: before the end of a transaction. */
void db_conn_reset_all(struct db_conn *conn);

/* A statement for a loop whose body may come back to the same function (a callback that lists a subdirectory): the cached one when
 * it is idle, else a fresh one. Bound like db_step, not stepped. db_loop_end takes it back. */
struct db_loop {
	struct db_conn *conn;
	sqlite3_stmt *stmt;
	bool own;
};
int db_loop_begin(struct db_loop *loop, struct db_conn *conn, const char *sql, const char *format, ...);
int db_loop_next(struct db_loop *loop); /* 1, 0, negative */
void db_loop_end(struct db_loop *loop);

/* The number that a PRAGMA or a query without parameters gives; 0 when it gives no row. */
int db_pragma_int(struct db_conn *conn, const char *sql, int64_t *out, struct error *error);

/* The file of the database. */
const char *db_path(const struct db *db);

/* A result column. */
int64_t db_int(sqlite3_stmt *stmt, int column);
/* Copies a blob of exactly `length` bytes. ERR_CORRUPT otherwise. */
int db_blob(sqlite3_stmt *stmt, int column, void *out, size_t length);

#endif
