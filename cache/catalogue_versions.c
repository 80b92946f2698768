#include "catalogue.h"
#include "db_internal.h"

#include <sys/stat.h>

#define VERSION_COLUMNS "seq, time_s, cut_ns, server_s, flags"

static void version_get(sqlite3_stmt *stmt, struct version_row *out)
{
	*out = (struct version_row){db_int(stmt, 0), db_int(stmt, 1), db_int(stmt, 2), db_int(stmt, 3), db_int(stmt, 4)};
}

static int one_version(struct db_conn *conn, int rc, struct version_row *out)
{
	if (rc != 1)
		return rc ? rc : ERR_ABSENT;
	version_get(db_last(conn), out);
	db_reset(db_last(conn));
	return 0;
}

int catalogue_version_at(struct db_conn *conn, int64_t time_s, struct version_row *out)
{
	return one_version(conn,
			   db_step(conn, NULL,
				   "SELECT " VERSION_COLUMNS " FROM version WHERE time_s<=? AND flags & 1 = 0 "
				   "ORDER BY time_s DESC LIMIT 1", "i", time_s), out);
}

int catalogue_version_newest(struct db_conn *conn, bool any, struct version_row *out)
{
	return one_version(conn,
			   db_step(conn, NULL,
				   "SELECT " VERSION_COLUMNS " FROM version WHERE flags & ? = 0 ORDER BY seq DESC LIMIT 1", "i",
				   (int64_t)(any ? 0 : VERSION_PARTIAL)), out);
}

int catalogue_version_complete(struct db_conn *conn, struct version_row *out)
{
	return one_version(conn,
			   db_step(conn, NULL,
				   "SELECT " VERSION_COLUMNS " FROM version WHERE flags & ? = 0 ORDER BY seq DESC LIMIT 1", "i",
				   (int64_t)(VERSION_PARTIAL | VERSION_LACKING)), out);
}

int catalogue_version_get(struct db_conn *conn, int64_t seq, struct version_row *out)
{
	if (seq == CATALOGUE_LIVE)
		return catalogue_version_newest(conn, true, out);
	return one_version(conn, db_step(conn, NULL, "SELECT " VERSION_COLUMNS " FROM version WHERE seq=?", "i", seq), out);
}

int catalogue_version_each(struct db_conn *conn, int64_t after_seq,
			   int (*fn)(void *context, const struct version_row *row), void *context)
{
	struct db_loop loop;
	int rc = db_loop_begin(&loop, conn,
			       "SELECT " VERSION_COLUMNS " FROM version WHERE seq>? AND flags & 1 = 0 ORDER BY seq", "i",
			       after_seq);

	if (rc)
		return rc;
	while ((rc = db_loop_next(&loop)) == 1) {
		struct version_row row;
		version_get(loop.stmt, &row);
		rc = fn(context, &row);
		if (rc)
			break;
	}
	db_loop_end(&loop);
	return rc;
}

int catalogue_maxima(struct db_conn *conn, int64_t *ino, int64_t *chunk, int64_t *pack, int64_t *seq, int64_t *time_s)
{
	int rc = db_step(conn, NULL,
			 "SELECT max(ifnull((SELECT max(ino) FROM inode), 0), ifnull((SELECT max(ino) FROM inode_past), 0), "
			 "ifnull((SELECT max(ino) FROM local_inode), 0)), "
			 "ifnull((SELECT max(num) FROM chunk), 0), ifnull((SELECT max(num) FROM pack), 0), "
			 "ifnull((SELECT max(seq) FROM version), 0), ifnull((SELECT max(time_s) FROM version), 0)", "");

	if (rc != 1)
		return rc ? rc : ERR_FAILED;
	int64_t *const out[] = {ino, chunk, pack, seq, time_s};
	for (int i = 0; i < 5; i++)
		if (out[i])
			*out[i] = db_int(db_last(conn), i);
	db_reset(db_last(conn));
	return 0;
}

int catalogue_totals(struct db_conn *conn, int64_t *inodes, int64_t *bytes)
{
	int rc = db_step(conn, NULL, "SELECT count(*), ifnull(sum(size), 0) FROM inode WHERE mode & ? = ?", "ii",
			 (int64_t)S_IFMT, (int64_t)S_IFREG);

	if (rc != 1)
		return rc ? rc : ERR_FAILED;
	*inodes = db_int(db_last(conn), 0);
	*bytes = db_int(db_last(conn), 1);
	db_reset(db_last(conn));
	return 0;
}

/* --- The relational interval tree: see catalogue_schema.h --- */

int64_t catalogue_fork(int64_t vfrom, int64_t vto)
{
	uint64_t last = (uint64_t)vto - 1, below = (uint64_t)vfrom - 1;

	/* The highest bit in which last and vfrom - 1 differ: last, cleared below it, is in the interval and has the most zeros. */
	if (last <= below)
		return vfrom;
	return (int64_t)(last & (~UINT64_C(0) << (63 - __builtin_clzll(last ^ below))));
}

int catalogue_ancestors(int64_t seq, int64_t max_seq, int64_t out[64])
{
	int count = 0;

	if (seq < 1)
		return 0;
	for (int k = __builtin_ctzll((uint64_t)seq); k < 62 && (INT64_C(1) << k) <= max_seq; k++) {
		int64_t node = (seq >> (k + 1) << (k + 1)) | INT64_C(1) << k;
		if (node <= max_seq)
			out[count++] = node;
	}
	return count;
}
