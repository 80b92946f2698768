/* What is safe, what is on its way, and what is wrong (I24). */
#include "engine_internal.h"

#include "clock.h"

#include <stdio.h>
#include <string.h>

static void put_counts(struct engine *engine, struct engine_status *out)
{
	struct store_counts counts;

	store_get_counts(engine->store, &counts);
	out->uploaded_bytes = counts.bytes_up;
	out->put = counts.put;
	out->get = counts.get;
	out->list = counts.list;
	out->delete_ = counts.delete_;
	out->head_requests = counts.head;
}

void engine_status_at_rest(struct engine *engine, struct engine_status *out)
{
	struct db *db = volume_db(engine->volume);
	struct db_conn *conn;

	memset(out, 0, sizeof(*out));
	memcpy(out->volume_id, master_volume_id(engine->master), sizeof(out->volume_id));
	if (db_read_begin(db, &conn, NULL))
		return;
	out->head = db_meta_int(conn, "head", 0);
	out->confirmed = db_meta_int(conn, "confirmed", 0);
	out->safe_until_ns = db_meta_int(conn, "confirmed_cut_ns", 0);
	if (db_meta_blob(conn, "confirmed_hash", out->head_hash, sizeof(out->head_hash)))
		memset(out->head_hash, 0, sizeof(out->head_hash));
	out->state = out->head > out->confirmed ? ENGINE_SYNCING : ENGINE_SYNCED;
	if (db_meta_int(conn, "uploads_held", 0))
		out->state = ENGINE_DEGRADED;
	if (db_meta_int(conn, "fenced", 0))
		out->state = ENGINE_FENCED;
	db_read_end(db, conn);
}

/* ---------------------------------------------------------------- while it runs */

struct seen {
	struct pipeline_status pipeline;
	struct upload_status upload;
	struct journal_counts journal;
};

static bool is_scanning(const struct seen *seen)
{
	return seen->pipeline.phase == PIPELINE_CHECKING || seen->pipeline.phase == PIPELINE_SCANNING || seen->pipeline.importing;
}

static bool is_all_confirmed(const struct seen *seen)
{
	return seen->pipeline.clean && seen->upload.contact && seen->upload.confirmed == seen->pipeline.head;
}

static enum engine_state state_of(const struct seen *seen)
{
	int local = seen->pipeline.error.code;

	if ((seen->upload.fenced && seen->pipeline.phase != PIPELINE_CHECKING) || local == ERR_FENCED)
		return ENGINE_FENCED;
	if (seen->pipeline.held || seen->upload.trouble == UPLOAD_REFUSED || (local && local != ERR_RETRY))
		return ENGINE_DEGRADED;
	if (seen->upload.trouble == UPLOAD_OFFLINE || local == ERR_RETRY)
		return ENGINE_OFFLINE;
	if (is_scanning(seen))
		return ENGINE_SCANNING;
	return is_all_confirmed(seen) ? ENGINE_SYNCED : ENGINE_SYNCING;
}

static double oldest_pending(const struct seen *seen)
{
	int64_t wall = clock_wall_ns(), mono = clock_mono_ns(), oldest = 0;
	int64_t first = seen->journal.first_change_ns;

	if (first)
		oldest = mono - first;
	if (seen->journal.frozen_first_ns && mono - seen->journal.frozen_first_ns > oldest)
		oldest = mono - seen->journal.frozen_first_ns;
	if (seen->upload.oldest_cut_ns && wall - seen->upload.oldest_cut_ns > oldest)
		oldest = wall - seen->upload.oldest_cut_ns;
	return (double)oldest / (double)NS_PER_S;
}

static void put_error(const struct seen *seen, struct engine_status *out)
{
	const struct error *local = &seen->pipeline.error, *remote = &seen->upload.error;
	bool first_local = local->code && (!remote->code || seen->pipeline.held || seen->pipeline.damaged || seen->pipeline.error_ns > seen->upload.error_ns);
	const struct error *error = first_local ? local : remote;

	if (!error->code)
		return;
	snprintf(out->last_error, sizeof(out->last_error), "%.511s", error->message);
	out->last_error_ns = first_local ? seen->pipeline.error_ns : seen->upload.error_ns;
}

static void fill(struct engine *engine, const struct seen *seen, struct engine_status *out)
{
	out->state = state_of(seen);
	out->head = seen->pipeline.head;
	out->confirmed = seen->upload.confirmed;
	out->safe_until_ns = seen->upload.confirmed_cut_ns;
	if (is_all_confirmed(seen) && out->safe_until_ns)
		out->safe_until_ns = INT64_MAX;
	out->spool_bytes = spool_pending_bytes(engine->spool);
	out->pending_files = seen->journal.dirty_inodes + seen->pipeline.sealing_files + seen->upload.files +
			     seen->pipeline.backlog_files;
	out->pending_bytes = (seen->journal.dirty_bytes > 0 ? (uint64_t)seen->journal.dirty_bytes : 0) +
			     (uint64_t)seen->journal.frozen_bytes + out->spool_bytes + seen->pipeline.backlog_bytes;
	out->suspect_files = seen->pipeline.suspects;
	out->oldest_pending_seconds = oldest_pending(seen);
	out->backlog_files = seen->pipeline.backlog_files;
	out->backlog_bytes = seen->pipeline.backlog_bytes;
	out->scanned = seen->pipeline.scanned;
	out->scanning = seen->pipeline.phase == PIPELINE_SCANNING;
	out->importing = seen->pipeline.importing;
	put_error(seen, out);
	memcpy(out->volume_id, master_volume_id(engine->master), sizeof(out->volume_id));
	memcpy(out->head_hash, seen->upload.confirmed_hash, sizeof(out->head_hash));
}

void engine_status(struct engine *engine, struct engine_status *out)
{
	struct seen seen;

	/* The lock keeps the parts from going meanwhile; nothing below waits for anything. */
	pthread_mutex_lock(&engine->lock);
	if (!engine->running) {
		*out = engine->last;
		goto out;
	}
	memset(out, 0, sizeof(*out));
	pipeline_get_status(engine->pipeline, &seen.pipeline);
	/* After the pipeline: a head seen then is confirmed now, or not yet; never the other way round. */
	upload_get_status(engine->upload, &seen.upload);
	journal_get_counts(volume_journal(engine->volume), &seen.journal);
	fill(engine, &seen, out);
out:
	put_counts(engine, out);
	pthread_mutex_unlock(&engine->lock);
}
