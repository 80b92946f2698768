/* The catalogue from the bucket (PROTOCOL "Clone"). The log as list and stream is in recover_log.c. */
#include "recover.h"

#include "catalogue.h"
#include "log.h"
#include "record.h"
#include "recover_internal.h"
#include "unlock.h"

#include <errno.h>
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

/* ---------------------------------------------------------------- applying */

struct recovery {
	struct store *store;
	const struct master *master;
	struct db *db;
	const char *tmp_dir;
	progress_fn *progress;
	void *context;
	struct recover_head *head;
	uint8_t writer_id[CRYPT_ID_BYTES]; /* of the record before the next one */
	bool writer_known;                 /* else that lies below the checkpoint */
};

/* What the catalogue now is: the newest state of the remote. In the transaction that brings it there. */
static int set_head(struct db_conn *conn, int64_t seq, const uint8_t hash[SHA256_BYTES], struct error *error)
{
	struct version_row row;
	int rc = db_meta_set_int(conn, "head", seq, error);

	if (!rc)
		rc = db_meta_set_int(conn, "confirmed", seq, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "head_hash", hash, SHA256_BYTES, error);
	if (rc)
		return rc;
	rc = catalogue_version_newest(conn, false, &row);
	if (rc == ERR_ABSENT)
		return 0;
	if (rc)
		return error_set(error, rc, 0, "catalogue: can't read the newest version");
	rc = db_meta_set_int(conn, "imported", 1, error);
	if (rc)
		return rc;
	rc = catalogue_version_complete(conn, &row);
	if (rc == ERR_ABSENT)
		return 0;
	if (rc)
		return error_set(error, rc, 0, "catalogue: can't read the newest version that lacks nothing");
	return db_meta_set_int(conn, "confirmed_cut_ns", row.cut_ns, error);
}

static int set_base(struct db *db, const struct record_base *base, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = recover_save_base(conn, base, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

int recover_save_base(struct db_conn *conn, const struct record_base *base, struct error *error)
{
	int rc = db_meta_set_int(conn, "base_seq", base->seq, error);

	if (!rc)
		rc = db_meta_set_int(conn, "base_rand", (int64_t)base->rand, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "base_hash", base->hash, SHA256_BYTES, error);
	return rc ? rc : db_meta_set_blob(conn, "base_log_hash", base->log_hash, SHA256_BYTES, error);
}

void recover_load_base(struct db_conn *conn, struct record_base *out)
{
	memset(out, 0, sizeof(*out));
	out->seq = db_meta_int(conn, "base_seq", 0);
	out->rand = (uint64_t)db_meta_int(conn, "base_rand", 0);
	if (out->seq > 0 && (db_meta_blob(conn, "base_hash", out->hash, SHA256_BYTES) ||
			     db_meta_blob(conn, "base_log_hash", out->log_hash, SHA256_BYTES)))
		memset(out, 0, sizeof(*out));
}

static int apply_delta(const struct recovery *recovery, struct delta *delta, int64_t seq,
		       const uint8_t hash[SHA256_BYTES], struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(recovery->db, false, &conn, error);

	if (rc)
		return rc;
	rc = delta_apply(delta, conn, error);
	if (!rc)
		rc = set_head(conn, seq, hash, error);
	if (!rc)
		return db_commit(recovery->db, error);
	db_rollback(recovery->db);
	return rc;
}

/* Puts the object's key in front of a message about damage in it. */
static int name_record(int rc, int64_t seq, struct error *error)
{
	char key[RECORD_KEY_BYTES];

	if ((rc != ERR_CORRUPT && rc != ERR_UNSUPPORTED) || !error)
		return rc;
	record_key(key, seq);
	return error_set(error, rc, 0, "%s: %s", key, error->message);
}

/* I17: a record follows its writer's own one, or says that it does not. */
static void check_writer(struct recovery *recovery, const struct record_header *header)
{
	struct recover_head *head = recovery->head;
	bool same = memcmp(recovery->writer_id, header->writer_id, CRYPT_ID_BYTES) == 0;

	if (recovery->writer_known && !same && !(header->flags & RECORD_TAKE_OVER) && !head->intruder) {
		head->intruder = header->seq;
		log_warn("%s: log record %lld follows another writer's without having taken over; yester check tells more",
			 recovery->store->url, (long long)header->seq);
	}
	memcpy(recovery->writer_id, header->writer_id, CRYPT_ID_BYTES);
	recovery->writer_known = true;
}

/* One record on top of the one with hash `previous`, which becomes its own. */
static int apply_record(struct recovery *recovery, int fd, const struct log_entry *entry,
			const uint8_t hash[SHA256_BYTES], uint8_t previous[SHA256_BYTES], struct error *error)
{
	struct record_header *header = &recovery->head->header;
	struct delta *delta;
	int rc = record_read(recovery->master, fd, entry->size, entry->seq, recovery->tmp_dir, header, &delta, error);

	if (rc)
		return name_record(rc, entry->seq, error);
	if (memcmp(header->previous_hash, previous, SHA256_BYTES) != 0) /* fault 44 */
		rc = error_set(error, ERR_CORRUPT, 0, "it does not follow the record before it");
	if (!rc)
		rc = apply_delta(recovery, delta, entry->seq, hash, error);
	delta_free(delta);
	if (!rc) {
		check_writer(recovery, header);
		memcpy(previous, hash, SHA256_BYTES);
	}
	return name_record(rc, entry->seq, error);
}

/* Applies entries, an unbroken run. `previous`: hash of the record before the first; in the end that of the last. */
static int apply_run(struct recovery *recovery, const struct log_entry *entries, size_t count,
		     uint8_t previous[SHA256_BYTES], struct error *error)
{
	struct log_reader *reader;
	int rc = log_reader_start(recovery->store, entries, count, recovery->tmp_dir, &reader, error);

	for (size_t i = 0; i < count && !rc; i++) {
		uint8_t hash[SHA256_BYTES];
		int fd;
		rc = log_reader_next(reader, &fd, hash, error);
		if (rc)
			break;
		rc = apply_record(recovery, fd, &entries[i], hash, previous, error);
		close(fd);
		db_tidy(recovery->db);
		if (recovery->progress)
			recovery->progress(recovery->context, "reading the log", i + 1, count, "records");
	}
	log_reader_stop(reader);
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

/* The newest record's word on the base is authentic; it is read here for that only. */
static int read_newest(struct recovery *recovery, const struct log_entry *entry, struct error *error)
{
	struct recover_head *head = recovery->head;
	char key[RECORD_KEY_BYTES];
	struct delta *delta;
	int fd, rc;

	record_key(key, entry->seq);
	rc = object_fetch(recovery->store, key, entry->size, recovery->tmp_dir, &fd, error);
	if (rc)
		return rc;
	rc = record_read(recovery->master, fd, entry->size, entry->seq, recovery->tmp_dir, &head->header, &delta, error);
	if (!rc) {
		delta_free(delta);
		head->seq = entry->seq;
		head->base = head->header.base;
		rc = object_hash(fd, entry->size, head->hash, error);
	}
	close(fd);
	return name_record(rc, entry->seq, error);
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
	rc = set_head(conn, base->seq, base->log_hash, error);
	if (!rc)
		return db_commit(recovery->db, error);
	db_rollback(recovery->db);
	return rc;
}

static int record_missing(int64_t seq, const struct store *store, struct error *error)
{
	char key[RECORD_KEY_BYTES];

	record_key(key, seq);
	return error_set(error, ERR_ABSENT, 0, "%s: it is not in %s", key, store->url);
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
		return record_missing(first < 0 ? missing : head->seq, recovery->store, error);
	memcpy(previous, head->base.log_hash, SHA256_BYTES);
	rc = apply_run(recovery, list->entries + first, list->count - (size_t)first, previous, error);
	if (!rc && memcmp(previous, head->hash, SHA256_BYTES) != 0)
		rc = name_record(error_set(error, ERR_CORRUPT, 0, "two different answers for one object"), head->seq, error);
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
	rc = read_newest(recovery, &list.entries[list.count - 1], error);
	if (!rc && head->base.seq > 0)
		rc = load_base(recovery, error);
	if (!rc)
		rc = apply_log(recovery, &list, list_after, error);
	if (!rc)
		rc = set_base(recovery->db, &head->base, error);
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

/* ---------------------------------------------------------------- from a known head */

/* That log/head still is the record that we know. */
static int check_known_head(struct recovery *recovery, const struct log_list *list, int64_t head,
			    const uint8_t hash[SHA256_BYTES], struct error *error)
{
	int rc;

	if (list->count == 0)
		return error_set(error, ERR_CORRUPT, 0,
				 "%s: the remote was emptied or rolled back: log record %lld is gone, and nothing follows it",
				 recovery->store->url, (long long)head);
	if (list->entries[0].seq != head)
		return error_set(error, ERR_ABSENT, 0, "%s: log record %lld is no longer there", recovery->store->url,
				 (long long)head);
	rc = read_newest(recovery, &list->entries[0], error);
	if (!rc && memcmp(recovery->head->hash, hash, SHA256_BYTES) != 0)
		rc = error_set(error, ERR_CORRUPT, 0,
			       "%s: log record %lld is not the one that this machine knows; the remote was replaced or rolled back",
			       recovery->store->url, (long long)head);
	return rc;
}

static int follow_list(struct recovery *recovery, const struct log_list *list, int64_t head,
		       uint8_t hash[SHA256_BYTES], struct error *error)
{
	int64_t missing;
	ssize_t first = log_list_run(list, head + 1, &missing);

	if (first < 0)
		return record_missing(missing, recovery->store, error);
	size_t count = list->count - (size_t)first;
	if (!count)
		return 0;
	int rc = apply_run(recovery, list->entries + first, count, hash, error);
	if (rc)
		return rc;
	recovery->head->seq = list->entries[list->count - 1].seq;
	recovery->head->base = recovery->head->header.base;
	memcpy(recovery->head->hash, hash, SHA256_BYTES);
	return set_base(recovery->db, &recovery->head->base, error);
}

static int known_head(struct db *db, int64_t *head, uint8_t hash[SHA256_BYTES], struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	*head = db_meta_int(conn, "head", 0);
	memset(hash, 0, SHA256_BYTES);
	if (*head != db_meta_int(conn, "confirmed", 0))
		rc = error_set(error, ERR_FENCED, 0, "versions that are not in the remote are in the way of following its log");
	else if (*head > 0 && db_meta_blob(conn, "head_hash", hash, SHA256_BYTES))
		rc = error_set(error, ERR_CORRUPT, 0, "the local database does not know the hash of its newest version");
	db_read_end(db, conn);
	return rc;
}

int recover_follow(struct store *store, const struct master *master, struct db *db, const char *tmp_dir,
		   struct recover_head *out, struct error *error)
{
	struct recovery recovery = {.store = store, .master = master, .db = db, .tmp_dir = tmp_dir, .head = out};
	struct log_list list = {0};
	uint8_t hash[SHA256_BYTES];
	int64_t head;
	int rc = known_head(db, &head, hash, error);

	memset(out, 0, sizeof(*out));
	if (!rc)
		rc = log_list_fetch(store, head > 0 ? head - 1 : 0, &list, error);
	if (!rc && head > 0)
		rc = check_known_head(&recovery, &list, head, hash, error);
	if (!rc && head > 0)
		check_writer(&recovery, &out->header);
	if (!rc)
		rc = follow_list(&recovery, &list, head, hash, error);
	if (!rc)
		out->empty = out->seq == 0;
	log_list_free(&list);
	return rc;
}
