/* The catalogue of before, brought to the newest state: recover from a known head. */
#include "recover_internal.h"

#include <string.h>

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
	rc = recover_read_newest(recovery, &list->entries[0], error);
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
		return recover_record_missing(missing, recovery->store, error);
	size_t count = list->count - (size_t)first;
	if (!count)
		return 0;
	int rc = recover_apply_run(recovery, list->entries + first, count, hash, error);
	if (rc)
		return rc;
	recovery->head->seq = list->entries[list->count - 1].seq;
	recovery->head->base = recovery->head->header.base;
	memcpy(recovery->head->hash, hash, SHA256_BYTES);
	return recover_set_base(recovery->db, &recovery->head->base, error);
}

static int known_head(struct db *db, int64_t *head, uint8_t hash[SHA256_BYTES], struct error *error)
{
	struct db_conn *conn;
	int64_t confirmed = 0;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	rc = db_meta_read_int(conn, "head", 0, head, error);
	if (!rc)
		rc = db_meta_read_int(conn, "confirmed", 0, &confirmed, error);
	memset(hash, 0, SHA256_BYTES);
	if (!rc && *head != confirmed)
		rc = error_set(error, ERR_FENCED, 0, "versions that are not in the remote are in the way of following its log");
	else if (!rc && *head > 0 && db_meta_blob(conn, "head_hash", hash, SHA256_BYTES))
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
		recover_check_writer(&recovery, &out->header);
	if (!rc)
		rc = follow_list(&recovery, &list, head, hash, error);
	if (!rc)
		out->empty = out->seq == 0;
	log_list_free(&list);
	return rc;
}
