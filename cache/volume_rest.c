#include "volume_rest.h"

#include "catalogue.h"
#include "rescan.h"
#include "spool_table.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static int read_journal(struct db_conn *conn, struct volume_rest *out, struct error *error)
{
	/* An inode may have rows of several epochs. Names without a dirty inode are changes too, but no files. */
	int rc = db_step(conn, error, "SELECT count(DISTINCT key), (SELECT count(*) FROM suspect) FROM journal_inode", "");

	if (rc == 1) {
		out->pending_files = (uint64_t)sqlite3_column_int64(db_last(conn), 0);
		out->suspect_files = (uint64_t)sqlite3_column_int64(db_last(conn), 1);
		db_reset(db_last(conn));
	}
	return rc < 0 ? rc : 0;
}

static int add_spooled(void *context, const struct spool_row *row)
{
	struct volume_rest *out = context;

	out->spool_bytes += (uint64_t)row->size;
	out->pending_bytes += (uint64_t)row->size;
	return 0;
}

static int add_captured(void *context, int64_t seq, int64_t inodes)
{
	(void)seq;
	((struct volume_rest *)context)->pending_files += (uint64_t)inodes;
	return 0;
}

static int read_spool(struct db_conn *conn, struct volume_rest *out)
{
	struct version_row version;
	int rc = spool_row_each(conn, 0, true, add_spooled, out);

	if (rc || out->head <= out->confirmed)
		return rc;
	if (catalogue_version_get(conn, out->confirmed + 1, &version) == 0)
		out->oldest_cut_ns = version.cut_ns;
	return catalogue_local_captured(conn, out->confirmed, add_captured, out);
}

/* log/head's hash stands in meta; that of an earlier record only while its row is kept. */
static void find_hash(struct db_conn *conn, struct volume_rest *out)
{
	char object[SPOOL_OBJECT_BYTES];
	struct spool_row row;

	if (out->confirmed == 0)
		return;
	if (out->confirmed == out->head) {
		out->has_confirmed_hash =
			db_meta_blob(conn, "head_hash", out->confirmed_hash, sizeof out->confirmed_hash) == 0;
		return;
	}
	snprintf(object, sizeof object, "log/%016" PRIx64, (uint64_t)out->confirmed);
	if (spool_row_get(conn, object, &row) != 0)
		return;
	memcpy(out->confirmed_hash, row.hash, sizeof out->confirmed_hash);
	out->has_confirmed_hash = true;
}

static int read_all(struct db_conn *conn, struct volume_rest *out, struct error *error)
{
	struct backlog_counts backlog;
	int rc = db_meta_blob(conn, "volume_id", out->volume_id, sizeof out->volume_id);

	if (rc != 0)
		return error_set(error, ERR_CORRUPT, 0, "the database does not say which volume it belongs to");
	out->head = db_meta_int(conn, "head", 0);
	out->confirmed = db_meta_int(conn, "confirmed", 0);
	out->confirmed_cut_ns = db_meta_int(conn, "confirmed_cut_ns", 0);
	out->imported = db_meta_int(conn, "imported", 0) == 1;
	out->fenced = db_meta_int(conn, "fenced", 0) == 1;
	out->must_take_over = db_meta_int(conn, "must_take_over", 0) == 1;
	out->uploads_held = db_meta_int(conn, "uploads_held", 0) == 1;
	find_hash(conn, out);
	rc = read_journal(conn, out, error);
	if (rc == 0)
		rc = read_spool(conn, out);
	if (rc == 0)
		rc = backlog_count(conn, &backlog);
	if (rc < 0)
		return error_set(error, rc, 0, "the database can't be read: %s", error_word(rc));
	out->backlog_files = backlog.inodes + backlog.unreadable;
	out->backlog_bytes = backlog.bytes;
	out->pending_files += out->backlog_files;
	out->pending_bytes += out->backlog_bytes;
	return 0;
}

int volume_rest_read(struct volume *volume, struct volume_rest *out, struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(volume), &conn, error);

	memset(out, 0, sizeof *out);
	if (rc < 0)
		return rc;
	rc = read_all(conn, out, error);
	db_read_end(volume_db(volume), conn);
	return rc;
}
