/* The backlog: what the sync thread takes of it, and what could not be read. */
#include "pipeline_internal.h"

#include "failpoint.h"
#include "rescan.h"

#include <string.h>

#define SMALL_INODES 5000
#define SMALL_BYTES (UINT64_C(64) << 20)

int pipeline_count_backlog(struct pipeline *pipeline, struct backlog_counts *out, struct error *error)
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

void pipeline_forget_unreadable(struct pipeline *pipeline)
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
	return rc ? rc : pipeline_count_backlog(pipeline, &counts, error);
}

/* Small enough for an ordinary cut. */
static int import_the_rest(struct pipeline *pipeline, struct error *error)
{
	struct backlog_counts counts;
	struct journal_counts journal;
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
		rc = pipeline_count_backlog(pipeline, &counts, error);
	journal_get_counts(volume_journal(pipeline->parts.volume), &journal);
	if (!rc && !journal.first_change_ns) /* else it is the cut that finds out */
		pipeline_forget_unreadable(pipeline);
	pipeline->backlog_before = UINT64_MAX;
	pipeline->now = true;
	return rc;
}

int pipeline_import(struct pipeline *pipeline, struct error *error)
{
	struct backlog_counts counts;
	bool more = true;
	int rc = pipeline_count_backlog(pipeline, &counts, error);

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
	pipeline_sealing_begins(pipeline);
	rc = import_batch(&pipeline->env, &pipeline->import, &more, error);
	pipeline_sealing_ends(pipeline);
	if (!rc && !more)
		pipeline->import = (struct import){0};
	if (!rc)
		rc = pipeline_count_backlog(pipeline, &counts, error);
	if (!rc) /* it may be as it was, so that no cut is due */
		pipeline_forget_unreadable(pipeline);
	return rc;
}
