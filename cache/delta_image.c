#include "catalogue.h"
#include "delta_internal.h"
#include "image.h"
#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const shared_tables[] = SCHEMA_SHARED_TABLES;

/* Table by table: copying out (v is the volume's database) and in. */
static const struct {
	const char *out, *rows, *in;
} copies[] = {
	{"INSERT INTO main.version SELECT * FROM v.version", "SELECT * FROM version", "INSERT INTO version VALUES(?, ?, ?, ?, ?)"},
	{"INSERT INTO main.inode SELECT * FROM v.inode", "SELECT * FROM inode",
	 "INSERT INTO inode VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.inode_past SELECT * FROM v.inode_past", "SELECT * FROM inode_past",
	 "INSERT INTO inode_past VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.name SELECT * FROM v.name", "SELECT * FROM name", "INSERT INTO name VALUES(?, ?, ?, ?)"},
	{"INSERT INTO main.name_past SELECT * FROM v.name_past", "SELECT * FROM name_past",
	 "INSERT INTO name_past VALUES(?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.extent SELECT * FROM v.extent", "SELECT * FROM extent", "INSERT INTO extent VALUES(?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.extent_past SELECT * FROM v.extent_past", "SELECT * FROM extent_past",
	 "INSERT INTO extent_past VALUES(?, ?, ?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.chunk SELECT * FROM v.chunk", "SELECT * FROM chunk", "INSERT INTO chunk VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.pack SELECT * FROM v.pack", "SELECT * FROM pack", "INSERT INTO pack VALUES(?, ?, ?, ?, ?, ?, ?)"},
	{"INSERT INTO main.pin SELECT * FROM v.pin", "SELECT * FROM pin", "INSERT INTO pin VALUES(?, ?)"},
};

/* --- Out --- */

/* An SQLite URI of a path: what would end it is escaped (https://sqlite.org/uri.html). */
static char *read_only_uri(const char *path)
{
	struct buf uri = {0};
	int rc = buf_printf(&uri, "file:");

	for (; *path && !rc; path++)
		rc = strchr("%?#", *path) ? buf_printf(&uri, "%%%02x", *path) : buf_append(&uri, path, 1);
	if (!rc)
		rc = buf_printf(&uri, "?mode=ro&vfs=unix");
	if (!rc)
		rc = buf_append(&uri, "", 1);
	if (rc) {
		buf_free(&uri);
		return NULL;
	}
	return (char *)uri.data;
}

static int copy_out(struct db_conn *conn, int64_t seq, struct error *error)
{
	int rc = db_step(conn, error, "SELECT ifnull(max(seq), 0) FROM v.version", "");

	if (rc < 0)
		return rc;
	int64_t newest = db_int(db_last(conn), 0);
	db_reset(db_last(conn));
	if (newest != seq)
		return error_set(error, ERR_BUSY, 0, "checkpoint of version %lld: the newest is %lld", (long long)seq,
				 (long long)newest);
	rc = 0;
	for (size_t i = 0; i < TABLES_COUNT(copies) && !rc; i++)
		rc = db_step(conn, error, copies[i].out, "");
	return rc;
}

static int fill_image(struct db *db, int fd, int64_t seq, struct error *error)
{
	struct db_conn *conn = NULL;
	char *uri = read_only_uri(db_path(db));
	int rc = uri ? 0 : error_errno(error, ENOMEM, "checkpoint");

	if (!rc)
		rc = image_create(fd, CHECKPOINT_PAGE_BYTES, shared_tables, TABLES_COUNT(shared_tables), &conn, error);
	if (!rc)
		rc = db_exec(conn, "COMMIT", error); /* the next transaction also spans the attached database */
	if (!rc)
		rc = db_step(conn, error, "ATTACH ? AS v", "t", uri);
	if (!rc)
		rc = db_exec(conn, "BEGIN", error);
	if (!rc)
		rc = copy_out(conn, seq, error);
	if (!rc)
		rc = db_exec(conn, "COMMIT", error);
	db_conn_close(conn);
	free(uri);
	return rc;
}

/* As an importer will look at it: a checkpoint that a clone refuses must not be made. */
static int verify_image(int fd, uint64_t length, int64_t seq, struct error *error)
{
	struct db_conn *conn;
	char what[48];

	snprintf(what, sizeof(what), "checkpoint of version %lld", (long long)seq);
	int rc = image_open(fd, length, what, shared_tables, TABLES_COUNT(shared_tables), &conn, error);
	if (!rc)
		rc = checkpoint_check_rows(conn, seq, what, error);
	db_conn_close(conn);
	return rc;
}

int catalogue_export(struct db *db, int64_t seq, const char *tmp_dir, int *fd, uint64_t *length, struct error *error)
{
	*length = 0;
	*fd = image_file(tmp_dir, error);
	if (*fd < 0)
		return *fd;
	int rc = fill_image(db, *fd, seq, error);
	if (!rc) {
		off_t end = lseek(*fd, 0, SEEK_END);
		*length = (uint64_t)end;
		rc = end < 0 ? error_errno(error, errno, "checkpoint") : verify_image(*fd, *length, seq, error);
	}
	if (rc) {
		close(*fd);
		*fd = -1;
	}
	return rc;
}

/* --- In --- */

static int copy_in(struct db_conn *from, struct db_conn *to, const char *rows, const char *in, struct error *error)
{
	sqlite3_stmt *source = db_prepare(from, rows, error), *target = db_prepare(to, in, error);
	int rc = source && target ? 0 : ERR_FAILED;

	while (!rc && (rc = db_next(from, source, error)) == 1) {
		rc = 0;
		for (int i = 0; i < sqlite3_column_count(source) && !rc; i++)
			if (sqlite3_bind_value(target, i + 1, sqlite3_column_value(source, i)) != SQLITE_OK)
				rc = db_error(to, error, "database");
		if (!rc)
			rc = db_next(to, target, error);
		if (!rc)
			continue;
		break;
	}
	if (source)
		db_reset(source);
	return rc;
}

/* The intervals of all names that a directory ever had, in order: none may overlap (fault 39: it could contain itself). */
static int check_directories(struct db_conn *conn, struct error *error)
{
	int64_t ino = 0, end = 0;
	int rc = db_step(conn, error,
			 "SELECT ino, vfrom, vto FROM (SELECT ino, vfrom, 9223372036854775807 AS vto FROM name "
			 "UNION ALL SELECT ino, vfrom, vto FROM name_past) "
			 "WHERE ino IN (SELECT ino FROM inode WHERE mode & 61440 = 16384 "
			 "UNION SELECT ino FROM inode_past WHERE mode & 61440 = 16384) ORDER BY ino, vfrom",
			 "");
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		if (db_int(stmt, 0) == ino && db_int(stmt, 1) < end) {
			db_reset(stmt);
			return error_set(error, ERR_CORRUPT, 0, "checkpoint: a directory has two names");
		}
		ino = db_int(stmt, 0);
		end = db_int(stmt, 2);
		rc = db_next(conn, stmt, error);
	}
	return rc;
}

static int load(struct db_conn *image, struct db_conn *conn, struct error *error)
{
	int rc = db_step(conn, error, "SELECT 1 FROM version LIMIT 1", "");

	if (rc == 1)
		db_reset(db_last(conn));
	if (rc)
		return rc < 0 ? rc : error_set(error, ERR_EXISTS, 0, "checkpoint: the catalogue is not empty");
	rc = db_exec(conn, SCHEMA_LOCAL_INDEXES_DROP, error); /* sorting once is faster than a million insertions */
	for (size_t i = 0; i < TABLES_COUNT(copies) && !rc; i++)
		rc = copy_in(image, conn, copies[i].rows, copies[i].in, error);
	if (!rc)
		rc = db_exec(conn, SCHEMA_LOCAL_INDEXES, error);
	if (rc == ERR_FAILED && (sqlite3_extended_errcode(db_handle(conn)) & 0xff) == SQLITE_CONSTRAINT)
		rc = error_set(error, ERR_CORRUPT, 0, "checkpoint: %s", sqlite3_errmsg(db_handle(conn)));
	return rc ? rc : check_directories(conn, error);
}

int catalogue_import(struct db *db, int fd, uint64_t length, int64_t seq, const char *tmp_dir, struct error *error)
{
	struct db_conn *image = NULL, *conn;
	char what[48];

	(void)tmp_dir; /* nothing spills: the image is read in place */
	snprintf(what, sizeof(what), "checkpoint of version %lld", (long long)seq);
	int rc = image_open(fd, length, what, shared_tables, TABLES_COUNT(shared_tables), &image, error);
	if (!rc)
		rc = checkpoint_check_rows(image, seq, what, error);
	if (!rc)
		rc = db_begin(db, true, &conn, error);
	if (!rc) {
		rc = load(image, conn, error);
		if (rc)
			db_rollback(db);
		else
			rc = db_commit(db, error);
	}
	db_conn_close(image);
	close(fd);
	return rc;
}
