/* The catalogue from the bucket (PROTOCOL "Clone"), from nothing. */
#include "recover.h"

#include "catalogue.h"
#include "record.h"
#include "recover_internal.h"
#include "unlock.h"

#include <string.h>
#include <unistd.h>

#define RESTARTS 5

int recover_unlock(struct store *store, const struct unlock *unlock, const struct volume_config *config,
		   int (*keep)(void *context, const char *key, const void *bytes, size_t length), void *context,
		   struct volume_descriptor *descriptor, struct master **out, struct error *error)
{
	struct volume_texts texts = {0};
	struct secret secret;
	int rc = secret_read(unlock, config, &secret, error);

	*out = NULL;
	if (rc)
		return rc;
	rc = volume_texts_fetch(store, &texts, error);
	if (!rc)
		rc = volume_texts_unlock(&texts, &secret, store->url, descriptor, out, error);
	if (!rc && keep) {
		rc = keep(context, VOLUME_KEY, texts.descriptor.data, texts.descriptor.length);
		for (size_t i = 0; i < texts.count && !rc; i++)
			if (texts.slots[i].bytes.length)
				rc = keep(context, texts.slots[i].key, texts.slots[i].bytes.data,
					  texts.slots[i].bytes.length);
		if (rc) {
			error_set(error, rc, 0, "%s: can't keep a copy of the key slots: %s", store->url, error_word(rc));
			master_free(*out);
			*out = NULL;
		}
	}
	volume_texts_free(&texts);
	secret_wipe(&secret);
	return rc;
}

/* ---------------------------------------------------------------- from nothing */

static int on_checkpoint(void *context, const struct store_object *object)
{
	int64_t *newest = context, seq;
	uint64_t rand;

	if (checkpoint_key_parse(object->key, &seq, &rand) == 0 && seq > *newest)
		*newest = seq;
	return 0;
}

/* The newest record of the log, and the list of records from `*list_after` + 1 on. The checkpoints' names are only a hint where to begin. */
static int find_log(struct store *store, struct log_list *list, int64_t *list_after, struct error *error)
{
	int64_t hint = 0;
	int rc = store_list(store, "checkpoint/", NULL, on_checkpoint, &hint, error);

	if (rc < 0)
		return rc;
	*list_after = hint > 0 ? hint - 1 : 0;
	rc = log_list_fetch(store, *list_after, list, error);
	if (!rc && list->count == 0 && *list_after > 0) {
		log_list_free(list);
		*list_after = 0;
		rc = log_list_fetch(store, 0, list, error);
	}
	/* A checkpoint is made of a confirmed version: without a log it is no new volume, but one that lost it. */
	if (!rc && list->count == 0 && hint > 0)
		rc = error_set(error, ERR_CORRUPT, 0, "log: no record is in %s, although there is a checkpoint of version %lld",
			       store->url, (long long)hint);
	return rc;
}

struct size_of {
	const char *key;
	uint64_t size;
	bool found;
};

static int on_size(void *context, const struct store_object *object)
{
	struct size_of *want = context;

	if (strcmp(object->key, want->key) != 0)
		return 0;
	want->size = object->size;
	want->found = true;
	return 1;
}

int checkpoint_fetch(struct store *store, const struct master *master, const struct record_base *base,
		     const char *tmp_dir, int *image_fd, uint64_t *image_length, struct error *error)
{
	uint8_t hash[SHA256_BYTES];
	char key[RECORD_KEY_BYTES];
	struct size_of want = {.key = key};
	int fd, rc;

	checkpoint_key(key, base->seq, base->rand);
	rc = store_list(store, key, NULL, on_size, &want, error);
	if (rc < 0)
		return rc;
	if (!want.found)
		return error_set(error, ERR_ABSENT, 0, "%s: it is not in %s", key, store->url);
	rc = object_fetch(store, key, want.size, tmp_dir, &fd, error);
	if (rc)
		return rc;
	rc = object_hash(fd, want.size, hash, error);
	if (!rc && memcmp(hash, base->hash, SHA256_BYTES) != 0) /* I18 */
		rc = error_set(error, ERR_CORRUPT, 0, "%s: its hash is not the one in the log", key);
	if (!rc) {
		rc = checkpoint_read(master, fd, want.size, base->seq, base->rand, tmp_dir, image_fd, image_length, error);
		if (rc && error)
			error_set(error, rc, error->sys_errno, "%s: %s", key, error->message);
	}
	close(fd);
	return rc;
}

static int load_base(struct recovery *recovery, struct error *error)
{
	const struct record_base *base = &recovery->head->base;
	struct db_conn *conn;
	uint64_t length;
	int fd, rc;

	if (recovery->progress)
		recovery->progress(recovery->context, "reading the checkpoint", 0, 0, "bytes");
	rc = checkpoint_fetch(recovery->store, recovery->master, base, recovery->tmp_dir, &fd, &length, error);
	if (!rc)
		rc = catalogue_import(recovery->db, fd, length, base->seq, recovery->tmp_dir, error);
	if (!rc)
		rc = db_begin(recovery->db, false, &conn, error);
	if (rc)
		return rc;
	rc = recover_set_head(conn, base->seq, base->log_hash, error);
	if (!rc)
		return db_commit(recovery->db, error);
	db_rollback(recovery->db);
	return rc;
}

/* Records base + 1 .. head out of the list, which is fetched again when it begins too late (the hint was no confirmed checkpoint). */
static int apply_log(struct recovery *recovery, struct log_list *list, int64_t list_after, struct error *error)
{
	struct recover_head *head = recovery->head;
	int64_t first_seq = head->base.seq + 1, missing = 0;
	uint8_t previous[SHA256_BYTES];
	struct record_header newest = head->header;
	ssize_t first;
	int rc = 0;

	if (list_after >= first_seq) {
		log_list_free(list);
		rc = log_list_fetch(recovery->store, head->base.seq, list, error);
		if (rc)
			return rc;
	}
	while (list->count && list->entries[list->count - 1].seq > head->seq) /* newer than what we know to be the newest */
		list->count--;
	first = log_list_run(list, first_seq, &missing);
	if (first < 0 || (int64_t)(list->count - (size_t)first) != head->seq - head->base.seq)
		return recover_record_missing(first < 0 ? missing : head->seq, recovery->store, error);
	memcpy(previous, head->base.log_hash, SHA256_BYTES);
	rc = recover_apply_run(recovery, list->entries + first, list->count - (size_t)first, previous, error);
	if (!rc && memcmp(previous, head->hash, SHA256_BYTES) != 0)
		rc = recover_name_record(error_set(error, ERR_CORRUPT, 0, "two different answers for one object"), head->seq, error);
	head->header = newest;
	return rc;
}

static int recover_once(struct recovery *recovery, struct error *error)
{
	struct recover_head *head = recovery->head;
	struct log_list list = {0};
	int64_t list_after = 0;
	int rc;

	memset(head, 0, sizeof(*head));
	recovery->writer_known = false;
	rc = find_log(recovery->store, &list, &list_after, error);
	if (rc)
		goto out;
	head->empty = list.count == 0;
	if (head->empty)
		goto out;
	rc = recover_read_newest(recovery, &list.entries[list.count - 1], error);
	if (!rc && head->base.seq > 0)
		rc = load_base(recovery, error);
	if (!rc)
		rc = apply_log(recovery, &list, list_after, error);
	if (!rc)
		rc = recover_set_base(recovery->db, &head->base, error);
out:
	log_list_free(&list);
	return rc;
}

int recover_empty(struct db *db, struct error *error)
{
	struct db_conn *conn;
	uint8_t no_hash[SHA256_BYTES] = {0};
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = db_exec(conn,
		     "DELETE FROM version; DELETE FROM inode; DELETE FROM inode_past; DELETE FROM name; "
		     "DELETE FROM name_past; DELETE FROM extent; DELETE FROM extent_past; DELETE FROM chunk; "
		     "DELETE FROM pack; DELETE FROM pin; DELETE FROM local_inode; DELETE FROM distrusted; "
		     "DELETE FROM meta WHERE name IN ('base_seq', 'base_rand', 'base_hash', 'base_log_hash', "
		     "'confirmed_cut_ns', 'imported')",
		     error);
	if (!rc)
		rc = db_meta_set_int(conn, "head", 0, error);
	if (!rc)
		rc = db_meta_set_int(conn, "confirmed", 0, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "head_hash", no_hash, sizeof(no_hash), error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

int recover_catalogue(struct store *store, const struct master *master, struct db *db, const char *tmp_dir,
		      progress_fn *progress, void *context, struct recover_head *out, struct error *error)
{
	struct recovery recovery = {.store = store, .master = master, .db = db, .tmp_dir = tmp_dir, .progress = progress,
				    .context = context, .head = out};
	struct error why = {0};
	int rc = ERR_ABSENT;

	/* A 404 inside means that another writer cleans up behind a newer checkpoint: start over, never "end of log". */
	for (int i = 0; i < RESTARTS && rc == ERR_ABSENT; i++) {
		rc = recover_empty(db, &why);
		if (!rc)
			rc = recover_once(&recovery, &why);
	}
	if (rc == ERR_ABSENT)
		rc = ERR_CORRUPT;
	return rc ? error_set(error, rc, why.sys_errno, "%s", why.message) : 0;
}
