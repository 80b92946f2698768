#include "rescan.h"

#include "behind.h"
#include "rescan_internal.h"
#include "suspect.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- begin, end */

static int prepare(struct rescan *r)
{
	struct db_conn *conn;
	int rc = db_begin(r->db, false, &conn, r->error);

	if (rc < 0)
		return rc;
	rc = db_exec(conn, "DELETE FROM backlog_name", r->error);
	if (rc == 0) /* tried again */
		rc = db_exec(conn, "UPDATE backlog_inode SET unreadable=0 WHERE unreadable<>0", r->error);
	/* by_name.c asks by child. */
	if (rc == 0 && !backing_has_handles(r->backing))
		rc = db_exec(conn, "CREATE INDEX IF NOT EXISTS backlog_name_child ON backlog_name(child)", r->error);
	if (rc == 0 && db_step(conn, r->error, "SELECT count(*) FROM name", "") == 1) {
		r->result->known = (uint64_t)sqlite3_column_int64(db_last(conn), 0);
		db_reset(db_last(conn));
	}
	if (rc < 0) {
		db_rollback(r->db);
		return rc;
	}
	return db_commit(r->db, r->error);
}

/* All that was found is in the database: a power cut of long ago needs no more attention (I9). Durable, together with all rows. */
static int finish(struct rescan *r)
{
	struct backlog_counts backlog;
	uint8_t boot_id[16];
	struct db_conn *conn;
	int rc = db_begin(r->db, true, &conn, r->error);

	if (rc < 0)
		return rc;
	rc = backlog_count(conn, &backlog);
	if (rc < 0)
		error_set(r->error, rc, 0, "cannot read the backlog: %s", error_word(rc));
	r->result->changed = backlog.inodes;
	r->result->changed_bytes = backlog.bytes;
	r->result->names = backlog.names;
	backing_boot_id(boot_id);
	if (rc == 0)
		rc = db_meta_set_blob(conn, "boot_id", boot_id, sizeof boot_id, r->error);
	if (rc < 0) {
		db_rollback(r->db);
		return rc;
	}
	rc = db_commit(r->db, r->error);
	if (rc == 0)
		volume_set_scanned(r->volume);
	return rc;
}

static int walk_root(struct rescan *r)
{
	struct local_row local;
	struct node_key key;
	struct stat st;
	int rc = backing_identify(r->backing, backing_root_fd(r->backing), "", &key, &st, NULL);

	if (rc < 0)
		return rescan_failed(r, rc);
	rescan_met(r, &key, &st);
	rc = rescan_read(r);
	if (rc == 0)
		rc = rescan_local(r, &key, &local);
	if (rc == 0 && !local.ino && r->result->known > 0)
		r->result->blind++;
	if (rc == 0 && local.ino)
		rc = rescan_see(r, local.ino);
	if (rc == 0)
		rc = rescan_check_inode(r, &key, &st, &local);
	if (rc == 0)
		rc = rescan_push(r, &key);
	return rc < 0 ? rc : rescan_walk(r);
}

/* ---------------------------------------------------------------- what operations moved while we walked */

struct moved {
	struct node_key dir, child;
	char name[256];
};

static bool column_key(sqlite3_stmt *stmt, int column, struct node_key *key)
{
	int length = sqlite3_column_bytes(stmt, column);

	memset(key, 0, sizeof *key);
	if (length <= 0 || length > NODE_KEY_MAX)
		return false;
	key->length = (uint8_t)length;
	memcpy(key->bytes, sqlite3_column_blob(stmt, column), (size_t)length);
	return true;
}

/* Names in the journal after that one, at most `room`, each with its newest value (SQLite takes the other columns from the row of the
 * maximum). Their number, or enum err. */
static int read_moved(struct rescan *r, const struct moved *after, struct moved *out, int room)
{
	int count = 0;
	int rc = db_step(r->conn, r->error,
			 "SELECT dir, name, child, max(epoch) FROM journal_name WHERE (dir, name)>(?, ?) "
			 "GROUP BY dir, name ORDER BY dir, name LIMIT ?",
			 "bbi", after->dir.bytes, (size_t)after->dir.length, after->name, strlen(after->name), (int64_t)room);
	sqlite3_stmt *stmt = db_last(r->conn);

	while (rc == 1) {
		int length = sqlite3_column_bytes(stmt, 1);

		column_key(stmt, 0, &out[count].dir);
		column_key(stmt, 2, &out[count].child); /* length 0: the name went */
		memset(out[count].name, 0, sizeof out[count].name);
		if (length > 0 && length < (int)sizeof out[count].name)
			memcpy(out[count].name, sqlite3_column_blob(stmt, 1), (size_t)length);
		count++;
		rc = db_next(r->conn, stmt, r->error);
	}
	return rc < 0 ? rc : count;
}

/* A name that the journal has, in a directory that was visited (so it is in the tree), with something that was not met: it may have been moved from a directory not yet visited to one
 * visited before. An unknown file has no mark that says so: it is looked at again, which costs little. */
static int look_at_moved(struct rescan *r, const struct moved *moved)
{
	struct local_row dir, child;
	int fd, rc;

	if (moved->child.length == 0 || moved->name[0] == '\0' || !rescan_has_visited(r, &moved->dir) ||
	    rescan_has_visited(r, &moved->child))
		return 0;
	rc = rescan_read(r);
	if (rc == 0)
		rc = rescan_local(r, &moved->child, &child);
	if (rc < 0 || (child.ino && rescan_has_seen(r, child.ino)))
		return rc;
	rc = rescan_local(r, &moved->dir, &dir);
	if (rc < 0)
		return rc;
	fd = rescan_open_dir(r, &moved->dir);
	if (fd < 0)
		return fd == -ENOENT ? 0 : rescan_refused(r, &moved->dir, fd);
	rc = rescan_entry(r, &moved->dir, dir.ino, fd, moved->name, NULL);
	close(fd);
	return rc < 0 ? rc : rescan_walk(r);
}

#define MOVED_ROOM 256

static int walk_moved_once(struct rescan *r, struct moved *rows)
{
	struct moved after = { 0 };
	int count, rc = journal_flush(volume_journal(r->volume), r->error);

	if (rc < 0)
		return rc;
	rescan_read_end(r);
	do {
		rc = rescan_read(r);
		if (rc < 0)
			return rc;
		count = read_moved(r, &after, rows, MOVED_ROOM);
		for (int i = 0; i < count && rc == 0; i++)
			rc = look_at_moved(r, &rows[i]);
		if (count > 0)
			after = rows[count - 1];
	} while (rc == 0 && count == MOVED_ROOM);
	return rc < 0 ? rc : count < 0 ? count : 0;
}

/* Until no further directory comes to light: the one that was moved may have held the one that was moved out of it. */
int rescan_walk_moved(struct rescan *r)
{
	struct moved *rows;
	size_t before;
	int rc;

	if (!volume_journal(r->volume))
		return 0;
	rows = calloc(MOVED_ROOM, sizeof *rows);
	if (!rows)
		return error_errno(r->error, ENOMEM, "cannot scan the directory");
	do {
		before = r->visited_count;
		rc = walk_moved_once(r, rows);
	} while (rc == 0 && r->visited_count != before);
	free(rows);
	return rc;
}

/* ---------------------------------------------------------------- absences */

enum removal { BEHIND_US, JOURNALED, WITNESSED };

/* Who removed it. JOURNALED: an operation, and the journal has it: it is no news, and no loss. WITNESSED: an operation of a session that ended uncleanly: no loss. Or enum err. What was removed within the second before a kill
 * may not have got into the database (journal_store.c gathers for as long): with that the scan can't but ask, if it is most of the tree. */
static int who_removed(struct rescan *r, const struct node_key *dir, const char *name)
{
	int rc = db_step(r->conn, r->error, "SELECT child IS NULL, epoch FROM journal_name WHERE dir=? AND name=? ORDER BY epoch DESC LIMIT 1",
			 "bb", dir->bytes, (size_t)dir->length, name, strlen(name));

	if (rc != 1)
		return rc < 0 ? rc : BEHIND_US;
	if (sqlite3_column_int(db_last(r->conn), 0) == 0)
		rc = BEHIND_US;
	else
		rc = sqlite3_column_int64(db_last(r->conn), 1) == 0 ? WITNESSED : JOURNALED;
	db_reset(db_last(r->conn));
	return rc;
}

struct subtree {
	struct rescan *r;
	struct node_key key; /* of the directory being listed */
	int64_t *stack;
	size_t count, room;
};

static int end_name(void *context, const void *name, size_t length, int64_t ino)
{
	struct subtree *subtree = context;
	struct rescan *r = subtree->r;
	char text[256];
	int rc;

	if (length >= sizeof text)
		return error_set(r->error, ERR_CORRUPT, 0, "the catalogue is damaged: a name of %zu bytes", length);
	memcpy(text, name, length);
	text[length] = '\0';
	rc = who_removed(r, &subtree->key, text);
	if (rc < 0)
		return rc;
	r->result->absent += rc == BEHIND_US;
	rc = rescan_put_name(r, &subtree->key, text, NULL, 0);
	if (rc < 0 || rescan_has_seen(r, ino))
		return rc;
	if (subtree->count == subtree->room) {
		size_t room = subtree->room ? subtree->room * 2 : 64;
		int64_t *stack = realloc(subtree->stack, room * sizeof *stack);

		if (!stack)
			return error_errno(r->error, ENOMEM, "cannot scan the directory");
		subtree->stack = stack;
		subtree->room = room;
	}
	subtree->stack[subtree->count++] = ino;
	return rescan_see(r, ino); /* each once, even if the catalogue had a cycle */
}

/* An inode that is nowhere in the tree: if it was a directory, all names in it are gone too. A file has none. */
static int end_subtree(struct rescan *r, int64_t ino)
{
	struct subtree subtree = { .r = r };
	int rc = 0;

	if (rescan_has_seen(r, ino))
		return 0;
	for (;;) {
		size_t length = NODE_KEY_MAX;

		rc = catalogue_local_key(r->conn, ino, subtree.key.bytes, &length);
		subtree.key.length = (uint8_t)length;
		if (rc == 0)
			rc = catalogue_list(r->conn, CATALOGUE_LIVE, ino, end_name, &subtree);
		if (rc == ERR_ABSENT)
			rc = 0; /* never had a place on this machine */
		if (rc < 0 || subtree.count == 0)
			break;
		ino = subtree.stack[--subtree.count];
	}
	free(subtree.stack);
	return rc;
}

/* The directory of a name noted as absent, kept open for the next. */
struct place {
	int64_t ino;
	struct node_key key;
	int rc; /* of catalogue_local_key; ERR_ABSENT: nothing can be said of it */
	int fd; /* of rescan_open_dir; -ENOENT: gone, with all that was in it */
};

static void go_to(struct rescan *r, struct place *place, int64_t ino)
{
	size_t length = NODE_KEY_MAX;

	if (place->ino == ino)
		return;
	if (place->fd >= 0)
		close(place->fd);
	place->ino = ino;
	place->fd = -ENOENT;
	place->rc = catalogue_local_key(r->conn, ino, place->key.bytes, &length);
	place->key.length = (uint8_t)length;
	if (place->rc == 0)
		place->fd = rescan_open_dir(r, &place->key);
}

/* Still not there, after everything was looked at. What an operation has put there since is in the journal. */
static int confirm_absent(struct rescan *r, struct place *place, int64_t ino, const char *name)
{
	struct stat st;
	int rc;

	if (place->rc < 0)
		return place->rc == ERR_ABSENT ? 0 : place->rc;
	if (place->fd < 0 && place->fd != -ENOENT) {
		place->rc = ERR_ABSENT; /* noted once */
		return rescan_refused(r, &place->key, place->fd);
	}
	if (place->fd >= 0 && fstatat(place->fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0)
		return 0;
	if (place->fd >= 0 && errno != ENOENT)
		return rescan_refused_name(r, place->fd, name, -errno);
	rc = who_removed(r, &place->key, name);
	if (rc < 0 || rc == JOURNALED)
		return rc < 0 ? rc : 0;
	r->result->absent += rc == BEHIND_US;
	rc = rescan_put_name(r, &place->key, name, NULL, 0);
	if (rc == 0)
		rc = end_subtree(r, ino);
	return rc;
}

static int confirm_absences(struct rescan *r)
{
	struct place place = { .fd = -1 };
	int64_t dir, ino;
	char name[256];
	int rc, more;

	if (!r->absent)
		return 0;
	rewind(r->absent);
	while ((more = rescan_next_absent(r, &dir, &ino, name)) == 1) {
		rc = rescan_read(r);
		if (rc == 0) {
			go_to(r, &place, dir);
			rc = confirm_absent(r, &place, ino, name);
		}
		if (rc < 0) {
			more = rc;
			break;
		}
	}
	if (place.fd >= 0)
		close(place.fd);
	return more;
}

void rescan_free(struct rescan *r)
{
	rescan_read_end(r);
	if (r->absent)
		fclose(r->absent);
	buf_free(&r->rows);
	buf_free(&r->stack);
	free(r->seen);
	free(r->visited);
}

int rescan_run(struct volume *volume, bool clean, bool same_boot, atomic_bool *stop, _Atomic uint64_t *progress,
	       struct rescan_result *out, struct error *error)
{
	const struct behind_listener *listener = volume_listener(volume);
	struct error ignored;
	struct rescan r = {
		.volume = volume, .backing = volume_backing(volume), .db = volume_db(volume), .clean = clean,
		.power_cut = !clean && !same_boot, .stop = stop, .progress = progress, .result = out,
		.error = error ? error : &ignored,
	};
	int rc;

	memset(out, 0, sizeof *out);
	memset(r.error, 0, sizeof *r.error);
	if (listener)
		listener->begin(listener->context);
	rc = prepare(&r);
	if (rc == 0)
		rc = walk_root(&r);
	if (rc == 0)
		rc = rescan_walk_moved(&r);
	if (rc == 0)
		rc = confirm_absences(&r);
	if (rc == 0)
		rc = rescan_flush(&r);
	rescan_read_end(&r);
	if (rc == 0)
		rc = suspect_looked(volume_journal(volume), r.error);
	if (rc == 0)
		rc = finish(&r);
	rescan_free(&r);
	if (listener)
		listener->end(listener->context);
	if (rc < 0 && r.error->code == 0)
		error_set(r.error, rc, 0, "cannot scan the directory: reading the catalogue: %s", error_word(rc));
	return rc;
}
