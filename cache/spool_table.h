/* spool_table: rows of the table `spool`: the sealed objects of the spool directory and how far each has got; and what the store's answers taught us: which version is confirmed, and when
 * (server time). The objects themselves are sync/spool's.
 *
 *   state      of a pack                      of a log record
 *   waiting    not yet in the remote          not yet sent
 *   attempted  -                              may be in the remote: the row is durable before the PUT (PROTOCOL Commit 4)
 *   done       acknowledged                   confirmed
 *
 * All functions work on a connection of the caller, inside his transaction. 0 or enum err, with *error filled when there is one. */
#ifndef YESTER_SPOOL_TABLE_H
#define YESTER_SPOOL_TABLE_H

#include "db.h"

#include <stdbool.h>
#include <stdint.h>

enum spool_kind { SPOOL_PACK = 1, SPOOL_RECORD = 2 };
enum spool_state { SPOOL_WAITING = 0, SPOOL_ATTEMPTED = 1, SPOOL_DONE = 2 };

#define SPOOL_OBJECT_BYTES 80
struct spool_row {
	char object[SPOOL_OBJECT_BYTES]; /* its key in the remote; file name in the spool: '/' becomes '.' */
	int64_t seq;                     /* the version that brings it */
	int64_t kind, size, state;       /* enum spool_kind; bytes; enum spool_state */
	uint8_t hash[32];                /* SHA-256 of its bytes */
};

int spool_row_add(struct db_conn *conn, const struct spool_row *row, struct error *error);
int spool_row_set_state(struct db_conn *conn, const char *object, enum spool_state state, struct error *error);
int spool_row_delete(struct db_conn *conn, const char *object, struct error *error);
/* Of all versions above seq. */
int spool_rows_delete_above(struct db_conn *conn, int64_t seq, struct error *error);
/* ERR_ABSENT. */
int spool_row_get(struct db_conn *conn, const char *object, struct spool_row *out);
/* Rows of versions above after_seq, ascending, packs before the record; pending: only those that are not done. fn's first non-zero result stops and is returned. fn may not come back here. */
int spool_row_each(struct db_conn *conn, int64_t after_seq, bool pending, int (*fn)(void *context, const struct spool_row *),
		   void *context);
/* Sum of the sizes that are done, each rounded up to 4 KiB. */
int spool_rows_done_bytes(struct db_conn *conn, int64_t *bytes);
/* The oldest rows that are done, of versions up to max_seq: at most `room` into out. Their number, or enum err. */
int spool_rows_oldest_done(struct db_conn *conn, int64_t max_seq, struct spool_row *out, int room);

/* --- Server time of versions. Kept in version.server_s at once; a later record tells it to the log. */
int version_set_server(struct db_conn *conn, int64_t seq, int64_t server_s, struct error *error);
/* Versions with a known server time, above after_seq. */
int version_each_server(struct db_conn *conn, int64_t after_seq, int (*fn)(void *context, int64_t seq, int64_t server_s),
			void *context);

/* --- Take-over (PROTOCOL): versions above seq are another writer's. What they changed counts as not captured; inodes that no version holds are forgotten (their numbers may be
 * given to others). */
int local_inode_distrust(struct db_conn *conn, int64_t seq, struct error *error);

#endif
