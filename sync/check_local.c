/* The local database against the log. Each table is compared by the number of its rows and the sum of their hashes: equal multisets of rows have equal
 * sums, in whatever order they come, so nothing has to be sorted. */
#include "check_internal.h"

#include "buf.h"
#include "bytes.h"
#include "db_internal.h"
#include "volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct sum {
	uint64_t rows;
	uint64_t lanes[SHA256_BYTES / 8];
};

/* A row that was ended after the version in question counts as live in it (vto NULL). ?1: that version. Server times are left out: a
 * writer knows of its newest versions what the log does not say yet. */
static const struct {
	const char *table;
	bool same_head; /* comparable only when both know the same versions: rows are replaced in place, or have no version */
	const char *sql;
} tables[] = {
	{"version", false, "SELECT seq, time_s, cut_ns, flags FROM version WHERE seq<=?1"},
	{"inode", false,
	 "SELECT ino, vfrom, NULL, mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, btime_ns, target, xattrs "
	 "FROM inode WHERE vfrom<=?1 UNION ALL "
	 "SELECT ino, vfrom, iif(vto<=?1, vto, NULL), mode, uid, gid, nlink, size, rdev, atime_ns, mtime_ns, ctime_ns, "
	 "btime_ns, target, xattrs FROM inode_past WHERE vfrom<=?1"},
	{"name", false,
	 "SELECT dir, name, vfrom, NULL, ino FROM name WHERE vfrom<=?1 UNION ALL "
	 "SELECT dir, name, vfrom, iif(vto<=?1, vto, NULL), ino FROM name_past WHERE vfrom<=?1"},
	{"extent", false,
	 "SELECT ino, start, vfrom, NULL, length, chunk, skip FROM extent WHERE vfrom<=?1 UNION ALL "
	 "SELECT ino, start, vfrom, iif(vto<=?1, vto, NULL), length, chunk, skip FROM extent_past WHERE vfrom<=?1"},
	{"pack", true, "SELECT num, id, salt, hash, size, record FROM pack WHERE ?1>0"},
	{"chunk", true, "SELECT num, id, pack, idx, offset, stored, length, codec, dictionary FROM chunk WHERE ?1>0"},
	{"pin", true, "SELECT name, seq FROM pin WHERE ?1>0"},
};

/* Appends type, length and bytes of each column, so that no two rows look alike. */
static int encode_row(sqlite3_stmt *row, struct buf *out)
{
	int rc = 0, columns = sqlite3_column_count(row);

	buf_clear(out);
	for (int i = 0; i < columns && !rc; i++) {
		int type = sqlite3_column_type(row, i);
		rc = buf_append_u8(out, (uint8_t)type);
		if (rc || type == SQLITE_NULL)
			continue;
		if (type == SQLITE_INTEGER) {
			rc = buf_append_u64(out, (uint64_t)sqlite3_column_int64(row, i));
			continue;
		}
		const void *bytes = sqlite3_column_blob(row, i);
		size_t length = (size_t)sqlite3_column_bytes(row, i);
		rc = buf_append_u64(out, length);
		if (!rc && length)
			rc = buf_append(out, bytes, length);
	}
	return rc;
}

static void add_row(struct sum *sum, const struct buf *row)
{
	uint8_t hash[SHA256_BYTES];

	sha256(hash, row->data, row->length);
	for (size_t i = 0; i < SHA256_BYTES / 8; i++)
		sum->lanes[i] += get_u64(hash + 8 * i);
	sum->rows++;
}

static int sum_table(struct db_conn *conn, const char *sql, int64_t seq, struct sum *out, struct error *error)
{
	struct buf row = {0};
	int rc = db_step(conn, error, sql, "i", seq);
	sqlite3_stmt *stmt = db_last(conn);

	memset(out, 0, sizeof(*out));
	while (rc == 1) {
		rc = encode_row(stmt, &row) ? error_errno(error, ENOMEM, "catalogue") : 0;
		if (!rc) {
			add_row(out, &row);
			rc = db_next(conn, stmt, error);
		}
	}
	if (stmt)
		db_reset(stmt);
	buf_free(&row);
	return rc;
}

static int compare_tables(struct checking *checking, struct db_conn *local, struct db_conn *remote, int64_t seq,
			  bool same_head, struct error *error)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		struct sum here, there;
		char why[160];
		int rc;
		if (tables[i].same_head && !same_head)
			continue;
		rc = sum_table(local, tables[i].sql, seq, &here, error);
		if (!rc)
			rc = sum_table(remote, tables[i].sql, seq, &there, error);
		if (!rc && memcmp(&here, &there, sizeof(here)) != 0) {
			snprintf(why, sizeof(why), "table %s is not what the log says of version %lld (%" PRIu64 " rows here, %" PRIu64
				 " there)", tables[i].table, (long long)seq, here.rows, there.rows);
			rc = damage_add(checking, "local database", why, 0, NULL, 0, error);
		}
		if (rc)
			return rc;
	}
	return 0;
}

/* Fault 55: what was confirmed here must be there. */
static int check_rolled_back(struct checking *checking, struct db_conn *local, int64_t confirmed, struct error *error)
{
	uint8_t hash[SHA256_BYTES];
	char why[160];

	if (confirmed > checking->head.seq) {
		snprintf(why, sizeof(why), "the remote was rolled back: its newest version is %lld, this machine has confirmed %lld",
			 (long long)checking->head.seq, (long long)confirmed);
		return damage_add(checking, "log", why, 0, NULL, 0, error);
	}
	if (confirmed == checking->head.seq && confirmed > 0 && db_meta_int(local, "head", 0) == confirmed &&
	    db_meta_blob(local, "head_hash", hash, sizeof(hash)) == 0 &&
	    memcmp(hash, checking->head.hash, sizeof(hash)) != 0)
		return damage_add(checking, "log", "its newest record is not the one that this machine has confirmed", 0, NULL,
				  0, error);
	return 0;
}

int check_local(struct checking *checking, int64_t before, struct error *error)
{
	struct db *db = volume_db(checking->local);
	struct db_conn *local, *remote;
	int rc = db_read_begin(db, &local, error);

	if (rc)
		return rc;
	int64_t confirmed = db_meta_int(local, "confirmed", 0), head = db_meta_int(local, "head", 0);
	int64_t seq = confirmed < checking->head.seq ? confirmed : checking->head.seq;
	rc = check_rolled_back(checking, local, before, error);
	if (!rc)
		rc = db_read_begin(checking->work, &remote, error);
	if (!rc) {
		rc = compare_tables(checking, local, remote, seq, head == checking->head.seq && confirmed == head, error);
		db_read_end(checking->work, remote);
	}
	db_read_end(db, local);
	return rc;
}
