/* Upload's queues, and how objects get into and out of them. */
#include "catalogue.h"
#include "upload_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- queues; lock held */

void upload_unref(struct spool_object *object)
{
	if (--object->references == 0)
		spool_object_free(object);
}

void upload_queue_add(struct upload_queue *queue, struct spool_object *object)
{
	struct spool_object **at = queue->last && queue->last->row.seq <= object->row.seq ? &queue->last->queue : &queue->first;

	while (*at && (*at)->row.seq <= object->row.seq)
		at = &(*at)->queue;
	object->queue = *at;
	*at = object;
	if (!object->queue)
		queue->last = object;
	object->queued = true;
	object->references++;
}

void upload_queue_remove(struct upload_queue *queue, struct spool_object *object)
{
	struct spool_object *before = NULL, *at = queue->first;

	if (!object->queued)
		return;
	for (; at && at != object; at = at->queue)
		before = at;
	if (!at)
		return;
	*(before ? &before->queue : &queue->first) = object->queue;
	if (queue->last == object)
		queue->last = before;
	object->queue = NULL;
	object->queued = false;
	upload_unref(object);
}

void upload_queue_clear(struct upload *upload, struct upload_queue *queue)
{
	while (queue->first) {
		if (queue->first->row.state != SPOOL_DONE)
			spool_count_gone(upload->spool, (uint64_t)queue->first->row.size);
		upload_queue_remove(queue, queue->first);
	}
}

/* ---------------------------------------------------------------- objects */

/* Once: what is dropped is counted by who drops it, by the state that it has then. */
void upload_pack_done(struct upload *upload, struct spool_object *pack)
{
	if (pack->dropped || pack->row.state == SPOOL_DONE)
		return;
	pack->row.state = SPOOL_DONE;
	spool_count_done(upload->spool, (uint64_t)pack->row.size);
}

struct loading {
	struct upload *upload;
	struct db_conn *conn;
	struct upload_queue packs, records;
	int64_t newest; /* confirmed, then those of the spool */
	struct spool_object *at; /* of the records: where load_files is */
	uint64_t files;          /* of the records */
};

static int load_row(void *context, const struct spool_row *row)
{
	struct loading *loading = context;
	struct version_row version;
	struct spool_object *object;

	if (row->kind == SPOOL_RECORD && row->seq != ++loading->newest)
		return ERR_CORRUPT; /* its turn, or that of the next, would never come */
	object = calloc(1, sizeof(*object));
	if (!object)
		return ERR_NOMEM;
	object->row = *row;
	object->registered = true;
	if (row->kind == SPOOL_RECORD && catalogue_version_get(loading->conn, row->seq, &version) == 0) {
		object->incomplete = version.flags & (VERSION_PARTIAL | VERSION_LACKING);
		object->take_over = version.flags & VERSION_TAKE_OVER;
		object->cut_ns = version.cut_ns;
	}
	spool_count_pending(loading->upload->spool, (uint64_t)row->size);
	upload_queue_add(row->kind == SPOOL_RECORD ? &loading->records : &loading->packs, object);
	return 0;
}

/* What those of this session know from their sealing. */
static int load_files(void *context, int64_t seq, int64_t inodes)
{
	struct loading *loading = context;

	while (loading->at && loading->at->row.seq < seq)
		loading->at = loading->at->queue;
	if (loading->at && loading->at->row.seq == seq) {
		loading->at->files = (uint64_t)inodes;
		loading->files += loading->at->files;
	}
	return 0;
}

static int load_meta(struct upload_status *status, int64_t *head, struct db_conn *conn, struct error *error)
{
	int64_t fenced = 0;
	bool known = true;
	int rc = db_meta_read_int(conn, "confirmed", 0, &status->confirmed, error);

	if (!rc)
		rc = db_meta_read_int(conn, "confirmed_cut_ns", 0, &status->confirmed_cut_ns, error);
	if (!rc)
		rc = db_meta_read_int(conn, "fenced", 0, &fenced, error);
	if (!rc)
		rc = db_meta_read_int(conn, "head", 0, head, error);
	status->fenced = fenced != 0;
	memset(status->confirmed_hash, 0, SHA256_BYTES);
	if (!rc)
		rc = db_meta_read_blob(conn, "confirmed_hash", status->confirmed_hash, SHA256_BYTES, &known, error);
	return rc;
}

int upload_reload(struct upload *upload, struct error *error)
{
	struct loading loading = {.upload = upload};
	struct upload_status meta;
	int64_t head;
	int rc = db_read_begin(volume_db(upload->volume), &loading.conn, error);

	if (rc)
		return rc;
	rc = load_meta(&meta, &head, loading.conn, error);
	if (rc) {
		db_read_end(volume_db(upload->volume), loading.conn);
		return rc;
	}
	loading.newest = meta.confirmed;
	rc = spool_row_each(loading.conn, 0, true, load_row, &loading);
	loading.at = loading.records.first;
	if (!rc && loading.at)
		rc = catalogue_local_captured(loading.conn, meta.confirmed, load_files, &loading);
	if (!rc && loading.newest != head)
		rc = ERR_CORRUPT;
	db_read_end(volume_db(upload->volume), loading.conn);
	if (rc) {
		upload_queue_clear(upload, &loading.packs);
		upload_queue_clear(upload, &loading.records);
		return rc == ERR_CORRUPT ? error_set(error, rc, 0, "spool: a version between the confirmed one and the newest is missing")
					 : error_set(error, rc, 0, "spool: can't read its table");
	}
	pthread_mutex_lock(&upload->lock);
	upload_queue_clear(upload, &upload->packs);
	upload_queue_clear(upload, &upload->records);
	upload->packs = loading.packs;
	upload->records = loading.records;
	upload->status.confirmed = meta.confirmed;
	upload->status.confirmed_cut_ns = meta.confirmed_cut_ns;
	upload->status.fenced = meta.fenced;
	memcpy(upload->status.confirmed_hash, meta.confirmed_hash, SHA256_BYTES);
	upload->status.files = loading.files;
	pthread_mutex_unlock(&upload->lock);
	return 0;
}

void upload_offer(struct upload *upload, struct spool_object *object)
{
	pthread_mutex_lock(&upload->lock);
	upload_queue_add(&upload->packs, object);
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
}

int upload_register(struct upload *upload, struct spool_object *list, struct db_conn *conn, struct error *error)
{
	int rc = 0;

	/* A pack acknowledged before this moment says so in its row; one acknowledged later waits for the write lock, which the caller has, and changes the row. */
	for (struct spool_object *object = list; object && !rc; object = object->next) {
		struct spool_row row;
		pthread_mutex_lock(&upload->lock);
		object->registered = true;
		row = object->row;
		bool gone = object->gone;
		pthread_mutex_unlock(&upload->lock);
		rc = gone ? 0 : spool_row_add(conn, &row, error);
	}
	return rc;
}

void upload_accept(struct upload *upload, struct spool_object *list)
{
	pthread_mutex_lock(&upload->lock);
	while (list) {
		struct spool_object *object = list;
		list = object->next;
		object->next = NULL;
		upload->status.files += object->files;
		if (!object->queued && object->row.state != SPOOL_DONE)
			upload_queue_add(object->row.kind == SPOOL_RECORD ? &upload->records : &upload->packs, object);
		upload_unref(object);
	}
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
}

void upload_discard(struct upload *upload, struct spool_object *list)
{
	pthread_mutex_lock(&upload->lock);
	while (list) {
		struct spool_object *object = list;
		list = object->next;
		spool_discard(upload->spool, object);
		object->dropped = true;
		upload_queue_remove(&upload->packs, object);
		upload_unref(object);
	}
	pthread_mutex_unlock(&upload->lock);
}
