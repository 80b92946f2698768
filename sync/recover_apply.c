/* Log records applied to the catalogue, one after the other, and what the database then says of its head and base. */
#include "recover_internal.h"

#include "catalogue.h"
#include "log.h"
#include "record.h"

#include <string.h>
#include <unistd.h>

int recover_set_head(struct db_conn *conn, int64_t seq, const uint8_t hash[SHA256_BYTES], struct error *error)
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

int recover_set_base(struct db *db, const struct record_base *base, struct error *error)
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

int recover_load_base(struct db_conn *conn, struct record_base *out, struct error *error)
{
	int64_t rand = 0;
	bool known;

	memset(out, 0, sizeof(*out));
	int rc = db_meta_read_int(conn, "base_seq", 0, &out->seq, error);
	if (!rc)
		rc = db_meta_read_int(conn, "base_rand", 0, &rand, error);
	out->rand = (uint64_t)rand;
	if (rc || out->seq <= 0)
		return rc;
	rc = db_meta_read_blob(conn, "base_hash", out->hash, SHA256_BYTES, &known, error);
	if (!rc && known)
		rc = db_meta_read_blob(conn, "base_log_hash", out->log_hash, SHA256_BYTES, &known, error);
	if (rc || !known)
		memset(out, 0, sizeof(*out));
	return rc;
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
		rc = recover_set_head(conn, seq, hash, error);
	if (!rc)
		return db_commit(recovery->db, error);
	db_rollback(recovery->db);
	return rc;
}

int recover_name_record(int rc, int64_t seq, struct error *error)
{
	char key[RECORD_KEY_BYTES];

	if ((rc != ERR_CORRUPT && rc != ERR_UNSUPPORTED) || !error)
		return rc;
	record_key(key, seq);
	return error_set(error, rc, 0, "%s: %s", key, error->message);
}

void recover_check_writer(struct recovery *recovery, const struct record_header *header)
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
		return recover_name_record(rc, entry->seq, error);
	if (memcmp(header->previous_hash, previous, SHA256_BYTES) != 0) /* fault 44 */
		rc = error_set(error, ERR_CORRUPT, 0, "it does not follow the record before it");
	if (!rc)
		rc = apply_delta(recovery, delta, entry->seq, hash, error);
	delta_free(delta);
	if (!rc) {
		recover_check_writer(recovery, header);
		memcpy(previous, hash, SHA256_BYTES);
	}
	return recover_name_record(rc, entry->seq, error);
}

int recover_apply_run(struct recovery *recovery, const struct log_entry *entries, size_t count,
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

int recover_read_newest(struct recovery *recovery, const struct log_entry *entry, struct error *error)
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
	return recover_name_record(rc, entry->seq, error);
}

int recover_record_missing(int64_t seq, const struct store *store, struct error *error)
{
	char key[RECORD_KEY_BYTES];

	record_key(key, seq);
	return error_set(error, ERR_ABSENT, 0, "%s: it is not in %s", key, store->url);
}
