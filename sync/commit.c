/* What one object needs to be in the remote, and known to be there: the durable steps of PROTOCOL Commit 3 to 7. No lock of upload is held in here, except for the moments that say so. */
#include "upload_internal.h"

#include "clock.h"
#include "contact.h"
#include "failpoint.h"
#include "log.h"

#include <string.h>
#include <unistd.h>

int commit_contact(struct upload *upload, struct error *error)
{
	uint8_t hash[SHA256_BYTES];

	pthread_mutex_lock(&upload->lock);
	int64_t confirmed = upload->status.confirmed;
	bool attempted = upload->records.first && upload->records.first->row.state == SPOOL_ATTEMPTED;
	memcpy(hash, upload->status.confirmed_hash, sizeof(hash));
	pthread_mutex_unlock(&upload->lock);
	FAILPOINT("upload/contact");
	return contact_check(upload->store, volume_db(upload->volume), confirmed, hash, attempted, error);
}

static int set_state(struct upload *upload, const char *object, enum spool_state state, bool durable, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(upload->volume), durable, &conn, error);

	if (rc)
		return rc;
	rc = spool_row_set_state(conn, object, state, error);
	if (!rc)
		return db_commit(volume_db(upload->volume), error);
	db_rollback(volume_db(upload->volume));
	return rc;
}

int commit_pack(struct upload *upload, struct spool_object *pack, struct error *error)
{
	struct store_body body;
	int rc = spool_body(upload->spool, &pack->row, &body, error);

	if (rc)
		return rc;
	FAILPOINT("upload/before-pack");
	rc = store_put(upload->store, pack->row.object, &body, NULL, error);
	close(body.fd);
	FAILPOINT("upload/after-pack");
	if (rc)
		return rc;
	pthread_mutex_lock(&upload->lock);
	bool registered = pack->registered, leaves = !registered && !pack->dropped;
	if (leaves) {
		pack->row.state = SPOOL_DONE;
		pack->gone = true;
	}
	pthread_mutex_unlock(&upload->lock);
	/* File first: who waits for room looks at what is counted. */
	if (leaves) {
		spool_unlink(upload->spool, pack->row.object);
		spool_count_gone(upload->spool, (uint64_t)pack->row.size);
	}
	/* Not synchronous: lost in a power cut, the pack is sent again; and the row `attempted` that relies on it is synchronous, and later in the same log. */
	if (registered)
		rc = set_state(upload, pack->row.object, SPOOL_DONE, false, error);
	FAILPOINT("upload/pack-acknowledged");
	return rc;
}

/* ---------------------------------------------------------------- log records */

static int on_object(void *context, const struct store_object *object)
{
	*(int64_t *)context = object->modified_s;
	return 1;
}

/* The store's time of an object that is there, when the answer to our PUT was lost. */
static int64_t time_of(struct upload *upload, const char *key)
{
	int64_t seconds = 0;

	store_list(upload->store, key, NULL, on_object, &seconds, NULL);
	return seconds > 0 ? seconds : clock_wall_ns() / NS_PER_S;
}

/* A store without conditional PUT, which the user has said is his alone: what is there decides. */
static int put_unconditional(struct upload *upload, const struct spool_row *row, const struct store_body *body, int64_t *server_ns,
			     struct error *error)
{
	int rc = contact_compare(upload->store, row->object, (uint64_t)row->size, row->hash, NULL, error);

	if (rc == 0)
		return ERR_EXISTS;
	return rc == ERR_ABSENT ? store_put(upload->store, row->object, body, server_ns, error) : rc;
}

/* PUT log/N. *server_s: when it got there. ERR_FENCED: other bytes are there. */
static int put_record(struct upload *upload, const struct spool_row *row, int64_t *server_s, struct error *error)
{
	struct store_body body;
	int64_t server_ns = 0;
	int rc = spool_body(upload->spool, row, &body, error);

	if (rc)
		return rc;
	rc = store_put_new(upload->store, row->object, &body, &server_ns, error);
	if (rc == ERR_UNSUPPORTED && volume_config(upload->volume)->unsafe_single_writer)
		rc = put_unconditional(upload, row, &body, &server_ns, error);
	close(body.fd);
	FAILPOINT("upload/after-log");
	*server_s = server_ns / NS_PER_S;
	if (rc != ERR_EXISTS)
		return rc;
	/* I16: ours is what is byte for byte ours. */
	rc = contact_compare(upload->store, row->object, (uint64_t)row->size, row->hash, NULL, error);
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_RETRY, 0, "%s: contradictory answers about %s", upload->store->url, row->object);
	if (rc == ERR_EXISTS)
		return error_set(error, ERR_FENCED, 0,
				 "%s: another machine has written version %lld; this one works on locally; mount here with -o take_over to go on "
				 "from its newest version",
				 upload->store->url, (long long)row->seq);
	if (!rc)
		*server_s = time_of(upload, row->object);
	return rc;
}

static int confirm_ownership(struct db_conn *conn, struct error *error)
{
	int rc = db_meta_set_int(conn, "must_take_over", 0, error);

	if (!rc)
		rc = db_meta_set_int(conn, "rebuilt", 0, error);
	if (!rc)
		rc = db_meta_set_int(conn, "fenced", 0, error);
	return rc ? rc : db_meta_set_int(conn, "take_over_from", -1, error);
}

static int confirm_rows(struct db_conn *conn, const struct spool_object *record, int64_t server_s, struct error *error)
{
	const struct spool_row *row = &record->row;
	int64_t log_bytes = db_meta_int(conn, "log_bytes", 0) + row->size; /* since the base: checkpointer.h */
	int rc = spool_row_set_state(conn, row->object, SPOOL_DONE, error);

	if (!rc)
		rc = db_meta_set_int(conn, "confirmed", row->seq, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "confirmed_hash", row->hash, sizeof(row->hash), error);
	if (!rc)
		rc = db_meta_set_int(conn, "last_server_s", server_s, error);
	if (!rc && !record->incomplete)
		rc = db_meta_set_int(conn, "confirmed_cut_ns", record->cut_ns, error);
	if (!rc)
		rc = db_meta_set_int(conn, "log_bytes", log_bytes, error);
	if (!rc)
		rc = version_set_server(conn, row->seq, server_s, error);
	if (!rc && (record->take_over || row->seq == 1)) /* the log's head is ours */
		rc = confirm_ownership(conn, error);
	return rc;
}

static int confirm(struct upload *upload, const struct spool_object *record, int64_t server_s, struct error *error)
{
	struct db *db = volume_db(upload->volume);
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = confirm_rows(conn, record, server_s, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

int commit_record(struct upload *upload, struct spool_object *record, struct error *error)
{
	int64_t server_s = 0;
	int rc = 0;

	if (record->row.state == SPOOL_WAITING) {
		rc = set_state(upload, record->row.object, SPOOL_ATTEMPTED, true, error);
		if (rc)
			return rc;
		pthread_mutex_lock(&upload->lock);
		record->row.state = SPOOL_ATTEMPTED;
		pthread_mutex_unlock(&upload->lock);
	}
	FAILPOINT("upload/attempted");
	rc = put_record(upload, &record->row, &server_s, error);
	if (!rc)
		rc = confirm(upload, record, server_s, error);
	FAILPOINT("upload/confirmed");
	return rc;
}

void commit_fenced(struct upload *upload)
{
	struct db *db = volume_db(upload->volume);
	struct db_conn *conn;
	struct error error = {0};
	int rc = db_begin(db, true, &conn, &error);

	if (!rc) {
		rc = db_meta_set_int(conn, "fenced", 1, &error);
		if (rc)
			db_rollback(db);
		else
			rc = db_commit(db, &error);
	}
	if (rc)
		log_error("can't note that another writer owns the log: %s; it will be found again", error.message);
}
