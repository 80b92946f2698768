/* From a finished delta to a spooled version: record, spool, and the one transaction that makes the version exist (I11, sealing.h). */
#include "sealing.h"

#include "clock.h"
#include "failpoint.h"
#include "log.h"
#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct commit {
	struct sealing *sealing;
	struct error *error;
	int64_t told; /* versions up to this have their server time in the log */
	int64_t files;
	bool take_over;
	bool packs_only; /* nothing of what was captured */
	uint8_t hash[SHA256_BYTES];
	char key[RECORD_KEY_BYTES];
};

/* ---------------------------------------------------------------- record */

static int tell_server_time(void *context, int64_t seq, int64_t server_s)
{
	struct commit *commit = context;

	commit->told = seq;
	return delta_add_version_server(commit->sealing->delta, seq, server_s, commit->error);
}

static int add_version(struct commit *commit)
{
	struct sealing *sealing = commit->sealing;
	struct seal_env *env = sealing->env;
	int64_t now_s = clock_wall_ns() / NS_PER_S;
	struct version_row row = {.seq = sealing->seq, .cut_ns = sealing->cut_ns};
	struct db_conn *conn = seal_reader_conn(&sealing->reader, commit->error);
	int rc;

	if (!conn)
		return ERR_FAILED;
	row.time_s = sealing->cut ? sealing->cut_ns / NS_PER_S : now_s;
	if (env->head > 0 && row.time_s <= env->head_time_s) /* I26 */
		row.time_s = env->head_time_s + 1;
	commit->take_over = !env->first_seq && env->head > 0; /* I17 */
	row.flags = (sealing->partial ? VERSION_PARTIAL : 0) | (commit->take_over ? VERSION_TAKE_OVER : 0) |
		    (sealing->lacking ? VERSION_LACKING : 0);
	commit->told = db_meta_int(conn, "server_told", 0);
	rc = version_each_server(conn, commit->told, tell_server_time, commit);
	if (rc)
		return commit->error && commit->error->code ? rc : error_set(commit->error, rc, 0, "catalogue: can't read versions");
	env->head_time_s = row.time_s;
	return delta_set_version(sealing->delta, &row, commit->error);
}

static int write_record(struct commit *commit, const struct buf *inline_pack)
{
	struct sealing *sealing = commit->sealing;
	struct seal_env *env = sealing->env;
	struct db_conn *conn = seal_reader_conn(&sealing->reader, commit->error);
	struct record_header header = {.seq = sealing->seq, .cut_ns = sealing->cut_ns};
	struct spool_object *record;
	uint64_t length;
	int fd, rc;

	if (!conn)
		return ERR_FAILED;
	header.flags = (sealing->partial ? RECORD_PARTIAL : 0) | (commit->take_over ? RECORD_TAKE_OVER : 0);
	memcpy(header.writer_id, env->writer_id, sizeof(header.writer_id));
	memcpy(header.previous_hash, env->head_hash, sizeof(header.previous_hash));
	rc = recover_load_base(conn, &header.base, commit->error);
	if (rc)
		return rc;
	record_key(commit->key, sealing->seq);
	rc = spool_begin_record(env->spool, commit->key, &fd, commit->error);
	if (rc)
		return rc;
	rc = record_write(env->master, &header, inline_pack, sealing->delta, fd, &length, commit->hash, commit->error);
	if (rc) {
		close(fd);
		spool_unlink(env->spool, commit->key);
		return rc;
	}
	rc = spool_finish_record(env->spool, fd, sealing->seq, commit->key, length, commit->hash, &record, commit->error);
	if (rc)
		return rc;
	record->incomplete = sealing->partial || sealing->lacking;
	record->take_over = commit->take_over;
	record->cut_ns = sealing->cut_ns;
	record->files = (uint64_t)commit->files;
	record->next = sealing->objects;
	sealing->objects = record;
	return spool_sync(env->spool, commit->error);
}

/* ---------------------------------------------------------------- the transaction */

/* What this machine knows of its own inodes. captured: the version that holds them. */
static int local_rows(struct commit *commit, struct db_conn *conn, int64_t captured)
{
	struct sealing *sealing = commit->sealing;
	int rc = 0;

	for (size_t i = 0; i < sealing->buckets && !rc; i++) {
		for (struct seal_ino *ino = sealing->by_ino[i]; ino && !rc; ino = ino->same_ino) {
			if (ino->gone) {
				rc = catalogue_local_forget(conn, ino->ino, commit->error);
			} else if (ino->sealed) {
				ino->row.captured = captured;
				rc = catalogue_local_set(conn, ino->key.bytes, ino->key.length, &ino->row, commit->error);
			} else if (ino->adopted) { /* its name stands, and leads nobody here a second time; its content is still to come */
				rc = catalogue_local_set(conn, ino->key.bytes, ino->key.length, &(struct local_row){.ino = ino->ino}, commit->error);
			}
		}
	}
	return rc;
}

static bool is_no_more(struct sealing *sealing, const struct node_key *key)
{
	int fd = backing_reopen_key(volume_backing(sealing->env->volume), key, O_PATH | O_NOFOLLOW);
	struct stat st = {0};

	if (fd < 0)
		return fd == -ESTALE || fd == -ENOENT;
	bool no_more = fstat(fd, &st) == 0 && st.st_nlink == 0;
	close(fd);
	return no_more;
}

/* Inodes that were read whole, or are no more, leave it; those put off enter it. What could not be read and was removed need not wait for the next try. */
static int backlog_inodes(struct commit *commit, struct db_conn *conn)
{
	struct sealing *sealing = commit->sealing;
	int rc = 0;

	for (size_t i = 0; i < sealing->buckets && !rc; i++) {
		for (struct seal_ino *ino = sealing->by_key[i]; ino && !rc; ino = ino->same_key) {
			if (sealing->env->backlog && ((ino->sealed && ino->whole) || ino->vanished ||
						      (ino->gone && backlog_is_unreadable(conn, &ino->key) && is_no_more(sealing, &ino->key))))
				rc = backlog_drop_inode(conn, &ino->key, commit->error);
			else if (ino->deferred)
				rc = backlog_add_inode(conn, &ino->key, ino->row.size, ino->unreadable, commit->error);
		}
	}
	return rc;
}

static int backlog_names(struct commit *commit, struct db_conn *conn)
{
	struct sealing *sealing = commit->sealing;
	int rc = 0;

	for (size_t i = 0; i < sealing->name_count && !rc; i++) {
		const struct seal_name *name = &sealing->names[i];
		if (name->backlog && !name->put_off)
			rc = backlog_drop_name(conn, name->backlog, commit->error);
		else if (!name->backlog && name->put_off)
			rc = backlog_add_name(conn, &name->dir->key, name->name, name->child ? &name->child->key : NULL,
					      name->unreadable, commit->error);
		else if (name->unreadable)
			rc = backlog_refuse_name(conn, name->backlog, commit->error);
		else if (!name->put_off && sealing->env->unreadable_rows)
			rc = backlog_drop_unreadable_name(conn, &name->dir->key, name->name, commit->error);
	}
	return rc;
}

/* All that changes on this machine when what was captured is in version `captured`. */
static int local_state(struct commit *commit, struct db_conn *conn, int64_t captured)
{
	int rc = local_rows(commit, conn, captured);

	if (!rc)
		rc = backlog_inodes(commit, conn);
	if (!rc)
		rc = backlog_names(commit, conn);
	if (!rc && commit->sealing->cut)
		rc = cut_forget_rows(commit->sealing->cut, conn, commit->error);
	return rc;
}

static int set_meta(struct commit *commit, struct db_conn *conn)
{
	struct sealing *sealing = commit->sealing;
	int rc = db_meta_set_int(conn, "head", sealing->seq, commit->error);

	if (!rc)
		rc = db_meta_set_blob(conn, "head_hash", commit->hash, sizeof(commit->hash), commit->error);
	if (!rc)
		rc = db_meta_set_int(conn, "server_told", commit->told, commit->error);
	if (!rc && !sealing->partial)
		rc = db_meta_set_int(conn, "imported", 1, commit->error);
	return rc;
}

/* I11: all of it or nothing. version false: nothing changed, only what is known of this machine. */
static int transaction(struct commit *commit, bool version)
{
	struct sealing *sealing = commit->sealing;
	struct db *db = volume_db(sealing->env->volume);
	struct db_conn *conn;
	int rc;

	seal_reader_end(&sealing->reader);
	FAILPOINT("spool/before-commit");
	rc = db_begin(db, true, &conn, commit->error);
	if (rc)
		return rc;
	if (version)
		rc = delta_apply(sealing->delta, conn, commit->error);
	if (!rc && !commit->packs_only)
		rc = local_state(commit, conn, version ? sealing->seq : sealing->env->head);
	if (!rc && version)
		rc = upload_register(sealing->env->upload, sealing->objects, conn, commit->error);
	if (!rc && version)
		rc = set_meta(commit, conn);
	/* Fault 20: a read that met with damage may have given less than there is, the base of the record for one. */
	if (!rc && db_damaged(db))
		rc = error_set(commit->error, ERR_CORRUPT, 0, "version %lld: the local database is damaged", (long long)sealing->seq);
	if (rc)
		db_rollback(db);
	else
		rc = db_commit(db, commit->error);
	FAILPOINT("spool/after-commit");
	return rc;
}

/* ---------------------------------------------------------------- */

static void count_files(struct commit *commit)
{
	struct sealing *sealing = commit->sealing;

	for (size_t i = 0; i < sealing->work_count; i++) {
		const struct seal_ino *ino = sealing->work[i];
		commit->files += ino->sealed;
		sealing->partial |= ino->deferred && !ino->unreadable;
		sealing->lacking |= ino->unreadable;
	}
	/* What this version itself puts right, the next one is free of. */
	sealing->lacking |= sealing->env->unreadable_rows > 0 || sealing->env->unseen;
}

static void advance(struct commit *commit)
{
	struct sealing *sealing = commit->sealing;
	struct seal_env *env = sealing->env;

	env->head = sealing->seq;
	env->head_cut_ns = sealing->cut_ns;
	env->head_partial = sealing->partial;
	env->head_lacking = sealing->lacking;
	memcpy(env->head_hash, commit->hash, sizeof(env->head_hash));
	if (!env->first_seq)
		env->first_seq = sealing->seq;
	upload_accept(env->upload, sealing->objects);
	sealing->objects = NULL;
}

/* Who was put off has rows in the backlog. */
static void note_put_off(const struct sealing *sealing)
{
	struct seal_env *env = sealing->env;

	for (size_t i = 0; i < sealing->name_count; i++) {
		env->bulk |= sealing->names[i].put_off && !sealing->names[i].unreadable;
		env->unreadable_rows += sealing->names[i].unreadable;
	}
	for (size_t i = 0; i < sealing->work_count; i++) {
		env->bulk |= sealing->work[i]->deferred && !sealing->work[i]->unreadable;
		env->unreadable_rows += sealing->work[i]->unreadable;
	}
	env->backlog |= env->bulk || env->unreadable_rows > 0;
}

int sealing_commit(struct sealing *sealing, bool force, bool *committed, struct error *error)
{
	struct commit commit = {.sealing = sealing, .error = error};
	const struct buf *inline_pack = NULL;
	int64_t old_time_s = sealing->env->head_time_s;
	int rc = 0;

	*committed = false;
	count_files(&commit);
	bool version = force || atomic_load(&sealing->changes) > 0 ||
		       (!sealing->partial && (sealing->env->head_partial || (sealing->env->head_lacking && !sealing->lacking)));
	if (version) {
		rc = add_version(&commit);
		if (!rc)
			rc = seal_finish_packs(sealing, &inline_pack, error);
		if (!rc)
			rc = write_record(&commit, inline_pack);
	}
	FAILPOINT("seal/record");
	if (!rc && sealing->cut && cut_is_abandoned(sealing->cut))
		rc = error_set(error, ERR_ABANDONED, 0, "version %lld: abandoned", (long long)sealing->seq);
	if (!rc)
		rc = transaction(&commit, version);
	if (rc) {
		sealing->env->head_time_s = old_time_s;
		return rc;
	}
	note_put_off(sealing);
	seal_note_unreadable(sealing);
	if (version)
		advance(&commit);
	if (sealing->cut)
		cut_commit(sealing->cut);
	sealing->cut = NULL;
	seal_reader_end(&sealing->reader);
	db_tidy(volume_db(sealing->env->volume)); /* nobody of ours reads now; during an import nobody else would do it */
	*committed = version;
	return 0;
}

/* ---------------------------------------------------------------- giving up */

/* The record of the version that was given up. */
static void discard_record(struct sealing *sealing)
{
	struct spool_object *record = sealing->objects;

	if (!record || record->row.kind != SPOOL_RECORD)
		return;
	sealing->objects = record->next;
	record->next = NULL;
	upload_discard(sealing->env->upload, record);
}

/* The delta without anything but packs. *any: there are some. */
static int reduce_delta(struct sealing *sealing, bool *any, struct error *error)
{
	struct delta *packs;
	uint64_t count = 0;
	int rc = delta_new(volume_state_path(sealing->env->volume), sealing->seq, &packs, error);

	if (rc)
		return rc;
	rc = delta_add_packs_of(packs, sealing->delta, &count, error);
	*any = count > 0;
	if (rc) {
		delta_free(packs);
		return rc;
	}
	delta_free(sealing->delta);
	sealing->delta = packs;
	return 0;
}

static int keep_packs(struct sealing *sealing, struct error *error)
{
	struct commit commit = {.sealing = sealing, .error = error, .packs_only = true};
	struct seal_env *env = sealing->env;
	int64_t old_time_s = env->head_time_s;
	bool any = false;
	int rc = reduce_delta(sealing, &any, error);

	if (rc || !any)
		return rc;
	rc = add_version(&commit);
	if (!rc)
		rc = write_record(&commit, NULL);
	if (!rc)
		rc = transaction(&commit, true);
	if (rc)
		env->head_time_s = old_time_s;
	else
		advance(&commit);
	return rc;
}

void sealing_give_up(struct sealing *sealing, int failure)
{
	struct upload_status upload;
	struct error error = {0};

	sealing->cut = NULL; /* the caller's, to abandon */
	sealing->partial = true;
	if (!sealing->early || (failure != ERR_ABANDONED && failure != ERR_NOSPACE))
		return;
	upload_get_status(sealing->env->upload, &upload);
	if (upload.fenced || upload.lost || upload.damaged) /* the spool and the log have to be looked at first */
		return;
	discard_record(sealing);
	if (keep_packs(sealing, &error))
		log_debug("what was sealed of version %lld is given up too: %s", (long long)sealing->seq, error.message);
}
