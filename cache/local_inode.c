#include "catalogue.h"
#include "db_internal.h"

#include <string.h>

int catalogue_local_by_key(struct db_conn *conn, const void *key, size_t length, struct local_row *out)
{
	int rc = db_step(conn, NULL,
			 "SELECT ino, captured, size, mtime_ns, ctime_ns, racy FROM local_inode WHERE key=?", "b", key, length);

	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	sqlite3_stmt *stmt = db_last(conn);
	*out = (struct local_row){db_int(stmt, 0), db_int(stmt, 1), db_int(stmt, 2),
				  db_int(stmt, 3), db_int(stmt, 4), db_int(stmt, 5) != 0};
	db_reset(stmt);
	return 0;
}

int catalogue_local_set(struct db_conn *conn, const void *key, size_t length, const struct local_row *row,
			struct error *error)
{
	return db_step(conn, error,
		       "INSERT OR REPLACE INTO local_inode(ino, key, captured, size, mtime_ns, ctime_ns, racy) "
		       "VALUES(?, ?, ?, ?, ?, ?, ?)",
		       "ibiiiii", row->ino, key, length, row->captured, row->size, row->mtime_ns, row->ctime_ns,
		       (int64_t)row->racy);
}

int catalogue_local_forget(struct db_conn *conn, int64_t ino, struct error *error)
{
	return db_step(conn, error, "DELETE FROM local_inode WHERE ino=?", "i", ino);
}

int catalogue_local_captured(struct db_conn *conn, int64_t above, int (*fn)(void *context, int64_t seq, int64_t inodes), void *context)
{
	int rc = db_step(conn, NULL, "SELECT captured, count(*) FROM local_inode WHERE captured>? GROUP BY captured ORDER BY captured", "i",
			 above);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		rc = fn(context, db_int(stmt, 0), db_int(stmt, 1));
		if (rc)
			db_reset(stmt);
		else
			rc = db_next(conn, stmt, NULL);
	}
	return rc;
}

int catalogue_local_calm(struct db_conn *conn, int64_t before_ns, struct error *error)
{
	return db_step(conn, error,
		       "UPDATE local_inode SET racy=0 WHERE racy<>0 AND ctime_ns<? AND key NOT IN (SELECT key FROM journal_inode) "
		       "AND key NOT IN (SELECT key FROM backlog_inode)",
		       "i", before_ns);
}

int catalogue_local_key(struct db_conn *conn, int64_t ino, void *key, size_t *length)
{
	int rc = db_step(conn, NULL, "SELECT key FROM local_inode WHERE ino=?", "i", ino);

	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	size_t used = (size_t)sqlite3_column_bytes(db_last(conn), 0);
	rc = used <= *length ? 0 : ERR_CORRUPT;
	if (!rc) {
		memcpy(key, sqlite3_column_blob(db_last(conn), 0), used);
		*length = used;
	}
	db_reset(db_last(conn));
	return rc;
}
