#include "repair.h"

#include "contact.h"
#include "failpoint.h"
#include "fetch.h"
#include "log.h"
#include "record.h"
#include "recover.h"
#include "writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- rollback */

struct files { /* of rows that go */
	char (*names)[SPOOL_OBJECT_BYTES];
	size_t count, room;
};

static int note_file(void *context, const struct spool_row *row)
{
	struct files *files = context;

	if (files->count == files->room) {
		size_t room = files->room ? 2 * files->room : 64;
		void *names = reallocarray(files->names, room, sizeof(*files->names));
		if (!names)
			return ERR_NOMEM;
		files->names = names;
		files->room = room;
	}
	memcpy(files->names[files->count++], row->object, SPOOL_OBJECT_BYTES);
	return 0;
}

/* If `name` is the version seq, its hash, if that is known. */
static int hash_of_known(struct db_conn *conn, const char *name, const char *name_hash, int64_t seq, uint8_t hash[SHA256_BYTES], bool *known,
			 struct error *error)
{
	int64_t found;
	int rc = db_meta_read_int(conn, name, 0, &found, error);

	*known = false;
	return rc || found != seq ? rc : db_meta_read_blob(conn, name_hash, hash, SHA256_BYTES, known, error);
}

/* SHA-256 of log/seq: known of the confirmed head and of what is in the spool. ERR_CORRUPT: it isn't. */
static int hash_of_record(struct db_conn *conn, int64_t seq, uint8_t hash[SHA256_BYTES], struct error *error)
{
	char key[RECORD_KEY_BYTES];
	struct spool_row row;
	bool known;
	int rc;

	memset(hash, 0, SHA256_BYTES);
	if (seq == 0)
		return 0;
	record_key(key, seq);
	rc = hash_of_known(conn, "head", "head_hash", seq, hash, &known, error);
	if (!rc && !known)
		rc = hash_of_known(conn, "confirmed", "confirmed_hash", seq, hash, &known, error);
	if (rc || known)
		return rc;
	rc = spool_row_get(conn, key, &row);
	if (rc == ERR_ABSENT)
		return error_set(error, ERR_CORRUPT, 0, "the local database does not know the hash of %s", key);
	if (rc)
		return error_set(error, rc, 0, "spool: can't read its table");
	memcpy(hash, row.hash, SHA256_BYTES);
	return 0;
}

static int rollback_rows(struct db_conn *conn, int64_t seq, bool foreign, struct error *error)
{
	uint8_t hash[SHA256_BYTES];
	int rc = hash_of_record(conn, seq, hash, error);

	if (!rc)
		rc = catalogue_rollback(conn, seq, error);
	if (!rc)
		rc = spool_rows_delete_above(conn, seq, error);
	if (!rc)
		rc = db_meta_set_int(conn, "head", seq, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "head_hash", hash, sizeof(hash), error);
	if (!rc)
		rc = db_meta_set_int(conn, "server_told", 0, error); /* told again: how far the discarded records went is forgotten */
	if (!rc && foreign)
		rc = local_inode_distrust(conn, seq, error);
	return rc;
}

/* Removes the spool's rows above seq, and their files; also takes the versions back. */
static int roll_back(struct volume *volume, struct spool *spool, int64_t seq, bool versions, bool foreign, struct error *error)
{
	struct db *db = volume_db(volume);
	struct files files = {0};
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = spool_row_each(conn, seq, false, note_file, &files);
	if (rc)
		error_set(error, rc, 0, "spool: can't read its table");
	else
		rc = versions ? rollback_rows(conn, seq, foreign, error) : spool_rows_delete_above(conn, seq, error);
	FAILPOINT("rollback/before-commit");
	if (rc)
		db_rollback(db);
	else
		rc = db_commit(db, error);
	FAILPOINT("rollback/after-commit");
	for (size_t i = 0; i < files.count && !rc; i++)
		spool_unlink(spool, files.names[i]);
	free(files.names);
	return rc;
}

int repair_rollback(struct volume *volume, struct spool *spool, int64_t seq, bool foreign, struct error *error)
{
	return roll_back(volume, spool, seq, true, foreign, error);
}

/* Else upload would wait for ever for the turn of records that are in no log. */
static int forget_spool(struct volume *volume, struct spool *spool, int64_t seq, struct error *error)
{
	return roll_back(volume, spool, seq, false, true, error);
}

/* ---------------------------------------------------------------- damaged spool */

struct checking {
	struct spool *spool;
	struct spool_row bad;
	struct error *error;
};

/* 1: this one is damaged. */
static int check_row(void *context, const struct spool_row *row)
{
	struct checking *checking = context;
	int rc = spool_verify(checking->spool, row, checking->error);

	if (rc != ERR_CORRUPT)
		return rc;
	checking->bad = *row;
	return 1;
}

static int find_damage(struct volume *volume, struct checking *checking)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(volume), &conn, checking->error);

	if (rc)
		return rc;
	rc = spool_row_each(conn, 0, true, check_row, checking);
	db_read_end(volume_db(volume), conn);
	return rc;
}

static int count_on(void *context, const struct spool_row *row)
{
	int64_t *newest = context;

	if (row->kind == SPOOL_RECORD && row->seq == *newest + 1)
		++*newest;
	return 0;
}

/* The newest version up to which no record is missing. *gap: it is not the head, so what follows could never be sent. */
static int find_gap(struct volume *volume, int64_t *newest, bool *gap, struct error *error)
{
	struct db_conn *conn;
	int64_t head = 0;
	int rc = db_read_begin(volume_db(volume), &conn, error);

	if (rc)
		return rc;
	rc = db_meta_read_int(conn, "confirmed", 0, newest, error);
	if (!rc)
		rc = db_meta_read_int(conn, "head", 0, &head, error);
	if (!rc)
		rc = spool_row_each(conn, 0, true, count_on, newest);
	*gap = *newest < head;
	db_read_end(volume_db(volume), conn);
	return rc;
}

/* The one record that may have got there. 0: it did, and is whole again; ERR_ABSENT: it did not. */
static int ask_remote(struct store *store, struct spool *spool, const struct spool_row *row, struct error *error)
{
	struct buf bytes = {0};
	int rc = contact_compare(store, row->object, (uint64_t)row->size, row->hash, &bytes, error);

	if (!rc)
		rc = spool_mend(spool, row, &bytes, error);
	else if (rc == ERR_EXISTS)
		rc = error_set(error, ERR_FENCED, 0,
			       "%s: another machine has written version %lld; mount here with -o take_over to go on from its newest version",
			       store->url, (long long)row->seq);
	buf_free(&bytes);
	return rc;
}

int repair_spool(struct volume *volume, struct store *store, struct spool *spool, bool *rolled_back, struct error *error)
{
	struct checking checking = {.spool = spool, .error = error};
	int64_t newest;
	bool gap;
	int rc;

	*rolled_back = false;
	rc = find_gap(volume, &newest, &gap, error);
	if (!rc && gap) {
		log_warn("spool: the record of version %lld is missing; versions from there on are made again from the tree",
			 (long long)newest + 1);
		rc = repair_rollback(volume, spool, newest, false, error);
		*rolled_back = !rc;
	}
	while (!rc && (rc = find_damage(volume, &checking)) == 1) {
		const struct spool_row *bad = &checking.bad;
		log_warn("%s", error->message);
		rc = ERR_ABSENT;
		if (bad->kind == SPOOL_RECORD && bad->state == SPOOL_ATTEMPTED)
			rc = ask_remote(store, spool, bad, error);
		if (rc == ERR_ABSENT) {
			log_warn("versions from %lld on were not in the remote yet; they are made again from the tree",
				 (long long)bad->seq);
			rc = repair_rollback(volume, spool, bad->seq - 1, false, error);
			*rolled_back = !rc;
		}
		if (rc)
			break;
	}
	if (rc && !error->code)
		error_set(error, rc, 0, "spool: can't read its table");
	return rc;
}

/* ---------------------------------------------------------------- take-over */

/* asked: the user wants it, and from now on a restart goes on with it. *confirmed: our newest version in the log. */
static int note_intent(struct volume *volume, bool asked, int64_t *confirmed, struct error *error)
{
	struct db *db = volume_db(volume);
	struct db_conn *conn;
	int64_t from = -1;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = db_meta_read_int(conn, "confirmed", 0, confirmed, error);
	if (!rc && asked)
		rc = db_meta_set_int(conn, "must_take_over", 1, error);
	if (!rc)
		rc = db_meta_read_int(conn, "take_over_from", -1, &from, error);
	if (!rc && from < 0)
		rc = db_meta_set_int(conn, "take_over_from", *confirmed, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

/* *from: the version up to which what was captured is to be trusted. */
static int read_followed(struct db_conn *conn, int64_t *head, int64_t *from, uint8_t hash[SHA256_BYTES], struct error *error)
{
	bool known = true;
	int rc = db_meta_read_int(conn, "head", 0, head, error);

	memset(hash, 0, SHA256_BYTES);
	if (!rc)
		rc = db_meta_read_int(conn, "take_over_from", 0, from, error);
	if (!rc && *head > 0)
		rc = db_meta_read_blob(conn, "head_hash", hash, SHA256_BYTES, &known, error);
	if (!rc && !known)
		rc = error_set(error, ERR_CORRUPT, 0, "the local database does not know the hash of version %lld", (long long)*head);
	return rc;
}

static int note_followed(struct volume *volume, bool fenced, struct error *error)
{
	struct db *db = volume_db(volume);
	uint8_t hash[SHA256_BYTES];
	int64_t head, from;
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = read_followed(conn, &head, &from, hash, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "confirmed_hash", hash, sizeof(hash), error);
	if (!rc)
		rc = db_meta_set_int(conn, "server_told", head, error);
	if (!rc)
		rc = db_meta_set_int(conn, "log_bytes", 0, error);
	if (!rc) /* I24: the other's versions do not have what is here; null until ours does */
		rc = db_meta_set_int(conn, "confirmed_cut_ns", 0, error);
	if (!rc) /* must_take_over and rebuilt stay until our record is there */
		rc = db_meta_set_int(conn, "fenced", fenced, error);
	if (!rc)
		rc = local_inode_distrust(conn, from > 0 ? from : 0, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

/* I17: who has not been asked for must not fence another machine. A new database knows nothing of whose head it is but what the head says. */
static int refuse(const struct store *store, const struct recover_head *head, struct error *error)
{
	return error_set(error, ERR_FENCED, 0,
			 "%s: the local database was lost, and another machine, or this one before the directory was moved, has written version %lld; "
			 "mount here with -o take_over to go on from it",
			 store->url, (long long)head->seq);
}

int repair_take_over(struct volume *volume, struct store *store, const struct master *master, struct spool *spool, bool asked,
		     struct error *error)
{
	const char *tmp_dir = volume_state_path(volume);
	struct recover_head head;
	int64_t confirmed;
	int rc = note_intent(volume, asked, &confirmed, error);

	FAILPOINT("take-over/intent");
	if (rc)
		return rc;
	rc = repair_rollback(volume, spool, confirmed, true, error);
	if (rc && rc != ERR_CORRUPT)
		return rc;
	FAILPOINT("take-over/rolled-back");
	if (!rc)
		rc = recover_follow(store, master, volume_db(volume), tmp_dir, &head, error);
	else if (!(rc = forget_spool(volume, spool, confirmed, error)))
		rc = ERR_ABSENT; /* what can't be taken back is loaded anew */
	if (rc == ERR_ABSENT)
		rc = recover_catalogue(store, master, volume_db(volume), tmp_dir, NULL, NULL, &head, error);
	FAILPOINT("take-over/followed");
	if (rc)
		return rc;
	bool foreign = !asked && !head.empty && !writer_is_ours(master, volume, head.header.writer_id);
	rc = note_followed(volume, foreign, error);
	return !rc && foreign ? refuse(store, &head, error) : rc;
}
