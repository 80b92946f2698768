/* The scan of the sync thread, and what it makes of its result. */
#include "pipeline_internal.h"

#include "clock.h"
#include "log.h"
#include "rescan.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOSS_MIN 20 /* names: of fewer, half may go without a question */
#define BLIND_SCANS_MAX 4

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
	rc = pipeline_count_backlog(pipeline, &counts, error);
	if (rc)
		return rc;
	pipeline_forget_unreadable(pipeline);
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
