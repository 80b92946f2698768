#include "catalogue.h"
#include "db_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The functions that take a version look at the live row first: it is valid in seq when vfrom <= seq, CATALOGUE_LIVE included. Else the past row
 * with the smallest vto > seq is the only candidate. */

static int one_int(struct db_conn *conn, int rc, int64_t *out)
{
	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	*out = db_int(db_last(conn), 0);
	db_reset(db_last(conn));
	return 0;
}

/* --- Inodes --- */

#define INODE_COLUMNS                                                                                                  \
	"ino, vfrom, mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, btime_ns, target, xattrs"

static int hold_row(sqlite3_stmt *stmt, struct inode_hold *out)
{
	const void *target = sqlite3_column_blob(stmt, 12);
	size_t target_length = (size_t)sqlite3_column_bytes(stmt, 12);
	const void *xattrs = sqlite3_column_blob(stmt, 13);
	size_t xattrs_length = (size_t)sqlite3_column_bytes(stmt, 13);
	uint8_t *memory = NULL;

	if (target || xattrs) {
		memory = malloc(target_length + xattrs_length + 1);
		if (!memory)
			return ERR_NOMEM;
		if (target)
			memcpy(memory, target, target_length);
		if (xattrs)
			memcpy(memory + target_length, xattrs, xattrs_length);
	}
	*out = (struct inode_hold){
		.row = {
			.ino = db_int(stmt, 0), .mode = (uint32_t)db_int(stmt, 2), .uid = (uint32_t)db_int(stmt, 3),
			.gid = (uint32_t)db_int(stmt, 4), .nlink = db_int(stmt, 5), .size = db_int(stmt, 6),
			.rdev = db_int(stmt, 7), .atime_ns = db_int(stmt, 8), .mtime_ns = db_int(stmt, 9),
			.ctime_ns = db_int(stmt, 10), .btime_ns = db_int(stmt, 11),
			.target = target ? memory : NULL, .target_length = target_length,
			.xattrs = xattrs ? memory + target_length : NULL, .xattrs_length = xattrs_length,
		},
		.vfrom = db_int(stmt, 1), .memory = memory,
	};
	return 0;
}

int catalogue_inode(struct db_conn *conn, int64_t seq, int64_t ino, struct inode_hold *out)
{
	*out = (struct inode_hold){0};
	int rc = db_step(conn, NULL, "SELECT " INODE_COLUMNS " FROM inode WHERE ino=? AND vfrom<=?", "ii", ino, seq);
	if (rc == 0 && seq != CATALOGUE_LIVE) {
		rc = db_step(conn, NULL, "SELECT " INODE_COLUMNS " FROM inode_past WHERE ino=? AND vto>? ORDER BY vto LIMIT 1",
			     "ii", ino, seq);
		if (rc == 1 && db_int(db_last(conn), 1) > seq) {
			db_reset(db_last(conn));
			rc = 0;
		}
	}
	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	rc = hold_row(db_last(conn), out);
	db_reset(db_last(conn));
	return rc;
}

void inode_hold_free(struct inode_hold *hold)
{
	if (!hold)
		return;
	free(hold->memory);
	*hold = (struct inode_hold){0};
}

/* --- Names --- */

int catalogue_lookup(struct db_conn *conn, int64_t seq, int64_t dir, const void *name, size_t length, int64_t *ino)
{
	int rc = db_step(conn, NULL, "SELECT ino FROM name WHERE dir=? AND name=? AND vfrom<=?", "ibi", dir, name, length, seq);

	if (rc || seq == CATALOGUE_LIVE)
		return one_int(conn, rc, ino);
	rc = db_step(conn, NULL, "SELECT ino, vfrom FROM name_past WHERE dir=? AND name=? AND vto>? ORDER BY vto LIMIT 1", "ibi",
		     dir, name, length, seq);
	if (rc == 1 && db_int(db_last(conn), 1) > seq) {
		db_reset(db_last(conn));
		rc = 0;
	}
	return one_int(conn, rc, ino);
}

int catalogue_resolve(struct db_conn *conn, int64_t seq, const char *path, int64_t *ino)
{
	struct inode_hold root;
	int rc = catalogue_inode(conn, seq, CATALOGUE_ROOT_INO, &root);

	inode_hold_free(&root);
	*ino = CATALOGUE_ROOT_INO;
	while (!rc) {
		path += strspn(path, "/");
		size_t length = strcspn(path, "/");
		if (!length)
			break;
		rc = catalogue_lookup(conn, seq, *ino, path, length, ino);
		path += length;
	}
	return rc;
}

typedef int (*entry_fn)(void *context, const void *name, size_t length, int64_t ino);

/* Rows of name, ino. */
static int list_rows(struct db_loop *loop, entry_fn fn, void *context)
{
	int rc;

	while ((rc = db_loop_next(loop)) == 1) {
		rc = fn(context, sqlite3_column_blob(loop->stmt, 0), (size_t)sqlite3_column_bytes(loop->stmt, 0),
			db_int(loop->stmt, 1));
		if (rc)
			break;
	}
	db_loop_end(loop);
	return rc;
}

static int list_past(struct db_conn *conn, int64_t seq, int64_t dir, entry_fn fn, void *context)
{
	int64_t forks[64], newest;
	struct db_loop loop;
	int rc = one_int(conn, db_step(conn, NULL, "SELECT max(seq) FROM version", ""), &newest);
	int count = rc ? 0 : catalogue_ancestors(seq, newest, forks);

	for (int i = 0; i < count && !rc; i++) {
		if (forks[i] <= seq)
			rc = db_loop_begin(&loop, conn,
					   "SELECT name, ino FROM name_past INDEXED BY name_past_upper "
					   "WHERE dir=? AND fork=? AND vto>?",
					   "iii", dir, forks[i], seq);
		else
			rc = db_loop_begin(&loop, conn,
					   "SELECT name, ino FROM name_past INDEXED BY name_past_lower "
					   "WHERE dir=? AND fork=? AND vfrom<=?",
					   "iii", dir, forks[i], seq);
		if (!rc)
			rc = list_rows(&loop, fn, context);
	}
	return rc;
}

int catalogue_list(struct db_conn *conn, int64_t seq, int64_t dir, entry_fn fn, void *context)
{
	struct db_loop loop;
	int rc = db_loop_begin(&loop, conn, "SELECT name, ino FROM name WHERE dir=? AND vfrom<=?", "ii", dir, seq);

	if (!rc)
		rc = list_rows(&loop, fn, context);
	if (!rc && seq != CATALOGUE_LIVE)
		rc = list_past(conn, seq, dir, fn, context);
	return rc;
}

static int names_rows(struct db_loop *loop, int (*fn)(void *, int64_t, const void *, size_t), void *context)
{
	int rc;

	while ((rc = db_loop_next(loop)) == 1) {
		rc = fn(context, db_int(loop->stmt, 0), sqlite3_column_blob(loop->stmt, 1),
			(size_t)sqlite3_column_bytes(loop->stmt, 1));
		if (rc)
			break;
	}
	db_loop_end(loop);
	return rc;
}

int catalogue_names_of(struct db_conn *conn, int64_t seq, int64_t ino,
		       int (*fn)(void *context, int64_t dir, const void *name, size_t length), void *context)
{
	struct db_loop loop;
	int rc = db_loop_begin(&loop, conn, "SELECT dir, name FROM name WHERE ino=? AND vfrom<=?", "ii", ino, seq);

	if (!rc)
		rc = names_rows(&loop, fn, context);
	if (rc || seq == CATALOGUE_LIVE)
		return rc;
	rc = db_loop_begin(&loop, conn, "SELECT dir, name FROM name_past WHERE ino=? AND vto>? AND vfrom<=?", "iii", ino, seq,
			   seq);
	return rc ? rc : names_rows(&loop, fn, context);
}

struct parent {
	int64_t dir;
	char name[256];
};

static int first_name(void *context, int64_t dir, const void *name, size_t length)
{
	struct parent *parent = context;

	parent->dir = dir;
	snprintf(parent->name, sizeof(parent->name), "%.*s", (int)length, (const char *)name);
	return 1;
}

void catalogue_live_path(struct db_conn *conn, int64_t ino, char *out, size_t room)
{
	struct parent parent;
	size_t used = 0;

	out[0] = '\0';
	while (ino != CATALOGUE_ROOT_INO && catalogue_names_of(conn, CATALOGUE_LIVE, ino, first_name, &parent) == 1) {
		size_t length = strlen(parent.name), slash = used ? 1 : 0;
		if (used + slash + length + 1 > room)
			break;
		memmove(out + length + slash, out, used + 1);
		memcpy(out, parent.name, length);
		if (slash)
			out[length] = '/';
		used += length + slash;
		ino = parent.dir;
	}
}
