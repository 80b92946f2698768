/* db_schema: brings a database to the schema of this program (catalogue_schema.h has the tables). `path` is for messages. */
#ifndef YESTER_DB_SCHEMA_H
#define YESTER_DB_SCHEMA_H

#include "db.h"

int64_t db_schema_newest(void);
/* What conn's database has; 0: it is empty. ERR_CORRUPT: not one of ours; ERR_UNSUPPORTED: of a newer program. */
int db_schema_version(struct db_conn *conn, const char *path, int64_t *version, struct error *error);
/* In one transaction, on the connection that writes. As db_schema_version. */
int db_schema_bring_up(struct db_conn *conn, const char *path, struct error *error);

#endif
