#include "db_schema.h"

#include "catalogue_schema.h"
#include "db_internal.h"

#include <stdio.h>

#define APPLICATION_ID 0x59535452 /* "YSTR" */

static int schema_create(struct db_conn *conn, struct error *error)
{
	static const char *const shared[] = SCHEMA_SHARED_TABLES;
	int rc = 0;

	for (size_t i = 0; i < sizeof(shared) / sizeof(*shared) && !rc; i++)
		rc = db_exec(conn, shared[i], error);
	if (!rc)
		rc = db_exec(conn, SCHEMA_LOCAL_INDEXES, error);
	if (!rc)
		rc = db_exec(conn, SCHEMA_LOCAL_TABLES, error);
	return rc;
}

static int schema_add_suspect(struct db_conn *conn, struct error *error)
{
	return db_exec(conn, SCHEMA_LOCAL_TABLES_2, error);
}

static int schema_unreadable(struct db_conn *conn, struct error *error)
{
	return db_exec(conn, SCHEMA_UNREADABLE, error);
}

/* migrations[v] brings a database from user_version v to v + 1; 0 is an empty file. A changed schema appends one. */
static int (*const migrations[])(struct db_conn *, struct error *) = {schema_create, schema_add_suspect, schema_unreadable};
#define DB_VERSION ((int64_t)(sizeof(migrations) / sizeof(*migrations)))

int64_t db_schema_newest(void)
{
	return DB_VERSION;
}

static int migrate_locked(struct db_conn *conn, int64_t from, struct error *error)
{
	char text[96];
	int rc = 0;

	for (int64_t v = from; v < DB_VERSION && !rc; v++)
		rc = migrations[v](conn, error);
	if (rc)
		return rc;
	snprintf(text, sizeof(text), "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID, (int)DB_VERSION);
	return db_exec(conn, text, error);
}

int db_schema_version(struct db_conn *conn, const char *path, int64_t *version, struct error *error)
{
	int64_t id, objects;
	int rc = db_pragma_int(conn, "PRAGMA application_id", &id, error);

	if (!rc)
		rc = db_pragma_int(conn, "PRAGMA user_version", version, error);
	if (!rc)
		rc = db_pragma_int(conn, "SELECT count(*) FROM sqlite_schema", &objects, error);
	if (rc)
		return rc;
	if (*version <= 0 ? *version || id || objects : id != APPLICATION_ID)
		return error_set(error, ERR_CORRUPT, 0, "%s: not a database of yester", path);
	if (*version > DB_VERSION)
		return error_set(error, ERR_UNSUPPORTED, 0, "%s: written by a newer yester (schema %lld); install that one",
				 path, (long long)*version);
	return 0;
}

int db_schema_bring_up(struct db_conn *conn, const char *path, struct error *error)
{
	int64_t version;
	int rc = db_schema_version(conn, path, &version, error);

	if (rc || version == DB_VERSION)
		return rc;
	rc = db_exec(conn, "BEGIN IMMEDIATE", error);
	if (rc)
		return rc;
	rc = migrate_locked(conn, version, error);
	if (!rc)
		rc = db_exec(conn, "COMMIT", error);
	if (rc)
		db_exec(conn, "ROLLBACK", NULL);
	return rc;
}
