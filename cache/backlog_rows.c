#include "backlog_rows.h"

#include "db_internal.h"

#include <string.h>

static int key_get(sqlite3_stmt *stmt, int column, struct node_key *out)
{
	int length = sqlite3_column_bytes(stmt, column);

	memset(out, 0, sizeof(*out));
	if (length > NODE_KEY_MAX)
		return ERR_CORRUPT;
	if (length)
		memcpy(out->bytes, sqlite3_column_blob(stmt, column), (size_t)length);
	out->length = (uint8_t)length;
	return 0;
}

static int name_get(sqlite3_stmt *stmt, struct backlog_name *out)
{
	int length = sqlite3_column_bytes(stmt, 2);

	memset(out->name, 0, sizeof(out->name));
	out->num = db_int(stmt, 0);
	if (length < 1 || length > 255)
		return ERR_CORRUPT;
	memcpy(out->name, sqlite3_column_blob(stmt, 2), (size_t)length);
	int rc = key_get(stmt, 1, &out->dir);
	return rc ? rc : key_get(stmt, 3, &out->child);
}

int backlog_names_next(struct db_conn *conn, int64_t after, struct backlog_name *out, int room)
{
	int count = 0;
	int rc = db_step(conn, NULL, "SELECT num, dir, name, child FROM backlog_name WHERE num>? AND unreadable=0 ORDER BY num LIMIT ?", "ii", after,
			 (int64_t)room);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		rc = name_get(stmt, &out[count]);
		if (rc) {
			db_reset(stmt);
			break;
		}
		count++;
		rc = db_next(conn, stmt, NULL);
	}
	return rc ? rc : count;
}

int backlog_inodes_next(struct db_conn *conn, int64_t after, struct backlog_inode *out, int room)
{
	int count = 0;
	int rc = db_step(conn, NULL, "SELECT num, bytes, key FROM backlog_inode WHERE num>? AND unreadable=0 ORDER BY num LIMIT ?", "ii", after,
			 (int64_t)room);
	sqlite3_stmt *stmt = db_last(conn);

	while (rc == 1) {
		out[count].num = db_int(stmt, 0);
		out[count].bytes = db_int(stmt, 1);
		rc = key_get(stmt, 2, &out[count].key);
		if (rc) {
			db_reset(stmt);
			break;
		}
		count++;
		rc = db_next(conn, stmt, NULL);
	}
	return rc ? rc : count;
}

static int one_row(struct db_conn *conn, const struct node_key *key, int64_t *bytes)
{
	int rc = db_step(conn, NULL, "SELECT bytes FROM backlog_inode WHERE key=?", "b", key->bytes, (size_t)key->length);

	if (rc == 1) {
		*bytes = db_int(db_last(conn), 0);
		db_reset(db_last(conn));
	}
	return rc;
}

bool backlog_has_inode(struct db_conn *conn, const struct node_key *key)
{
	int64_t bytes;

	return one_row(conn, key, &bytes) != 0; /* unreadable counts as there: the careful answer */
}

int64_t backlog_inode_bytes(struct db_conn *conn, const struct node_key *key)
{
	int64_t bytes;

	return one_row(conn, key, &bytes) == 1 ? bytes : 0;
}

bool backlog_is_unreadable(struct db_conn *conn, const struct node_key *key)
{
	int rc = db_step(conn, NULL, "SELECT 1 FROM backlog_inode WHERE key=? AND unreadable<>0", "b", key->bytes, (size_t)key->length);

	if (rc == 1)
		db_reset(db_last(conn));
	return rc == 1;
}

int backlog_add_inode(struct db_conn *conn, const struct node_key *key, int64_t bytes, bool unreadable, struct error *error)
{
	return db_step(conn, error,
		       "INSERT INTO backlog_inode(key, bytes, unreadable) VALUES(?, ?, ?) "
		       "ON CONFLICT(key) DO UPDATE SET unreadable=excluded.unreadable",
		       "bii", key->bytes, (size_t)key->length, bytes, (int64_t)unreadable);
}

int backlog_add_name(struct db_conn *conn, const struct node_key *dir, const char *name, const struct node_key *child,
		     bool unreadable, struct error *error)
{
	const void *bytes = child && child->length ? child->bytes : NULL;

	return db_step(conn, error, "INSERT OR REPLACE INTO backlog_name(dir, name, child, unreadable) VALUES(?, ?, ?, ?)", "bbni",
		       dir->bytes, (size_t)dir->length, name, strlen(name), bytes, bytes ? (size_t)child->length : 0,
		       (int64_t)unreadable);
}

int backlog_refuse_name(struct db_conn *conn, int64_t num, struct error *error)
{
	return db_step(conn, error, "UPDATE backlog_name SET unreadable=1 WHERE num=?", "i", num);
}

int backlog_refuse_inode(struct db_conn *conn, int64_t num, struct error *error)
{
	return db_step(conn, error, "UPDATE backlog_inode SET unreadable=1 WHERE num=?", "i", num);
}

int backlog_drop_inode(struct db_conn *conn, const struct node_key *key, struct error *error)
{
	return db_step(conn, error, "DELETE FROM backlog_inode WHERE key=?", "b", key->bytes, (size_t)key->length);
}

int backlog_drop_unreadable_name(struct db_conn *conn, const struct node_key *dir, const char *name, struct error *error)
{
	return db_step(conn, error, "DELETE FROM backlog_name WHERE dir=? AND name=? AND unreadable<>0", "bb", dir->bytes,
		       (size_t)dir->length, name, strlen(name));
}

int backlog_drop_name(struct db_conn *conn, int64_t num, struct error *error)
{
	return db_step(conn, error, "DELETE FROM backlog_name WHERE num=?", "i", num);
}
