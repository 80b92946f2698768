#include "catalogue.h"
#include "delta_internal.h"

#include <string.h>
#include <sys/stat.h>

/* One application: `from` is the delta's connection, `to` the catalogue's. */
struct apply {
	struct db_conn *from, *to;
	struct error *error;
	int64_t seq;
};

static int corrupt(const struct apply *apply, const char *why)
{
	return error_set(apply->error, ERR_CORRUPT, 0, "log record %lld: %s", (long long)apply->seq, why);
}

static int each(struct apply *apply, const char *sql, int (*row)(struct apply *, sqlite3_stmt *))
{
	sqlite3_stmt *stmt = db_prepare(apply->from, sql, apply->error);
	int rc;

	if (!stmt)
		return ERR_FAILED;
	while ((rc = db_next(apply->from, stmt, apply->error)) == 1) {
		rc = row(apply, stmt);
		if (rc)
			break;
	}
	db_reset(stmt);
	return rc;
}

/* Column of the one row of a query on the catalogue; *found false when there is none. */
static int query(struct apply *apply, int rc, bool *found, int64_t *value)
{
	*found = rc == 1;
	*value = 0;
	if (rc == 1) {
		*value = db_int(db_last(apply->to), 0);
		db_reset(db_last(apply->to));
	}
	return rc < 0 ? rc : 0;
}

/* --- 1: versions --- */

static int apply_version(struct apply *apply, sqlite3_stmt *row)
{
	bool found;
	int64_t newest = 0, time_s = 0;
	int rc = db_step(apply->to, apply->error, "SELECT seq, time_s FROM version ORDER BY seq DESC LIMIT 1", "");

	found = rc == 1;
	if (found) {
		newest = db_int(db_last(apply->to), 0);
		time_s = db_int(db_last(apply->to), 1);
		db_reset(db_last(apply->to));
	}
	if (rc < 0)
		return rc;
	if (db_int(row, 0) != apply->seq || apply->seq != newest + 1)
		return corrupt(apply, "not the successor of the newest version");
	if (found && db_int(row, 1) <= time_s) /* I26 */
		return corrupt(apply, "not later than the version before");
	return db_step(apply->to, apply->error,
		       "INSERT INTO version(seq, time_s, cut_ns, server_s, flags) VALUES(?, ?, ?, ?, ?)", "iiiii", apply->seq,
		       db_int(row, 1), db_int(row, 2), db_int(row, 3), db_int(row, 4));
}

static int apply_version_server(struct apply *apply, sqlite3_stmt *row)
{
	return db_step(apply->to, apply->error, "UPDATE version SET server_s=? WHERE seq=?", "ii", db_int(row, 1),
		       db_int(row, 0));
}

/* --- 2 and 3: what was live moves to the past. A key without a live row is fine. --- */

static int end_inode(struct apply *apply, int64_t ino)
{
	int rc = db_step(apply->to, apply->error,
			 "INSERT INTO inode_past SELECT ino, ?2, vfrom, mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, "
			 "ctime_ns, btime_ns, target, xattrs FROM inode WHERE ino=?1",
			 "ii", ino, apply->seq);

	if (rc || !sqlite3_changes(db_handle(apply->to)))
		return rc;
	return db_step(apply->to, apply->error, "DELETE FROM inode WHERE ino=?", "i", ino);
}

static int end_name(struct apply *apply, int64_t dir, const void *name, size_t length)
{
	bool found;
	int64_t vfrom;
	int rc = query(apply, db_step(apply->to, apply->error, "SELECT vfrom FROM name WHERE dir=? AND name=?", "ib", dir,
				      name, length), &found, &vfrom);

	if (rc || !found)
		return rc;
	if (vfrom < apply->seq) /* else it was in no version */
		rc = db_step(apply->to, apply->error,
			     "INSERT INTO name_past(dir, name, vto, vfrom, fork, ino) "
			     "SELECT dir, name, ?3, vfrom, ?4, ino FROM name WHERE dir=?1 AND name=?2",
			     "ibii", dir, name, length, apply->seq, catalogue_fork(vfrom, apply->seq));
	if (!rc)
		rc = db_step(apply->to, apply->error, "DELETE FROM name WHERE dir=? AND name=?", "ib", dir, name, length);
	return rc;
}

static int end_extent(struct apply *apply, int64_t ino, int64_t start)
{
	bool found;
	int64_t vfrom;
	int rc = query(apply, db_step(apply->to, apply->error, "SELECT vfrom FROM extent WHERE ino=? AND start=?", "ii", ino,
				      start), &found, &vfrom);

	if (rc || !found)
		return rc;
	rc = db_step(apply->to, apply->error,
		     "INSERT INTO extent_past(ino, fork, vto, start, vfrom, length, chunk, skip) "
		     "SELECT ino, ?3, ?4, start, vfrom, length, chunk, skip FROM extent WHERE ino=?1 AND start=?2",
		     "iiii", ino, start, catalogue_fork(vfrom, apply->seq), apply->seq);
	if (!rc)
		rc = db_step(apply->to, apply->error, "DELETE FROM extent WHERE ino=? AND start=?", "ii", ino, start);
	return rc;
}

static int apply_inode_end(struct apply *apply, sqlite3_stmt *row) { return end_inode(apply, db_int(row, 0)); }
static int apply_extent_end(struct apply *apply, sqlite3_stmt *row)
{
	return end_extent(apply, db_int(row, 0), db_int(row, 1));
}
static int apply_name_end(struct apply *apply, sqlite3_stmt *row)
{
	return end_name(apply, db_int(row, 0), sqlite3_column_blob(row, 1), (size_t)sqlite3_column_bytes(row, 1));
}

/* Binds the columns of row to the same numbers of a catalogue statement and runs it. */
static int copy_row(struct apply *apply, sqlite3_stmt *row, const char *sql)
{
	sqlite3_stmt *stmt = db_prepare(apply->to, sql, apply->error);

	if (!stmt)
		return ERR_FAILED;
	for (int i = 0; i < sqlite3_column_count(row); i++)
		if (sqlite3_bind_value(stmt, i + 1, sqlite3_column_value(row, i)) != SQLITE_OK)
			return db_error(apply->to, apply->error, "database");
	return db_next(apply->to, stmt, apply->error);
}

static int apply_inode(struct apply *apply, sqlite3_stmt *row)
{
	int rc = end_inode(apply, db_int(row, 0));

	if (rc)
		return rc;
	return copy_row(apply, row, "INSERT INTO inode VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
}

static int is_directory(struct apply *apply, int64_t ino, bool *yes)
{
	int64_t ignored;

	return query(apply, db_step(apply->to, apply->error, "SELECT 1 FROM inode WHERE ino=? AND mode & ? = ?", "iii", ino,
				    (int64_t)S_IFMT, (int64_t)S_IFDIR), yes, &ignored);
}

/* A directory has one name, its newest: else it could contain itself (fault 39). */
static int end_other_names(struct apply *apply, int64_t ino, int64_t dir, const void *name, size_t length)
{
	bool directory;
	int rc = is_directory(apply, ino, &directory);

	while (!rc && directory) {
		uint8_t other[255];
		rc = db_step(apply->to, apply->error, "SELECT dir, name FROM name WHERE ino=? AND (dir<>? OR name<>?) LIMIT 1",
			     "iib", ino, dir, name, length);
		if (rc != 1)
			break;
		sqlite3_stmt *stmt = db_last(apply->to);
		int64_t other_dir = db_int(stmt, 0);
		size_t other_length = (size_t)sqlite3_column_bytes(stmt, 1);
		if (other_length > sizeof(other)) {
			db_reset(stmt);
			return corrupt(apply, "a name in the catalogue is too long");
		}
		memcpy(other, sqlite3_column_blob(stmt, 1), other_length);
		db_reset(stmt);
		rc = end_name(apply, other_dir, other, other_length);
	}
	return rc;
}

static int apply_name(struct apply *apply, sqlite3_stmt *row)
{
	int rc = apply_name_end(apply, row);

	if (!rc)
		rc = copy_row(apply, row, "INSERT INTO name(dir, name, vfrom, ino) VALUES(?, ?, ?, ?)");
	if (!rc)
		rc = end_other_names(apply, db_int(row, 3), db_int(row, 0), sqlite3_column_blob(row, 1),
				     (size_t)sqlite3_column_bytes(row, 1));
	return rc;
}

static int apply_extent(struct apply *apply, sqlite3_stmt *row)
{
	int64_t ino = db_int(row, 0), start = db_int(row, 1), end = start + db_int(row, 3), other = 0;
	bool found = false;
	int rc = end_extent(apply, ino, start);

	/* The neighbours among what is there now; what is inserted later looks again. */
	if (!rc)
		rc = query(apply, db_step(apply->to, apply->error,
					  "SELECT start + length FROM extent WHERE ino=? AND start<? ORDER BY start DESC LIMIT 1",
					  "ii", ino, start), &found, &other);
	if (!rc && found && other > start)
		return corrupt(apply, "extents overlap");
	if (!rc)
		rc = query(apply, db_step(apply->to, apply->error,
					  "SELECT start FROM extent WHERE ino=? AND start>? ORDER BY start LIMIT 1", "ii", ino,
					  start), &found, &other);
	if (!rc && found && other < end)
		return corrupt(apply, "extents overlap");
	return rc ? rc : copy_row(apply, row, "INSERT INTO extent(ino, start, vfrom, length, chunk, skip) VALUES(?, ?, ?, ?, ?, ?)");
}

/* --- 4: packs and chunks --- */

static int apply_pack(struct apply *apply, sqlite3_stmt *row)
{
	bool found;
	int64_t ignored;
	int rc = query(apply, db_step(apply->to, apply->error, "SELECT 1 FROM pack WHERE num=?", "i", db_int(row, 0)), &found,
		       &ignored);

	if (!rc && found)
		return corrupt(apply, "a pack number is used twice");
	return rc ? rc : copy_row(apply, row, "INSERT INTO pack(num, id, salt, hash, size, record, vfrom) VALUES(?, ?, ?, ?, ?, ?, ?)");
}

static int apply_chunk(struct apply *apply, sqlite3_stmt *row)
{
	/* A relocation must stay the same bytes: same id and length under the same number. */
	int64_t num = db_int(row, 0), same;
	bool found;
	int rc = query(apply, db_step(apply->to, apply->error, "SELECT id=? AND length=? FROM chunk WHERE num=?", "bii",
				      sqlite3_column_blob(row, 1), (size_t)sqlite3_column_bytes(row, 1), db_int(row, 6), num),
		       &found, &same);

	if (!rc && found && !same)
		return corrupt(apply, "a chunk number is used for other bytes");
	if (!rc && found)
		rc = db_step(apply->to, apply->error, "INSERT OR REPLACE INTO undo_chunk SELECT ?, * FROM chunk WHERE num=?", "ii",
			     apply->seq, num);
	if (rc)
		return rc;
	return copy_row(apply, row,
			"INSERT OR REPLACE INTO chunk(num, id, pack, idx, offset, stored, length, codec, dictionary) "
			"VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)");
}

/* --- 5: pins --- */

static int remember_pin(struct apply *apply, const char *name)
{
	return db_step(apply->to, apply->error,
		       "INSERT OR IGNORE INTO undo_pin(version, name, seq) VALUES(?1, ?2, (SELECT seq FROM pin WHERE name=?2))",
		       "it", apply->seq, name);
}

static int apply_pin_end(struct apply *apply, sqlite3_stmt *row)
{
	const char *name = (const char *)sqlite3_column_text(row, 0);
	int rc = remember_pin(apply, name);

	return rc ? rc : db_step(apply->to, apply->error, "DELETE FROM pin WHERE name=?", "t", name);
}

static int apply_pin(struct apply *apply, sqlite3_stmt *row)
{
	int rc = remember_pin(apply, (const char *)sqlite3_column_text(row, 0));

	return rc ? rc : copy_row(apply, row, "INSERT OR REPLACE INTO pin(name, seq) VALUES(?, ?)");
}

/* The names of an inode that this version brings as a directory: it had them before it was one. */
static int check_directory(struct apply *apply, sqlite3_stmt *row)
{
	bool found;
	int64_t count;
	int rc = query(apply, db_step(apply->to, apply->error, "SELECT count(*) FROM name WHERE ino=?", "i", db_int(row, 0)),
		       &found, &count);

	return !rc && count > 1 ? corrupt(apply, "a directory has two names") : rc;
}

int delta_apply(struct delta *delta, struct db_conn *conn, struct error *error)
{
	static const struct {
		const char *sql;
		int (*row)(struct apply *, sqlite3_stmt *);
	} steps[] = {
		{"SELECT seq, time_s, cut_ns, server_s, flags FROM version", apply_version},
		{"SELECT seq, server_s FROM version_server", apply_version_server},
		{"SELECT ino, start FROM extent_end", apply_extent_end},
		{"SELECT dir, name FROM name_end", apply_name_end},
		{"SELECT ino FROM inode_end", apply_inode_end},
		{"SELECT * FROM inode", apply_inode},
		{"SELECT * FROM name", apply_name},
		{"SELECT * FROM extent", apply_extent},
		{"SELECT * FROM pack", apply_pack},
		{"SELECT * FROM chunk", apply_chunk},
		{"SELECT name FROM pin_end", apply_pin_end},
		{"SELECT name, seq FROM pin", apply_pin},
		{"SELECT ino FROM inode WHERE mode & 61440 = 16384", check_directory},
	};
	struct apply apply = {.from = delta->conn, .to = conn, .error = error, .seq = delta->seq};
	struct version_row version;
	int rc = delta_get_version(delta, &version, error);

	if (rc)
		return rc;
	pthread_mutex_lock(&delta->lock);
	if (delta->failed)
		rc = error_set(error, delta->failed, 0, "version %lld: its delta is unusable after a failure",
			       (long long)delta->seq);
	for (size_t i = 0; i < TABLES_COUNT(steps) && !rc; i++)
		rc = each(&apply, steps[i].sql, steps[i].row);
	pthread_mutex_unlock(&delta->lock);
	int64_t confirmed = rc ? 0 : db_meta_int(conn, "confirmed", 0);
	if (!rc)
		rc = db_step(conn, error, "DELETE FROM undo_chunk WHERE version<=?", "i", confirmed);
	if (!rc)
		rc = db_step(conn, error, "DELETE FROM undo_pin WHERE version<=?", "i", confirmed);
	return rc;
}
