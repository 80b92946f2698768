/* The sync thread's cuts: taken, sealed, settled. */
#include "pipeline_internal.h"

#include "clock.h"
#include "failpoint.h"
#include "rescan.h"

#include <sys/stat.h>

#define CUT_WAIT_NS (2 * NS_PER_S)
#define RESCAN_AGAIN_NS (60 * NS_PER_S)

void pipeline_sealing_begins(struct pipeline *pipeline)
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

void pipeline_sealing_ends(struct pipeline *pipeline)
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
	pipeline_sealing_begins(pipeline);
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
	pipeline_sealing_ends(pipeline);
	if (!rc && pipeline->env.backlog) { /* something was put off, or has been all the time */
		struct backlog_counts counts;
		if (!importing) { /* else the round goes on: begun anew at each cut, it would never be at its end */
			pipeline->import = (struct import){0};
			pipeline->backlog_before = UINT64_MAX;
		}
		rc = pipeline_count_backlog(pipeline, &counts, error);
	}
	if (!rc)
		pipeline_forget_unreadable(pipeline);
	return rc;
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
