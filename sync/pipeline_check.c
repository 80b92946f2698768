/* What fits together before the sync thread goes on: the spool, and whose log it is. */
#include "pipeline_internal.h"

#include "contact.h"
#include "repair.h"

#include <string.h>

static void set_head(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.head = pipeline->env.head;
	pipeline->partial_head = pipeline->env.head_partial || pipeline->env.head_lacking || pipeline->env.head == 0;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

struct meta { int64_t head, confirmed, must_take_over, rebuilt, fenced, held; uint8_t hash[SHA256_BYTES]; bool hash_known; };

/* Zeros, saved, would make the remote another than ours for good. */
static int read_confirmed_hash(struct db_conn *conn, struct meta *out, struct error *error)
{
	bool known = out->confirmed == 0;
	int rc = known ? 0 : db_meta_read_blob(conn, "confirmed_hash", out->hash, SHA256_BYTES, &known, error);

	out->hash_known = known;
	if (!rc && !known && out->head == out->confirmed) /* as a recovery left it */
		rc = db_meta_read_blob(conn, "head_hash", out->hash, SHA256_BYTES, &known, error);
	if (!rc && !known)
		rc = error_set(error, ERR_CORRUPT, 0, "the local database does not know the hash of version %lld", (long long)out->confirmed);
	return rc;
}

static int read_meta(struct pipeline *pipeline, struct meta *out, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	const struct { const char *name; int64_t *value; } wanted[] = {
		{"head", &out->head}, {"confirmed", &out->confirmed}, {"must_take_over", &out->must_take_over},
		{"rebuilt", &out->rebuilt}, {"fenced", &out->fenced}, {"uploads_held", &out->held},
	};
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	*out = (struct meta){0};
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted) && !rc; i++)
		rc = db_meta_read_int(conn, wanted[i].name, 0, wanted[i].value, error);
	if (!rc)
		rc = read_confirmed_hash(conn, out, error);
	db_read_end(db, conn);
	return rc;
}

static int save_confirmed_hash(struct pipeline *pipeline, const struct meta *meta, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = db_meta_set_blob(conn, "confirmed_hash", meta->hash, SHA256_BYTES, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

static int spooled_record(struct pipeline *pipeline, int64_t seq, struct spool_row *row, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	char key[RECORD_KEY_BYTES];
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	record_key(key, seq);
	rc = spool_row_get(conn, key, row);
	db_read_end(db, conn);
	return rc && rc != ERR_ABSENT ? error_set(error, rc, 0, "spool: can't read its table") : rc;
}

/* Whether there is anything to take over: asking is harmless, and history that is ours alone is not thrown away for nothing. As upload would find it out (Commit 7, 6), but before the first cut. */
static int must_take_over(struct pipeline *pipeline, const struct meta *meta, bool *must, struct error *error)
{
	struct store *store = pipeline->parts.store;
	struct spool_row row = {.state = SPOOL_WAITING};
	int rc;

	*must = meta->must_take_over || meta->rebuilt || meta->fenced;
	if (*must)
		return 0;
	rc = spooled_record(pipeline, meta->confirmed + 1, &row, error);
	if (rc && rc != ERR_ABSENT)
		return rc;
	bool attempted = !rc && row.state == SPOOL_ATTEMPTED;
	rc = contact_check(store, volume_db(pipeline->parts.volume), meta->confirmed, meta->hash, attempted, error);
	*must = rc == ERR_FENCED;
	if (!rc && attempted) {
		rc = contact_compare(store, row.object, (uint64_t)row.size, row.hash, NULL, error);
		*must = rc == ERR_EXISTS;
		rc = rc == ERR_ABSENT ? 0 : rc;
	}
	return *must ? 0 : rc;
}

/* ERR_FENCED: followed, but what is there is another's, and nobody asked for it. */
static int take_over(struct pipeline *pipeline, const struct meta *meta, bool *followed, struct error *error)
{
	const struct pipeline_parts *parts = &pipeline->parts;
	bool must, asked = parts->take_over || meta->must_take_over;
	int rc;

	*followed = false;
	if (!pipeline->taking_over && !meta->must_take_over && (!meta->rebuilt || meta->fenced))
		return 0;
	rc = must_take_over(pipeline, meta, &must, error);
	if (rc || !must) {
		pipeline->taking_over &= rc != 0;
		return rc;
	}
	pipeline->taking_over = true;
	rc = repair_take_over(parts->volume, parts->store, parts->master, parts->spool, asked, error);
	if (rc && rc != ERR_FENCED)
		return rc;
	*followed = pipeline->force = true;
	pipeline->taking_over = !rc;
	return rc;
}

int pipeline_check(struct pipeline *pipeline, struct error *error)
{
	const struct pipeline_parts *parts = &pipeline->parts;
	bool rolled_back = false, followed = false, refused;
	struct error why;
	struct meta meta;
	int rc;

	upload_pause(parts->upload);
	rc = read_meta(pipeline, &meta, error);
	if (!rc) /* until the rescan has judged anew */
		upload_hold(parts->upload, meta.held && !parts->accept_loss);
	if (!rc && !meta.hash_known)
		rc = save_confirmed_hash(pipeline, &meta, error);
	if (!rc)
		rc = take_over(pipeline, &meta, &followed, error);
	refused = rc == ERR_FENCED;
	if (refused) {
		why = *error;
		rc = 0;
	}
	if (!rc && !followed) /* else the spool is empty */
		rc = repair_spool(parts->volume, parts->store, parts->spool, &rolled_back, error);
	if (rolled_back || followed) {
		pthread_mutex_lock(&pipeline->lock); /* before upload says what is confirmed now */
		pipeline->rollbacks++;
		pipeline_tell(pipeline);
		pthread_mutex_unlock(&pipeline->lock);
	}
	if (!rc)
		rc = upload_reload(parts->upload, error);
	if (followed)
		pipeline->env.first_seq = 0; /* I17: what comes next follows another's record */
	if (!rc)
		rc = seal_env_load(&pipeline->env, error);
	if (rc)
		return rc;
	pipeline->force |= rolled_back;
	set_head(pipeline);
	if (refused)
		upload_fence(parts->upload, &why);
	upload_resume(parts->upload, followed && !refused, followed && !refused);
	return 0;
}
