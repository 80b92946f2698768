#include "db_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define STATEMENTS_MIN 64 /* power of two */
#define BUSY_TIMEOUT_MS 10000

/* Statements by the address of their text: open addressing, never more than half full. */
struct slot {
	const char *sql;
	sqlite3_stmt *stmt;
};

struct db_conn {
	sqlite3 *handle;
	struct slot *slots;
	size_t slot_count, used;
	sqlite3_stmt *last;
	atomic_bool *damaged; /* NULL: nobody wants to know */
};

static int code_of(sqlite3 *handle, int result, int *sys_errno)
{
	*sys_errno = 0;
	switch (result & 0xff) {
	case SQLITE_FULL: *sys_errno = ENOSPC; return ERR_NOSPACE;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB: return ERR_CORRUPT;
	case SQLITE_NOMEM: return ERR_NOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED: return ERR_BUSY;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		*sys_errno = handle ? sqlite3_system_errno(handle) : 0;
		if (*sys_errno == ENOSPC || *sys_errno == EDQUOT)
			return ERR_NOSPACE;
		return ERR_FAILED;
	default: return ERR_FAILED;
	}
}

int db_error(struct db_conn *conn, struct error *error, const char *what)
{
	int sys_errno;
	int code = code_of(conn->handle, sqlite3_extended_errcode(conn->handle), &sys_errno);

	if (code == ERR_CORRUPT && conn->damaged)
		atomic_store(conn->damaged, true);
	return error_set(error, code, sys_errno, "%s: %s%s%s", what, sqlite3_errmsg(conn->handle),
			 sys_errno ? ": " : "", sys_errno ? strerror(sys_errno) : "");
}

static int configure(struct db_conn *conn, struct error *error)
{
	sqlite3 *handle = conn->handle;

	sqlite3_extended_result_codes(handle, 1);
	sqlite3_busy_timeout(handle, BUSY_TIMEOUT_MS);
	sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
	return db_exec(conn,
		       "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF; "
		       "PRAGMA foreign_keys=OFF; PRAGMA temp_store=MEMORY",
		       error);
}

int db_conn_open(const char *path, int flags, const char *vfs, struct db_conn **out, struct error *error)
{
	struct db_conn *conn = calloc(1, sizeof(*conn));
	int result, rc;

	*out = NULL;
	if (!conn)
		return error_errno(error, ENOMEM, "%s", path);
	conn->slots = calloc(STATEMENTS_MIN, sizeof(*conn->slots));
	conn->slot_count = STATEMENTS_MIN;
	if (!conn->slots) {
		free(conn);
		return error_errno(error, ENOMEM, "%s", path);
	}
	result = sqlite3_open_v2(path, &conn->handle, flags | SQLITE_OPEN_NOMUTEX, vfs);
	if (result != SQLITE_OK) {
		rc = conn->handle ? db_error(conn, error, path) : error_errno(error, ENOMEM, "%s", path);
	} else {
		rc = configure(conn, error);
	}
	if (rc) {
		db_conn_close(conn);
		return rc;
	}
	*out = conn;
	return 0;
}

void db_conn_watch(struct db_conn *conn, atomic_bool *damaged) { conn->damaged = damaged; }

void db_conn_close(struct db_conn *conn)
{
	if (!conn)
		return;
	for (size_t i = 0; i < conn->slot_count; i++)
		sqlite3_finalize(conn->slots[i].stmt);
	free(conn->slots);
	sqlite3_close_v2(conn->handle);
	free(conn);
}

void db_conn_reset_all(struct db_conn *conn)
{
	for (sqlite3_stmt *stmt = NULL; (stmt = sqlite3_next_stmt(conn->handle, stmt));)
		if (sqlite3_stmt_busy(stmt))
			sqlite3_reset(stmt);
}

struct sqlite3 *db_handle(struct db_conn *conn) { return conn->handle; }
struct sqlite3_stmt *db_last(struct db_conn *conn) { return conn->last; }

void db_reset(struct sqlite3_stmt *stmt) { sqlite3_reset(stmt); }

/* --- Statements --- */

static struct slot *slot_find(struct slot *slots, size_t count, const char *sql)
{
	size_t i = (size_t)(((uintptr_t)sql * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (count - 1);

	while (slots[i].sql && slots[i].sql != sql)
		i = (i + 1) & (count - 1);
	return &slots[i];
}

static int slots_grow(struct db_conn *conn)
{
	size_t count = conn->slot_count * 2;
	struct slot *slots = calloc(count, sizeof(*slots));

	if (!slots)
		return ERR_NOMEM;
	for (size_t i = 0; i < conn->slot_count; i++)
		if (conn->slots[i].sql)
			*slot_find(slots, count, conn->slots[i].sql) = conn->slots[i];
	free(conn->slots);
	conn->slots = slots;
	conn->slot_count = count;
	return 0;
}

/* The cached statement as it is, perhaps in the middle of its rows. */
static sqlite3_stmt *cached(struct db_conn *conn, const char *sql, struct error *error)
{
	struct slot *slot = slot_find(conn->slots, conn->slot_count, sql);

	if (slot->sql)
		return slot->stmt;
	if ((conn->used + 1) * 2 > conn->slot_count) {
		if (slots_grow(conn)) {
			error_errno(error, ENOMEM, "database");
			return NULL;
		}
		slot = slot_find(conn->slots, conn->slot_count, sql);
	}
	sqlite3_stmt *stmt;
	if (sqlite3_prepare_v3(conn->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) != SQLITE_OK) {
		db_error(conn, error, "database");
		return NULL;
	}
	*slot = (struct slot){sql, stmt};
	conn->used++;
	return stmt;
}

struct sqlite3_stmt *db_prepare(struct db_conn *conn, const char *sql, struct error *error)
{
	sqlite3_stmt *stmt = cached(conn, sql, error);

	if (stmt) {
		sqlite3_reset(stmt);
		sqlite3_clear_bindings(stmt);
	}
	return stmt;
}

static int bind_bytes(sqlite3_stmt *stmt, int index, const void *data, size_t length)
{
	if (!length) /* a NULL pointer would bind SQL NULL */
		return sqlite3_bind_zeroblob(stmt, index, 0);
	return sqlite3_bind_blob64(stmt, index, data, length, SQLITE_TRANSIENT);
}

static int bind(sqlite3_stmt *stmt, const char *format, va_list args)
{
	int result = SQLITE_OK;

	for (int i = 1; *format && result == SQLITE_OK; format++, i++) {
		const void *data;
		size_t length;
		switch (*format) {
		case 'i': result = sqlite3_bind_int64(stmt, i, va_arg(args, int64_t)); break;
		case 't': result = sqlite3_bind_text(stmt, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT); break;
		case 'N': result = sqlite3_bind_null(stmt, i); break;
		case 'b':
		case 'n':
			data = va_arg(args, const void *);
			length = va_arg(args, size_t);
			result = *format == 'n' && !data ? sqlite3_bind_null(stmt, i) : bind_bytes(stmt, i, data, length);
			break;
		default: return SQLITE_MISUSE;
		}
	}
	return result;
}

int db_next(struct db_conn *conn, struct sqlite3_stmt *stmt, struct error *error)
{
	int result = sqlite3_step(stmt);

	if (result == SQLITE_ROW)
		return 1;
	if (result == SQLITE_DONE) {
		sqlite3_reset(stmt);
		return 0;
	}
	int code = db_error(conn, error, "database");
	sqlite3_reset(stmt);
	return code;
}

int db_step(struct db_conn *conn, struct error *error, const char *sql, const char *format, ...)
{
	sqlite3_stmt *stmt = db_prepare(conn, sql, error);
	va_list args;

	conn->last = stmt;
	if (!stmt) {
		int sys_errno;
		int code = code_of(conn->handle, sqlite3_extended_errcode(conn->handle), &sys_errno);
		return code;
	}
	va_start(args, format);
	int result = bind(stmt, format, args);
	va_end(args);
	if (result != SQLITE_OK)
		return error_set(error, result == SQLITE_NOMEM ? ERR_NOMEM : ERR_FAILED, 0, "database: binding: %s",
				 sqlite3_errstr(result));
	return db_next(conn, stmt, error);
}

int db_exec(struct db_conn *conn, const char *sql, struct error *error)
{
	if (sqlite3_exec(conn->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_error(conn, error, "database");
	return 0;
}

int db_loop_begin(struct db_loop *loop, struct db_conn *conn, const char *sql, const char *format, ...)
{
	va_list args;

	*loop = (struct db_loop){.conn = conn, .stmt = cached(conn, sql, NULL)};
	if (loop->stmt && sqlite3_stmt_busy(loop->stmt)) {
		loop->own = true;
		loop->stmt = NULL;
		sqlite3_prepare_v2(conn->handle, sql, -1, &loop->stmt, NULL);
	}
	if (!loop->stmt)
		return db_error(conn, NULL, "database");
	if (!loop->own) {
		sqlite3_reset(loop->stmt);
		sqlite3_clear_bindings(loop->stmt);
	}
	va_start(args, format);
	int result = bind(loop->stmt, format, args);
	va_end(args);
	if (result == SQLITE_OK)
		return 0;
	db_loop_end(loop);
	return result == SQLITE_NOMEM ? ERR_NOMEM : ERR_FAILED;
}

int db_loop_next(struct db_loop *loop) { return db_next(loop->conn, loop->stmt, NULL); }

void db_loop_end(struct db_loop *loop)
{
	if (loop->own)
		sqlite3_finalize(loop->stmt);
	else if (loop->stmt)
		sqlite3_reset(loop->stmt);
	loop->stmt = NULL;
}

int db_pragma_int(struct db_conn *conn, const char *sql, int64_t *out, struct error *error)
{
	int rc = db_step(conn, error, sql, "");

	if (rc < 0)
		return rc;
	*out = rc ? db_int(db_last(conn), 0) : 0;
	db_reset(db_last(conn));
	return 0;
}

int64_t db_int(sqlite3_stmt *stmt, int column) { return sqlite3_column_int64(stmt, column); }

int db_blob(sqlite3_stmt *stmt, int column, void *out, size_t length)
{
	const void *data = sqlite3_column_blob(stmt, column);

	if (!data || (size_t)sqlite3_column_bytes(stmt, column) != length)
		return ERR_CORRUPT;
	memcpy(out, data, length);
	return 0;
}
