#include "catalogue_schema.h"
#include "delta_internal.h"
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const delta_tables[] = SCHEMA_DELTA_TABLES;

static int delta_alloc(int fd, int64_t seq, struct delta **out, struct error *error)
{
	struct delta *delta = calloc(1, sizeof(*delta));

	*out = delta;
	if (!delta) {
		close(fd);
		return error_errno(error, ENOMEM, "version %lld", (long long)seq);
	}
	pthread_mutex_init(&delta->lock, NULL);
	delta->fd = fd;
	delta->seq = seq;
	return 0;
}

int delta_new(const char *tmp_dir, int64_t seq, struct delta **out, struct error *error)
{
	int fd = image_file(tmp_dir, error);

	*out = NULL;
	if (fd < 0)
		return fd;
	int rc = delta_alloc(fd, seq, out, error);
	if (rc)
		return rc;
	(*out)->building = true;
	rc = image_create(fd, DELTA_PAGE_BYTES, delta_tables, TABLES_COUNT(delta_tables), &(*out)->conn, error);
	if (rc) {
		delta_free(*out);
		*out = NULL;
	}
	return rc;
}

int delta_from_image(int fd, uint64_t length, int64_t seq, const char *tmp_dir, struct delta **out, struct error *error)
{
	char what[48];
	int rc = delta_alloc(fd, seq, out, error);

	(void)tmp_dir; /* nothing spills: the image is read in place */
	if (rc)
		return rc;
	snprintf(what, sizeof(what), "log record %lld", (long long)seq);
	rc = image_open(fd, length, what, delta_tables, TABLES_COUNT(delta_tables), &(*out)->conn, error);
	if (!rc)
		rc = delta_check_rows((*out)->conn, seq, what, error);
	if (rc) {
		delta_free(*out);
		*out = NULL;
	}
	return rc;
}

void delta_free(struct delta *delta)
{
	if (!delta)
		return;
	db_conn_close(delta->conn);
	close(delta->fd);
	pthread_mutex_destroy(&delta->lock);
	free(delta);
}

int64_t delta_seq(const struct delta *delta) { return delta->seq; }

/* --- Adding rows. db_step is variadic, hence a macro around it: lock, refuse after a failure, remember one. --- */

static int add_begin(struct delta *delta, struct error *error)
{
	pthread_mutex_lock(&delta->lock);
	if (!delta->failed && delta->building)
		return 0;
	int rc = error_set(error, delta->failed ? delta->failed : ERR_FAILED, 0, "version %lld: its delta is %s",
			   (long long)delta->seq, delta->failed ? "unusable after a failure" : "complete");
	pthread_mutex_unlock(&delta->lock);
	return rc;
}

static int add_end(struct delta *delta, int rc)
{
	if (rc)
		delta->failed = rc;
	pthread_mutex_unlock(&delta->lock);
	return rc;
}

#define ADD(sql, ...)                                                                                                  \
	do {                                                                                                           \
		int add_rc_ = add_begin(delta, error);                                                                 \
		return add_rc_ ? add_rc_ : add_end(delta, db_step(delta->conn, error, sql, __VA_ARGS__));              \
	} while (0)

/* An end takes back a row of the same key that was added before: applying does the ends first. */
#define END(added, ended, ...)                                                                                         \
	do {                                                                                                           \
		int end_rc_ = add_begin(delta, error);                                                                 \
		if (end_rc_)                                                                                           \
			return end_rc_;                                                                                \
		end_rc_ = db_step(delta->conn, error, added, __VA_ARGS__);                                             \
		return add_end(delta, end_rc_ ? end_rc_ : db_step(delta->conn, error, ended, __VA_ARGS__));            \
	} while (0)

int delta_set_version(struct delta *delta, const struct version_row *row, struct error *error)
{
	ADD("INSERT OR REPLACE INTO version(seq, time_s, cut_ns, server_s, flags) VALUES(?, ?, ?, ?, ?)", "iiiii",
	    delta->seq, row->time_s, row->cut_ns, row->server_s, row->flags);
}

int delta_add_version_server(struct delta *delta, int64_t seq, int64_t server_s, struct error *error)
{
	ADD("INSERT OR REPLACE INTO version_server(seq, server_s) VALUES(?, ?)", "ii", seq, server_s);
}

int delta_add_inode(struct delta *delta, const struct inode_row *row, struct error *error)
{
	ADD("INSERT OR REPLACE INTO inode(ino, vfrom, mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, "
	    "btime_ns, target, xattrs) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	    "iiiiiiiiiiiinn", row->ino, delta->seq, (int64_t)row->mode, (int64_t)row->uid, (int64_t)row->gid, row->nlink,
	    row->size, row->rdev, row->atime_ns, row->mtime_ns, row->ctime_ns, row->btime_ns, row->target,
	    row->target_length, row->xattrs_length ? row->xattrs : NULL, row->xattrs_length);
}

int delta_add_inode_end(struct delta *delta, int64_t ino, struct error *error)
{
	END("DELETE FROM inode WHERE ino=?", "INSERT OR IGNORE INTO inode_end(ino) VALUES(?)", "i", ino);
}

int delta_add_name(struct delta *delta, int64_t dir, const void *name, size_t length, int64_t ino, struct error *error)
{
	if (!catalogue_name_valid(name, length))
		return error_set(error, ERR_FAILED, 0, "version %lld: a name of %zu bytes that no directory can hold",
				 (long long)delta->seq, length);
	ADD("INSERT OR REPLACE INTO name(dir, name, vfrom, ino) VALUES(?, ?, ?, ?)", "ibii", dir, name, length,
	    delta->seq, ino);
}

int delta_add_name_end(struct delta *delta, int64_t dir, const void *name, size_t length, struct error *error)
{
	END("DELETE FROM name WHERE dir=? AND name=?", "INSERT OR IGNORE INTO name_end(dir, name) VALUES(?, ?)", "ib", dir,
	    name, length);
}

int delta_add_extent(struct delta *delta, const struct extent_row *row, struct error *error)
{
	ADD("INSERT OR REPLACE INTO extent(ino, start, vfrom, length, chunk, skip) VALUES(?, ?, ?, ?, ?, ?)", "iiiiii",
	    row->ino, row->start, delta->seq, row->length, row->chunk, row->skip);
}

int delta_add_extent_end(struct delta *delta, int64_t ino, int64_t start, struct error *error)
{
	END("DELETE FROM extent WHERE ino=? AND start=?", "INSERT OR IGNORE INTO extent_end(ino, start) VALUES(?, ?)", "ii",
	    ino, start);
}

int delta_drop_extents(struct delta *delta, int64_t ino, struct error *error)
{
	ADD("DELETE FROM extent WHERE ino=?", "i", ino);
}

int delta_add_chunk(struct delta *delta, const struct chunk_row *row, struct error *error)
{
	ADD("INSERT OR REPLACE INTO chunk(num, id, pack, idx, offset, stored, length, codec, dictionary) "
	    "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
	    "ibiiiiiii", row->num, row->id, sizeof(row->id), row->pack, row->idx, row->offset, row->stored, row->length,
	    row->codec, row->dictionary);
}

int delta_add_pack(struct delta *delta, const struct pack_row *row, struct error *error)
{
	ADD("INSERT OR REPLACE INTO pack(num, id, salt, hash, size, record, vfrom) VALUES(?, ?, ?, ?, ?, ?, ?)", "ibbbiii",
	    row->num, row->id, sizeof(row->id), row->salt, sizeof(row->salt), row->hash, sizeof(row->hash), row->size,
	    row->record, delta->seq);
}

static int add_pack_of(struct delta *delta, sqlite3_stmt *stmt, struct error *error)
{
	struct pack_row row = {.num = db_int(stmt, 0), .size = db_int(stmt, 4), .record = db_int(stmt, 5)};

	if (db_blob(stmt, 1, row.id, sizeof(row.id)) || db_blob(stmt, 2, row.salt, sizeof(row.salt)) ||
	    db_blob(stmt, 3, row.hash, sizeof(row.hash)))
		return error_set(error, ERR_CORRUPT, 0, "version %lld: a pack in its delta", (long long)delta->seq);
	return delta_add_pack(delta, &row, error);
}

static int add_chunk_of(struct delta *delta, sqlite3_stmt *stmt, struct error *error)
{
	struct chunk_row row = {.num = db_int(stmt, 0), .pack = db_int(stmt, 2), .idx = db_int(stmt, 3), .offset = db_int(stmt, 4),
				.stored = db_int(stmt, 5), .length = db_int(stmt, 6), .codec = db_int(stmt, 7), .dictionary = db_int(stmt, 8)};

	if (db_blob(stmt, 1, row.id, sizeof(row.id)))
		return error_set(error, ERR_CORRUPT, 0, "version %lld: a chunk in its delta", (long long)delta->seq);
	return delta_add_chunk(delta, &row, error);
}

/* The other's lock is held. */
static int add_rows_of(struct delta *delta, struct delta *other, const char *sql, int (*add)(struct delta *, sqlite3_stmt *, struct error *),
		       uint64_t *count, struct error *error)
{
	int rc = db_step(other->conn, error, sql, "");
	sqlite3_stmt *stmt = db_last(other->conn);

	while (rc == 1) {
		rc = add(delta, stmt, error);
		if (rc) {
			db_reset(stmt);
			break;
		}
		++*count;
		rc = db_next(other->conn, stmt, error);
	}
	return rc;
}

int delta_add_packs_of(struct delta *delta, struct delta *other, uint64_t *packs, struct error *error)
{
	uint64_t chunks = 0;

	*packs = 0;
	pthread_mutex_lock(&other->lock);
	int rc = other->failed ? error_set(error, other->failed, 0, "version %lld: its delta is unusable after a failure",
					   (long long)other->seq) : 0;
	if (!rc)
		rc = add_rows_of(delta, other, "SELECT num, id, salt, hash, size, record FROM pack WHERE record=0", add_pack_of, packs,
				 error);
	if (!rc)
		rc = add_rows_of(delta, other,
				 "SELECT num, id, pack, idx, offset, stored, length, codec, dictionary FROM chunk "
				 "WHERE pack IN (SELECT num FROM pack WHERE record=0)", add_chunk_of, &chunks, error);
	pthread_mutex_unlock(&other->lock);
	return rc;
}

int delta_add_pin(struct delta *delta, const char *name, int64_t seq, struct error *error)
{
	ADD("INSERT OR REPLACE INTO pin(name, seq) VALUES(?, ?)", "ti", name, seq);
}

int delta_add_pin_end(struct delta *delta, const char *name, struct error *error)
{
	END("DELETE FROM pin WHERE name=?", "INSERT OR IGNORE INTO pin_end(name) VALUES(?)", "t", name);
}

/* --- Reading it as a whole --- */

int delta_image(struct delta *delta, int *fd, uint64_t *length, struct error *error)
{
	int rc = 0;

	*fd = -1;
	pthread_mutex_lock(&delta->lock);
	if (delta->failed)
		rc = error_set(error, delta->failed, 0, "version %lld: its delta is unusable after a failure",
			       (long long)delta->seq);
	if (!rc && delta->building) {
		rc = db_step(delta->conn, error, "COMMIT", ""); /* writes out what is still in memory */
		delta->building = false;
		delta->failed = rc;
	}
	off_t end = rc ? 0 : lseek(delta->fd, 0, SEEK_END);
	if (!rc)
		*fd = fcntl(delta->fd, F_DUPFD_CLOEXEC, 0);
	if (!rc && (end < 0 || *fd < 0))
		rc = error_errno(error, errno, "version %lld", (long long)delta->seq);
	*length = (uint64_t)end;
	pthread_mutex_unlock(&delta->lock);
	if (rc && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return rc;
}

int delta_get_version(struct delta *delta, struct version_row *out, struct error *error)
{
	pthread_mutex_lock(&delta->lock);
	int rc = db_step(delta->conn, error, "SELECT seq, time_s, cut_ns, server_s, flags FROM version", "");
	if (rc == 1) {
		sqlite3_stmt *stmt = db_last(delta->conn);
		*out = (struct version_row){db_int(stmt, 0), db_int(stmt, 1), db_int(stmt, 2), db_int(stmt, 3),
					    db_int(stmt, 4)};
		rc = db_next(delta->conn, stmt, error) == 0 && out->seq == delta->seq ? 0 : 1;
		db_reset(stmt);
	} else if (rc == 0) {
		rc = 1;
	}
	pthread_mutex_unlock(&delta->lock);
	return rc <= 0 ? rc : error_set(error, ERR_CORRUPT, 0, "log record %lld: not one version row of that number",
					(long long)delta->seq);
}
