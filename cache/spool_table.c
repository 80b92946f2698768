#include "spool_table.h"

#include "db_internal.h"
#include "err.h"

#include <string.h>

#define COLUMNS "object, seq, kind, size, hash, state"
#define ROUND_BYTES 4096 /* what a small file takes on disk */

int spool_row_add(struct db_conn *conn, const struct spool_row *row, struct error *error)
{
	return db_step(conn, error,
		       "INSERT INTO spool(object, seq, kind, file, size, hash, state) VALUES(?1, ?2, ?3, replace(?1, '/', '.'), ?4, ?5, ?6)",
		       "tiiibi", row->object, row->seq, row->kind, row->size, row->hash, sizeof(row->hash), row->state);
}

int spool_row_set_state(struct db_conn *conn, const char *object, enum spool_state state, struct error *error)
{
	return db_step(conn, error, "UPDATE spool SET state=? WHERE object=?", "it", (int64_t)state, object);
}

int spool_row_delete(struct db_conn *conn, const char *object, struct error *error)
{
	return db_step(conn, error, "DELETE FROM spool WHERE object=?", "t", object);
}

int spool_rows_delete_above(struct db_conn *conn, int64_t seq, struct error *error)
{
	return db_step(conn, error, "DELETE FROM spool WHERE seq>?", "i", seq);
}

static int row_get(sqlite3_stmt *stmt, struct spool_row *out)
{
	const char *object = (const char *)sqlite3_column_text(stmt, 0);

	memset(out, 0, sizeof(*out));
	if (!object || strlen(object) >= sizeof(out->object))
		return ERR_CORRUPT;
	strcpy(out->object, object);
	out->seq = db_int(stmt, 1);
	out->kind = db_int(stmt, 2);
	out->size = db_int(stmt, 3);
	out->state = db_int(stmt, 5);
	return db_blob(stmt, 4, out->hash, sizeof(out->hash));
}

int spool_row_get(struct db_conn *conn, const char *object, struct spool_row *out)
{
	int rc = db_step(conn, NULL, "SELECT " COLUMNS " FROM spool WHERE object=?", "t", object);

	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	rc = row_get(db_last(conn), out);
	db_reset(db_last(conn));
	return rc;
}

int spool_row_each(struct db_conn *conn, int64_t after_seq, bool pending, int (*fn)(void *, const struct spool_row *),
		   void *context)
{
	int64_t below = pending ? SPOOL_DONE : SPOOL_DONE + 1;
	int rc = db_step(conn, NULL, "SELECT " COLUMNS " FROM spool WHERE seq>? AND state<? ORDER BY seq, kind", "ii", after_seq,
			 below);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		struct spool_row row;
		rc = row_get(stmt, &row);
		if (!rc)
			rc = fn(context, &row);
		if (rc) {
			db_reset(stmt);
			break;
		}
		rc = db_next(conn, stmt, NULL);
	}
	return rc;
}

int spool_rows_done_bytes(struct db_conn *conn, int64_t *bytes)
{
	int rc = db_step(conn, NULL, "SELECT ifnull(sum((size + ?1 - 1) / ?1 * ?1), 0) FROM spool WHERE state=?2", "ii",
			 (int64_t)ROUND_BYTES, (int64_t)SPOOL_DONE);

	if (rc != 1)
		return rc ? rc : ERR_FAILED;
	*bytes = db_int(db_last(conn), 0);
	db_reset(db_last(conn));
	return 0;
}

int spool_rows_oldest_done(struct db_conn *conn, int64_t max_seq, struct spool_row *out, int room)
{
	int count = 0;
	int rc = db_step(conn, NULL, "SELECT " COLUMNS " FROM spool WHERE seq<=? AND state=? ORDER BY seq LIMIT ?", "iii", max_seq,
			 (int64_t)SPOOL_DONE, (int64_t)room);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		rc = row_get(stmt, &out[count]);
		if (rc) {
			db_reset(stmt);
			break;
		}
		count++;
		rc = db_next(conn, stmt, NULL);
	}
	return rc ? rc : count;
}

/* ---------------------------------------------------------------- server time */

int version_set_server(struct db_conn *conn, int64_t seq, int64_t server_s, struct error *error)
{
	return db_step(conn, error, "UPDATE version SET server_s=? WHERE seq=?", "ii", server_s, seq);
}

int version_each_server(struct db_conn *conn, int64_t after_seq, int (*fn)(void *, int64_t, int64_t), void *context)
{
	int rc = db_step(conn, NULL, "SELECT seq, server_s FROM version WHERE seq>? AND server_s<>0 ORDER BY seq", "i", after_seq);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		rc = fn(context, db_int(stmt, 0), db_int(stmt, 1));
		if (rc) {
			db_reset(stmt);
			break;
		}
		rc = db_next(conn, stmt, NULL);
	}
	return rc;
}

/* ---------------------------------------------------------------- take-over */

int local_inode_distrust(struct db_conn *conn, int64_t seq, struct error *error)
{
	int rc = db_step(conn, error,
			 "UPDATE local_inode SET captured=0 WHERE captured<>0 AND ino IN "
			 "(SELECT ino FROM inode WHERE vfrom>?1 UNION SELECT ino FROM inode_past WHERE vto>?1)",
			 "i", seq);

	return rc ? rc : db_step(conn, error, "DELETE FROM local_inode WHERE ino NOT IN (SELECT ino FROM inode)", "");
}
