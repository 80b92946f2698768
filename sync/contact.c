#include "contact.h"

#include "record.h"
#include "unlock.h"

#include <string.h>

#define EMPTIED "the remote was emptied or rolled back"
#define PIECE_BYTES (UINT64_C(8) << 20)
#define ADVICE "nothing is uploaded; if another copy of it exists, put that back, else init a new volume and mount it"

static int check_descriptor(struct store *store, struct db *db, struct error *error)
{
	struct volume_texts texts = {0};
	struct buf remote = {0};
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	rc = volume_texts_load(conn, &texts, error);
	db_read_end(db, conn);
	if (!rc) {
		rc = store_get(store, VOLUME_KEY, 0, STORE_WHOLE, &remote, error);
		if (rc == ERR_ABSENT)
			rc = error_set(error, ERR_CORRUPT, 0, "%s: " EMPTIED ": there is no volume%s; " ADVICE, store->url,
				       strncmp(store->url, "file://", 7) == 0 ? " (is its disk mounted?)" : "");
		else if (!rc && (remote.length != texts.descriptor.length ||
				 memcmp(remote.data, texts.descriptor.data, remote.length) != 0))
			rc = error_set(error, ERR_CORRUPT, 0, "%s: holds another volume than this one; check `remote` in the config",
				       store->url);
	}
	volume_texts_free(&texts);
	buf_free(&remote);
	return rc;
}

struct newer {
	int64_t confirmed;
	bool attempted;
	bool found;      /* the confirmed one, and its size */
	uint64_t size;
	int64_t foreign; /* first record that can't be ours, 0: none */
};

static int on_record(void *context, const struct store_object *object)
{
	struct newer *newer = context;
	int64_t seq = record_key_parse(object->key);

	if (seq == newer->confirmed) {
		newer->found = true;
		newer->size = object->size;
	}
	if (seq <= newer->confirmed || (newer->attempted && seq == newer->confirmed + 1))
		return 0;
	newer->foreign = seq;
	return 1;
}

int contact_check(struct store *store, struct db *db, int64_t confirmed, const uint8_t hash[SHA256_BYTES], bool attempted,
		  struct error *error)
{
	struct newer newer = {.confirmed = confirmed, .attempted = attempted};
	char key[RECORD_KEY_BYTES];
	int rc = check_descriptor(store, db, error);

	if (rc)
		return rc;
	record_key(key, confirmed - 1);
	rc = store_list(store, "log/", confirmed > 1 ? key : NULL, on_record, &newer, error);
	if (newer.foreign)
		return error_set(error, ERR_FENCED, 0,
				 "%s: another machine, or a later state of this one, has written version %lld; mount here with -o take_over to go "
				 "on from its newest version",
				 store->url, (long long)newer.foreign);
	if (rc || confirmed <= 0)
		return rc;
	record_key(key, confirmed);
	rc = newer.found ? contact_compare(store, key, newer.size, hash, NULL, error) : ERR_ABSENT;
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_CORRUPT, 0, "%s: " EMPTIED ": %s is gone; " ADVICE, store->url, key);
	if (rc == ERR_EXISTS)
		return error_set(error, ERR_CORRUPT, 0, "%s: " EMPTIED ": %s is not what this machine wrote or read; " ADVICE,
				 store->url, key);
	return rc;
}

int contact_compare(struct store *store, const char *key, uint64_t length, const uint8_t hash[SHA256_BYTES], struct buf *out,
		    struct error *error)
{
	struct digest *digest = digest_new(0);
	uint8_t found[SHA256_BYTES];
	struct buf piece = {0};
	int rc = 0;

	for (uint64_t at = 0; at < length && !rc; at += PIECE_BYTES) {
		buf_clear(&piece);
		/* The last piece to the end, wherever that is: a longer object is another one. */
		rc = store_get(store, key, at, length - at <= PIECE_BYTES ? STORE_WHOLE : PIECE_BYTES, &piece, error);
		if (!rc)
			digest_update(digest, piece.data, piece.length);
		if (!rc && out && buf_append(out, piece.data, piece.length))
			rc = error_set(error, ERR_NOMEM, 0, "%s: out of memory", key);
	}
	buf_free(&piece);
	digest_finish(digest, found, NULL);
	if (rc == ERR_CORRUPT || (!rc && memcmp(found, hash, SHA256_BYTES) != 0))
		rc = error_set(error, ERR_EXISTS, 0, "%s: %s holds other bytes than ours", store->url, key);
	return rc;
}
