/* The table meta: numbers and blobs by name (volume.h lists them). */
#include "db_internal.h"

int db_meta_read_int(struct db_conn *conn, const char *name, int64_t otherwise, int64_t *out, struct error *error)
{
	int rc = db_step(conn, error, "SELECT value FROM meta WHERE name=? AND typeof(value)='integer'", "t", name);

	*out = otherwise;
	if (rc != 1)
		return rc;
	*out = db_int(db_last(conn), 0);
	db_reset(db_last(conn));
	return 0;
}

int64_t db_meta_int(struct db_conn *conn, const char *name, int64_t otherwise)
{
	int64_t value;

	db_meta_read_int(conn, name, otherwise, &value, NULL);
	return value;
}

int db_meta_set_int(struct db_conn *conn, const char *name, int64_t value, struct error *error)
{
	return db_step(conn, error, "INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", "ti", name, value);
}

int db_meta_read_blob(struct db_conn *conn, const char *name, void *out, size_t length, bool *known, struct error *error)
{
	int rc = db_step(conn, error, "SELECT value FROM meta WHERE name=? AND typeof(value)='blob'", "t", name);

	*known = false;
	if (rc != 1)
		return rc;
	*known = db_blob(db_last(conn), 0, out, length) == 0;
	db_reset(db_last(conn));
	return 0;
}

int db_meta_blob(struct db_conn *conn, const char *name, void *out, size_t length)
{
	bool known;
	int rc = db_meta_read_blob(conn, name, out, length, &known, NULL);

	return rc || known ? rc : ERR_ABSENT;
}

int db_meta_set_blob(struct db_conn *conn, const char *name, const void *data, size_t length, struct error *error)
{
	return db_step(conn, error, "INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", "tb", name, data, length);
}
