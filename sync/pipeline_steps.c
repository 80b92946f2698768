/* What the sync thread does; when it does it is pipeline.c's. */
#include "pipeline_internal.h"

#include "clock.h"
#include "contact.h"
#include "failpoint.h"
#include "log.h"
#include "repair.h"
#include "rescan.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CUT_WAIT_NS (2 * NS_PER_S)
#define SMALL_INODES 5000
#define SMALL_BYTES (UINT64_C(64) << 20)
#define LOSS_MIN 20 /* names: of fewer, half may go without a question */
#define BLIND_SCANS_MAX 4
#define RESCAN_AGAIN_NS (60 * NS_PER_S)

void pipeline_set_error(struct pipeline *pipeline, const struct error *error)
{
	pthread_mutex_lock(&pipeline->lock);
	struct error *known = &pipeline->status.error;
	bool news = error && (known->code != error->code || strcmp(known->message, error->message) != 0);
	if (error) {
		*known = *error;
		pipeline->status.error_ns = clock_wall_ns();
	} else {
		known->code = 0;
	}
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
	if (news)
		log_warn("%s", error->message);
}

static void set_head(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.head = pipeline->env.head;
	pipeline->partial_head = pipeline->env.head_partial || pipeline->env.head_lacking || pipeline->env.head == 0;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

/* ---------------------------------------------------------------- checking */

struct meta { int64_t head, confirmed, must_take_over, rebuilt, fenced, held; uint8_t hash[SHA256_BYTES]; bool hash_known; };

static int read_meta(struct pipeline *pipeline, struct meta *out, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	*out = (struct meta){.head = db_meta_int(conn, "head", 0), .confirmed = db_meta_int(conn, "confirmed", 0),
			     .must_take_over = db_meta_int(conn, "must_take_over", 0), .fenced = db_meta_int(conn, "fenced", 0),
			     .held = db_meta_int(conn, "uploads_held", 0), .rebuilt = db_meta_int(conn, "rebuilt", 0)};
	out->hash_known = out->confirmed == 0 || db_meta_blob(conn, "confirmed_hash", out->hash, SHA256_BYTES) == 0;
	if (!out->hash_known && out->head == out->confirmed) /* as a recovery left it */
		db_meta_blob(conn, "head_hash", out->hash, SHA256_BYTES);
	db_read_end(db, conn);
	return 0;
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

/* ---------------------------------------------------------------- scanning */

static int set_held(struct pipeline *pipeline, bool held, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = db_meta_set_int(conn, "uploads_held", held, error);
	if (rc) {
		db_rollback(db);
		return rc;
	}
	rc = db_commit(db, error);
	if (rc)
		return rc;
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.held = held;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
	upload_hold(pipeline->parts.upload, held);
	return 0;
}

/* Half of the tree gone is more often an accident than a wish: ask before the newest version says so. */
static int judge_loss(struct pipeline *pipeline, const struct rescan_result *result, struct error *error)
{
	bool lost = result->known >= LOSS_MIN && result->absent * 2 > result->known && !pipeline->parts.accept_loss;
	struct upload_status upload;
	struct error why;

	/* Nothing is uploaded then, and what is known is another's tree: the take-over's scan judges. */
	upload_get_status(pipeline->parts.upload, &upload);
	lost &= !upload.fenced;
	if (lost) {
		error_set(&why, ERR_FAILED, 0,
			  "more than half of the files are gone: %llu of %llu names; nothing is uploaded; if that is right: yester mount -o accept_loss %s",
			  (unsigned long long)result->absent, (unsigned long long)result->known,
			  volume_config(pipeline->parts.volume)->directory);
		pipeline_set_error(pipeline, &why); /* before who waits for a version sees that there will be none */
	}
	return set_held(pipeline, lost, error);
}

static int count_backlog(struct pipeline *pipeline, struct backlog_counts *out, struct error *error)
{
	struct db *db = volume_db(pipeline->parts.volume);
	struct seal_env *env = &pipeline->env;
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	rc = backlog_count(conn, out);
	db_read_end(db, conn);
	if (rc)
		return error_set(error, rc, 0, "can't read the backlog");
	env->bulk = out->inodes || out->names;
	env->unreadable_rows = out->unreadable;
	env->backlog = env->bulk || out->unreadable;
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.backlog_files = (out->inodes > out->names ? out->inodes : out->names) + out->unreadable;
	pipeline->status.backlog_bytes = out->bytes;
	pipeline->status.importing = env->bulk;
	pipeline->unreadable = out->unreadable || env->unseen;
	pthread_mutex_unlock(&pipeline->lock);
	return 0;
}

/* After a whole version or a scan: what could not be read can, or is gone. */
static void forget_unreadable(struct pipeline *pipeline)
{
	const struct seal_env *env = &pipeline->env;

	if (!env->backlog && !env->unseen)
		pipeline->env.unreadable.code = 0;
}

int pipeline_retry(struct pipeline *pipeline, bool *scan, struct error *error)
{
	struct backlog_counts counts;
	int rc;

	*scan = pipeline->env.unseen; /* which tries all again */
	if (*scan)
		return 0;
	rc = backlog_try_unreadable(pipeline->parts.volume, error);
	pipeline->import = (struct import){0};
	pipeline->backlog_before = UINT64_MAX;
	return rc ? rc : count_backlog(pipeline, &counts, error);
}

/* The message has "PATH: why" of the first. */
static void say_unseen(struct pipeline *pipeline, const struct rescan_result *result)
{
	char path[sizeof(result->unreadable_why.message)];
	const char *why = strrchr(result->unreadable_why.message, ':');

	snprintf(path, sizeof(path), "%.*s", why ? (int)(why - result->unreadable_why.message) : 0, result->unreadable_why.message);
	seal_say_unreadable(&pipeline->env, path, result->unreadable_why.sys_errno);
}

int pipeline_scan(struct pipeline *pipeline, struct error *error)
{
	const struct pipeline_parts *parts = &pipeline->parts;
	struct rescan_result result;
	struct backlog_counts counts;
	int rc = 0;

	atomic_store(&pipeline->scanned, 0);
	if (db_unchecked(volume_db(parts->volume)))
		rc = db_quick_check(volume_db(parts->volume), error);
	if (!rc)
		rc = rescan_run(parts->volume, parts->clean, parts->same_boot, &pipeline->stop, &pipeline->scanned, &result, error);
	if (!rc)
		rc = judge_loss(pipeline, &result, error);
	if (rc)
		return rc;
	pipeline->env.unseen = result.unreadable > 0;
	if (pipeline->env.unseen)
		say_unseen(pipeline, &result);
	rc = count_backlog(pipeline, &counts, error);
	if (rc)
		return rc;
	forget_unreadable(pipeline);
	/* A directory that can never be captured does not keep us here. */
	pipeline->blind = result.blind > 0 && ++pipeline->blind_scans < BLIND_SCANS_MAX;
	if (!pipeline->blind)
		pipeline->blind_scans = 0;
	pthread_mutex_lock(&pipeline->lock);
	pipeline->scan_complete = !pipeline->blind;
	pthread_mutex_unlock(&pipeline->lock);
	/* What the next scan of this session compares with is this session's journal. */
	pipeline->parts.clean = pipeline->parts.same_boot = true;
	pipeline->import = (struct import){0};
	pipeline->backlog_before = UINT64_MAX;
	pipeline->rescan_at = 0;
	return 0;
}

void pipeline_before_scan(struct pipeline *pipeline)
{
	struct error error = {0};

	/* Only what was captured longer after its change than timestamps are coarse does not count as different. */
	nanosleep(&(struct timespec){.tv_nsec = 2 * RACY_NS}, NULL);
	if (pipeline_calm(pipeline, &error))
		log_warn("%s; the scan has a few files read again", error.message);
}

/* ---------------------------------------------------------------- cuts */

static void sealing_begins(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->sealings++;
	pthread_mutex_unlock(&pipeline->lock);
}

static void sealing_goes_on(struct pipeline *pipeline, const struct cut *cut)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.sealing_files = cut_count(cut);
	pthread_mutex_unlock(&pipeline->lock);
}

static void sealing_ends(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->sealings++;
	pipeline->status.sealing_files = 0;
	pipeline->status.head = pipeline->env.head;
	pipeline->status.importing |= pipeline->env.bulk; /* something was put off: at once, it is counted later */
	pipeline->unreadable |= pipeline->env.unreadable_rows > 0;
	pipeline->partial_head = pipeline->env.head_partial || pipeline->env.head_lacking || pipeline->env.head == 0;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

/* The catalogue has not even the root: it is an empty directory's first version. */
static int note_root(struct pipeline *pipeline)
{
	struct db *db = volume_db(pipeline->parts.volume);
	struct inode_hold hold;
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, NULL);

	if (rc)
		return rc;
	rc = catalogue_inode(conn, CATALOGUE_LIVE, CATALOGUE_ROOT_INO, &hold);
	db_read_end(db, conn);
	if (!rc)
		inode_hold_free(&hold);
	if (rc != ERR_ABSENT)
		return rc;
	return journal_note_inode(volume_journal(pipeline->parts.volume), &pipeline->env.root, S_IFDIR, true);
}

static int seal(struct pipeline *pipeline, struct cut *cut, bool partial, bool force, struct error *error)
{
	int64_t epoch = cut ? cut_epoch(cut) : 0;
	bool rescan = false;
	int rc;

	if (cut)
		sealing_goes_on(pipeline, cut);
	rc = seal_cut(&pipeline->env, cut, partial, force, &rescan, error);
	if (rc == ERR_ABSENT) /* of a file or directory of ours; for the caller it means that nothing changed */
		rc = error->code = ERR_FAILED;
	if (rc)
		return rc;
	if (epoch)
		pipeline->spooled_epoch = epoch;
	pipeline->now = false;
	pipeline->force &= partial; /* a whole version is due, if one is */
	if (rescan && !pipeline->rescan_at)
		pipeline->rescan_at = clock_mono_ns() + RESCAN_AGAIN_NS;
	return 0;
}

int pipeline_cut(struct pipeline *pipeline, bool partial, struct error *error)
{
	struct journal *journal = volume_journal(pipeline->parts.volume);
	bool force = pipeline->force || pipeline->env.head == 0;
	bool due = force || pipeline->env.head_partial || (pipeline->env.head_lacking && !pipeline->env.unreadable_rows && !pipeline->env.unseen);
	bool importing = pipeline->env.bulk;
	struct cut *cut = NULL;
	int rc = pipeline->env.head == 0 && !partial ? note_root(pipeline) : 0;

	if (rc)
		return error_set(error, rc, 0, "can't note the root directory: %s", error_word(rc));
	sealing_begins(pipeline);
	pipeline->env.idle_ns = clock_wall_ns();
	rc = journal_cut(journal, CUT_WAIT_NS, &cut);
	FAILPOINT("seal/cut");
	if (rc == ERR_TIMEOUT)
		error_set(error, rc, 0, "operations are too busy for a cut; tried again");
	else if (rc && rc != ERR_ABSENT)
		error_set(error, rc, 0, "can't take a cut: %s", error_word(rc));
	else if (!rc || (due && !partial))
		rc = seal(pipeline, cut, partial, force && !partial, error);
	pipeline->env.idle_ns = 0;
	sealing_ends(pipeline);
	if (!rc && pipeline->env.backlog) { /* something was put off, or has been all the time */
		struct backlog_counts counts;
		if (!importing) { /* else the round goes on: begun anew at each cut, it would never be at its end */
			pipeline->import = (struct import){0};
			pipeline->backlog_before = UINT64_MAX;
		}
		rc = count_backlog(pipeline, &counts, error);
	}
	if (!rc)
		forget_unreadable(pipeline);
	return rc;
}

/* ---------------------------------------------------------------- import */

/* Small enough for an ordinary cut. */
static int import_the_rest(struct pipeline *pipeline, struct error *error)
{
	struct backlog_counts counts;
	struct error unreadable;

	FAILPOINT("import/to-journal");
	int rc = backlog_to_journal(pipeline->parts.volume, &unreadable, error);
	if (!rc && unreadable.code) {
		char *why = strrchr(unreadable.message, ':');
		if (why)
			*why = '\0';
		seal_say_unreadable(&pipeline->env, unreadable.message, unreadable.sys_errno);
	}
	if (!rc)
		rc = count_backlog(pipeline, &counts, error);
	pipeline->backlog_before = UINT64_MAX;
	pipeline->now = true;
	return rc;
}

int pipeline_import(struct pipeline *pipeline, struct error *error)
{
	struct backlog_counts counts;
	bool more = true;
	int rc = count_backlog(pipeline, &counts, error);

	if (rc || !pipeline->env.bulk)
		return rc;
	uint64_t rows = counts.inodes + counts.names;
	bool begins = pipeline->import.after_name == 0 && pipeline->import.after_inode == 0;
	bool small = counts.inodes <= SMALL_INODES && counts.names <= SMALL_INODES && counts.bytes <= SMALL_BYTES;
	/* A round that left everything where it was will not do better the next time: what stays is changed all the time, and a cut gets it. */
	if (begins && (small || rows >= pipeline->backlog_before))
		return import_the_rest(pipeline, error);
	if (begins)
		pipeline->backlog_before = rows;
	sealing_begins(pipeline);
	rc = import_batch(&pipeline->env, &pipeline->import, &more, error);
	sealing_ends(pipeline);
	if (!rc && !more)
		pipeline->import = (struct import){0};
	return rc ? rc : count_backlog(pipeline, &counts, error);
}

int pipeline_settle(struct pipeline *pipeline, struct error *error)
{
	int64_t epoch = pipeline->spooled_epoch;
	int rc = journal_settle(volume_journal(pipeline->parts.volume), epoch, error);

	pipeline->settle_at = 0;
	if (!rc)
		pipeline->settled_epoch = epoch;
	return rc;
}

int pipeline_calm(struct pipeline *pipeline, struct error *error)
{
	int64_t before_ns = clock_wall_ns() - RACY_NS;
	struct db *db = volume_db(pipeline->parts.volume);
	struct db_conn *conn;
	int rc;

	if (!pipeline->scan_complete)
		return 0;
	rc = journal_flush(volume_journal(pipeline->parts.volume), error);
	if (!rc)
		rc = db_begin(db, false, &conn, error);
	if (rc)
		return rc;
	rc = catalogue_local_calm(conn, before_ns, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}
