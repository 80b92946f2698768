#include "rescan.h"

#include "backlog_rows.h"
#include "behind.h"
#include "by_name.h"
#include "catalogue.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH 500

int backlog_count(struct db_conn *conn, struct backlog_counts *out)
{
	sqlite3_stmt *stmt;
	int rc = db_step(conn, NULL,
			 "SELECT count(*) - coalesce(sum(unreadable), 0), coalesce(sum(bytes * (1 - unreadable)), 0), coalesce(sum(unreadable), 0) "
			 "FROM backlog_inode",
			 "");

	if (rc != 1)
		return rc < 0 ? rc : ERR_FAILED;
	stmt = db_last(conn);
	*out = (struct backlog_counts){.inodes = (uint64_t)sqlite3_column_int64(stmt, 0), .bytes = (uint64_t)sqlite3_column_int64(stmt, 1),
				       .unreadable = (uint64_t)sqlite3_column_int64(stmt, 2)};
	db_reset(stmt);
	rc = db_step(conn, NULL, "SELECT count(*) - coalesce(sum(unreadable), 0), coalesce(sum(unreadable), 0) FROM backlog_name", "");
	if (rc != 1)
		return rc < 0 ? rc : ERR_FAILED;
	stmt = db_last(conn);
	out->names = (uint64_t)sqlite3_column_int64(stmt, 0);
	out->unreadable += (uint64_t)sqlite3_column_int64(stmt, 1);
	db_reset(stmt);
	return 0;
}

/* A row of either table. */
struct row {
	int64_t num;
	struct node_key key; /* of the inode, or of the directory */
	char name[256];      /* "": an inode row */
};

static int read_key(sqlite3_stmt *stmt, int column, struct node_key *key)
{
	int length = sqlite3_column_bytes(stmt, column);

	memset(key, 0, sizeof *key);
	if (length > NODE_KEY_MAX)
		return ERR_CORRUPT;
	if (length > 0)
		memcpy(key->bytes, sqlite3_column_blob(stmt, column), (size_t)length);
	key->length = (uint8_t)length;
	return 0;
}

/* Columns: num, key, name. The number of rows, or enum err. */
static int read_rows(struct volume *volume, const char *sql, int64_t after, struct row *rows, struct error *error)
{
	struct db_conn *conn;
	int count = 0, rc = db_read_begin(volume_db(volume), &conn, error);

	if (rc < 0)
		return rc;
	rc = db_step(conn, error, sql, "ii", after, (int64_t)BATCH);
	while (rc == 1) {
		sqlite3_stmt *stmt = db_last(conn);
		struct row *row = &rows[count++];
		int length = sqlite3_column_bytes(stmt, 2);

		memset(row, 0, sizeof *row);
		row->num = sqlite3_column_int64(stmt, 0);
		if (length >= (int)sizeof row->name || read_key(stmt, 1, &row->key) < 0) {
			rc = error_set(error, ERR_CORRUPT, 0, "the backlog is damaged");
			break;
		}
		if (length > 0)
			memcpy(row->name, sqlite3_column_blob(stmt, 2), (size_t)length);
		rc = db_next(conn, stmt, error);
	}
	db_read_end(volume_db(volume), conn);
	return rc < 0 ? rc : count;
}

/* Keys without handle: the node must come to a descriptor while the backlog still says where the inode is. Returns the node, to be kept until the journal has its
 * own reference; NULL: not needed, or no memory (then it is looked for again when it is sealed). */
static struct node *keep(struct volume *volume, const struct node_key *key, mode_t type, int fd)
{
	return node_key_type(key) >= 0 ? NULL : node_get(volume_nodes(volume), key, type, fd);
}

/* A handle that opens nothing: it is gone, or the disk does not give it (the kernel says ESTALE for both). Who seals one that a version has asks its names. 0 or -errno; -ENOMEM also for
 * a database that can't be read: not the disk of the tree refused something. */
static int note_stale(struct volume *volume, const struct node_key *key)
{
	struct local_row local;
	struct inode_hold hold;
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(volume), &conn, NULL);

	if (rc < 0)
		return -ENOMEM;
	rc = catalogue_local_by_key(conn, key->bytes, key->length, &local);
	if (rc == 0)
		rc = catalogue_inode(conn, CATALOGUE_LIVE, local.ino, &hold);
	db_read_end(volume_db(volume), conn);
	if (rc != 0)
		return rc == ERR_ABSENT ? 0 : -ENOMEM;
	mode_t type = hold.row.mode & S_IFMT;
	inode_hold_free(&hold);
	return journal_note_inode(volume_journal(volume), key, type, S_ISREG(type));
}

/* These: 0 or -errno. */
static int note_inode(struct volume *volume, const struct row *row)
{
	int fd = backing_reopen_key(volume_backing(volume), &row->key, O_PATH | O_NOFOLLOW), rc = 0;
	struct stat st;

	if (fd < 0)
		return fd == -ESTALE || fd == -ENOENT ? note_stale(volume, &row->key) : fd;
	if (fstat(fd, &st) < 0) {
		rc = -errno;
	} else if (st.st_nlink > 0) {
		struct node *node = keep(volume, &row->key, st.st_mode & S_IFMT, fd);
		rc = journal_note_inode(volume_journal(volume), &row->key, st.st_mode & S_IFMT, S_ISREG(st.st_mode));
		node_put(volume_nodes(volume), node);
	}
	close(fd);
	return rc;
}

/* No version can name an inode that none has captured: a cut would put the name off, back into the backlog, and the next cut would do the same, for ever. Nobody else may have noted this one, as it
 * can have come to its name after the scan. As note_stale. */
static int note_unknown(struct volume *volume, const struct node_key *key, mode_t type, int fd)
{
	struct local_row local = { 0 };
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(volume), &conn, NULL);

	if (rc < 0)
		return -ENOMEM;
	rc = catalogue_local_by_key(conn, key->bytes, key->length, &local);
	db_read_end(volume_db(volume), conn);
	if (rc < 0 && rc != ERR_ABSENT)
		return -ENOMEM;
	if (local.captured)
		return 0;
	struct node *node = keep(volume, key, type, fd);
	rc = journal_note_inode(volume_journal(volume), key, type, S_ISREG(type));
	node_put(volume_nodes(volume), node);
	return rc;
}

/* A directory whose handle opens nothing. 0: it is gone; or -errno, as note_stale. */
static int ask_names(struct volume *volume, const struct node_key *key)
{
	struct db_conn *conn;
	int fd, rc = by_name_index(volume, NULL);

	if (rc == 0)
		rc = db_read_begin(volume_db(volume), &conn, NULL);
	if (rc < 0)
		return -ENOMEM;
	rc = by_name_find(volume, conn, key, true, NULL, &fd, NULL);
	db_read_end(volume_db(volume), conn);
	if (rc < 0)
		return -ENOMEM;
	if (fd < 0)
		return fd == -ESTALE ? 0 : fd;
	close(fd);
	return -ESTALE;
}

/* The name as it is now: what the scan saw may be older than operations that were cut meanwhile. Those that come after this look are in the journal. *gone: the directory that was last found to be gone, with all that was in
 * it: its own name says so. */
static int note_name(struct volume *volume, const struct row *row, struct node_key *gone)
{
	struct node *node = NULL;
	struct node_key child;
	struct stat st;
	int dirfd, fd, rc;

	if (node_key_equal(&row->key, gone))
		return 0;
	dirfd = backing_reopen_key(volume_backing(volume), &row->key, O_PATH | O_DIRECTORY);
	if (dirfd == -ESTALE || dirfd == -ENOENT || dirfd == -ENOTDIR) {
		rc = ask_names(volume, &row->key);
		if (rc == 0)
			*gone = row->key;
		return rc;
	}
	if (dirfd < 0)
		return dirfd;
	rc = note_unknown(volume, &row->key, S_IFDIR, dirfd);
	if (rc == 0)
		rc = backing_identify(volume_backing(volume), dirfd, row->name, &child, &st, &fd);
	close(dirfd);
	if (rc == 0) {
		node = keep(volume, &child, st.st_mode & S_IFMT, fd);
		rc = note_unknown(volume, &child, st.st_mode & S_IFMT, fd);
		if (rc == 0)
			rc = journal_note_name(volume_journal(volume), &row->key, row->name, &child, st.st_mode & S_IFMT);
		close(fd);
	} else if (rc == -ENOENT) {
		rc = journal_note_name(volume_journal(volume), &row->key, row->name, NULL, 0);
	}
	node_put(volume_nodes(volume), node);
	behind_name(volume, &row->key, row->name);
	return rc;
}

/* Of inodes, or of names. */
struct table {
	const char *read, *forget;
	int (*refuse)(struct db_conn *conn, int64_t num, struct error *error);
};
static const struct table inode_rows = {
	"SELECT num, key, NULL FROM backlog_inode WHERE num>? AND unreadable=0 ORDER BY num LIMIT ?",
	"DELETE FROM backlog_inode WHERE num<=? AND unreadable=0", backlog_refuse_inode,
};
static const struct table name_rows = {
	"SELECT num, dir, name FROM backlog_name WHERE num>? AND unreadable=0 ORDER BY num LIMIT ?",
	"DELETE FROM backlog_name WHERE num<=? AND unreadable=0", backlog_refuse_name,
};

/* The others go on without it. */
static int refuse(struct volume *volume, const struct table *table, const struct row *row, int number, struct error *unreadable,
		  struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(volume), false, &conn, error);

	if (rc < 0)
		return rc;
	if (unreadable->code == 0)
		error_errno(unreadable, number, "%s", row->name[0] ? row->name : "a file of the tree");
	rc = table->refuse(conn, row->num, error);
	if (rc == 0)
		return db_commit(volume_db(volume), error);
	db_rollback(volume_db(volume));
	return rc;
}

static int note_all(struct volume *volume, const struct table *table, int64_t *last, struct error *unreadable, struct error *error)
{
	struct row *rows = malloc(BATCH * sizeof *rows);
	struct node_key gone = { 0 };
	int count, rc = 0;

	*last = 0;
	if (!rows)
		return error_errno(error, ENOMEM, "cannot take over what the scan found");
	do {
		count = read_rows(volume, table->read, *last, rows, error);
		for (int i = 0; i < count && rc == 0; i++) {
			rc = rows[i].name[0] ? note_name(volume, &rows[i], &gone) : note_inode(volume, &rows[i]);
			if (rc < 0 && !backing_is_shortage(-rc))
				rc = refuse(volume, table, &rows[i], -rc, unreadable, error);
			else if (rc < 0)
				rc = error_errno(error, -rc, "cannot take over what the scan found");
		}
		if (count > 0)
			*last = rows[count - 1].num;
	} while (rc == 0 && count == BATCH);
	free(rows);
	return rc < 0 ? rc : count < 0 ? count : 0;
}

static int forget(struct volume *volume, int64_t last_inode, int64_t last_name, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(volume), false, &conn, error);

	if (rc < 0)
		return rc;
	rc = db_step(conn, error, inode_rows.forget, "i", last_inode);
	if (rc == 0)
		rc = db_step(conn, error, name_rows.forget, "i", last_name);
	if (rc < 0) {
		db_rollback(volume_db(volume));
		return rc;
	}
	return db_commit(volume_db(volume), error);
}

int backlog_to_journal(struct volume *volume, struct error *unreadable, struct error *error)
{
	int64_t last_inode, last_name = 0;
	int rc;

	unreadable->code = 0;
	rc = note_all(volume, &inode_rows, &last_inode, unreadable, error);
	if (rc == 0)
		rc = note_all(volume, &name_rows, &last_name, unreadable, error);
	/* The journal's rows are written before these go: a crash between finds both, which is harmless. */
	if (rc == 0)
		rc = journal_flush(volume_journal(volume), error);
	return rc < 0 ? rc : forget(volume, last_inode, last_name, error);
}

int backlog_try_unreadable(struct volume *volume, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(volume), false, &conn, error);

	if (rc < 0)
		return rc;
	rc = db_exec(conn, "UPDATE backlog_inode SET unreadable=0 WHERE unreadable<>0", error);
	if (rc == 0)
		rc = db_exec(conn, "UPDATE backlog_name SET unreadable=0 WHERE unreadable<>0", error);
	if (rc == 0)
		return db_commit(volume_db(volume), error);
	db_rollback(volume_db(volume));
	return rc;
}
