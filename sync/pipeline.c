#include "pipeline.h"

#include "clock.h"
#include "io.h"
#include "log.h"
#include "memory.h"
#include "pipeline_internal.h"
#include "suspect.h"
#include "writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NEVER INT64_MAX
#define SETTLE_NS (60 * NS_PER_S)
#define LOCAL_TROUBLE_NS (10 * NS_PER_S)
#define NETWORK_MAX_NS (60 * NS_PER_S)
#define ABANDONED_MIN_NS (NS_PER_S / 4)
#define ABANDONED_MAX_NS (5 * NS_PER_S)
#define LAST_CUT_TRIES 3
#define UNREADABLE_MIN_NS (60 * NS_PER_S)
#define UNREADABLE_MAX_NS (3600 * NS_PER_S)

/* What the thread sees of the world, once a turn. */
struct view {
	bool finishing, asked, rescan;
	uint64_t ticket;
	int64_t now; /* monotonic */
	struct upload_status upload;
	struct journal_counts journal;
};

static void look(struct pipeline *pipeline, struct view *view)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->woken = false;
	view->finishing = pipeline->finishing;
	view->ticket = pipeline->sync_asked;
	view->asked = view->ticket > pipeline->sync_done;
	view->rescan = pipeline->rescan_asked > pipeline->rescan_done;
	pthread_mutex_unlock(&pipeline->lock);
	upload_get_status(pipeline->parts.upload, &view->upload);
	journal_get_counts(volume_journal(pipeline->parts.volume), &view->journal);
	view->now = clock_mono_ns();
}

static void wait_until(struct pipeline *pipeline, int64_t until)
{
	struct timespec deadline;
	int rc = 0;

	if (pipeline->worked) /* nothing follows at once */
		memory_give_back();
	pipeline->worked = false;
	deadline = clock_deadline(until - clock_mono_ns());

	pthread_mutex_lock(&pipeline->lock);
	while (!pipeline->woken && rc != ETIMEDOUT)
		rc = until == NEVER ? pthread_cond_wait(&pipeline->work, &pipeline->lock)
				    : pthread_cond_timedwait(&pipeline->work, &pipeline->lock, &deadline);
	pthread_mutex_unlock(&pipeline->lock);
}

static void set_phase(struct pipeline *pipeline, enum pipeline_phase phase)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.phase = phase;
	if (phase == PIPELINE_CHECKING || phase == PIPELINE_SCANNING)
		pipeline->scan_complete = false;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

static enum pipeline_phase phase_of(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	enum pipeline_phase phase = pipeline->status.phase;
	pthread_mutex_unlock(&pipeline->lock);
	return phase;
}

static int64_t min_time(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---------------------------------------------------------------- after a failure */

static int64_t pause_after(struct pipeline *pipeline, int rc)
{
	uint64_t failures = pipeline->failures < 6 ? pipeline->failures : 6, random;
	int64_t ceiling;

	switch (rc) {
	case ERR_ABANDONED:
	case ERR_TIMEOUT:
		ceiling = ABANDONED_MIN_NS << failures;
		return ceiling < ABANDONED_MAX_NS ? ceiling : ABANDONED_MAX_NS;
	case ERR_RETRY:
		io_random(&random, sizeof(random));
		ceiling = NS_PER_S << failures;
		ceiling = ceiling < NETWORK_MAX_NS ? ceiling : NETWORK_MAX_NS;
		return NS_PER_S / 4 + (int64_t)(random % (uint64_t)ceiling);
	case ERR_DENIED:
	case ERR_CORRUPT:
	case ERR_FENCED: return NETWORK_MAX_NS;
	default: return LOCAL_TROUBLE_NS;
	}
}

/* Ordinary wakes don't count: changes go on while a cut fails, and each would have it tried again at once. */
static void pause_until(struct pipeline *pipeline, int64_t until)
{
	struct timespec deadline = clock_deadline(until - clock_mono_ns());
	int rc = 0;

	pthread_mutex_lock(&pipeline->lock);
	uint64_t asked = pipeline->sync_asked + pipeline->rescan_asked;
	while (!pipeline->finishing && pipeline->sync_asked + pipeline->rescan_asked == asked && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&pipeline->work, &pipeline->lock, &deadline);
	pthread_mutex_unlock(&pipeline->lock);
}

/* Notes the outcome of a step; waits after a failure, unless somebody asks. */
static void settle_outcome(struct pipeline *pipeline, int rc, const struct error *error)
{
	if (!rc) {
		pipeline->failures = 0;
		if (!pipeline->status.held) /* its message stands; only this thread sets it */
			pipeline_set_error(pipeline, pipeline->env.unreadable.code ? &pipeline->env.unreadable : NULL);
		return;
	}
	pipeline->failures++;
	if ((rc != ERR_ABANDONED && rc != ERR_TIMEOUT) || pipeline->failures > 5)
		pipeline_set_error(pipeline, error);
	pause_until(pipeline, clock_mono_ns() + pause_after(pipeline, rc));
}

/* ---------------------------------------------------------------- running */

/* Fault 20: what is read from a damaged catalogue would get into the remote's. */
static bool is_damaged(struct pipeline *pipeline)
{
	struct volume *volume = pipeline->parts.volume;
	const char *directory = volume_config(volume)->directory;
	struct error error;

	if (!volume_is_damaged(volume))
		return false;
	if (pipeline->status.damaged)
		return true;
	error_set(&error, ERR_CORRUPT, 0,
		  "%s/volume.db: damaged; no version is made until %s is unmounted; mount it again, and a new one is made from the remote; nothing in "
		  "the directory is lost",
		  volume_state_path(volume), directory);
	pipeline_set_error(pipeline, &error);
	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.damaged = true;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
	return true;
}

/* lacks: what the version lacks, NULL: nothing. */
static void tell_done(struct pipeline *pipeline, uint64_t ticket, const struct error *lacks)
{
	pthread_mutex_lock(&pipeline->lock);
	if (ticket > pipeline->sync_done) {
		pipeline->sync_done = ticket;
		pipeline->sync_target = pipeline->env.head;
		pipeline->sync_lacks = lacks ? *lacks : (struct error){0};
		pipeline->sync_rollbacks = pipeline->rollbacks;
	}
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

/* I13. Looks again when an upload is through, and now and then for a disk that others empty. */
static bool has_room(struct pipeline *pipeline)
{
	struct error why = {0};
	bool room = spool_has_room(pipeline->parts.spool, &why);

	pthread_mutex_lock(&pipeline->lock);
	pipeline->status.waiting = !room;
	pthread_mutex_unlock(&pipeline->lock);
	if (!room)
		pipeline_set_error(pipeline, &why);
	return room;
}

/* When what is dirty makes a version by itself: the interval after the first change, or at once when it is much. NEVER: nothing is dirty. */
static int64_t cut_time(const struct pipeline *pipeline, const struct view *view)
{
	if (!view->journal.first_change_ns)
		return NEVER;
	if (view->journal.dirty_inodes + view->journal.dirty_names >= JOURNAL_MANY)
		return view->now;
	return view->journal.first_change_ns + volume_config(pipeline->parts.volume)->interval_ns;
}

static int import_step(struct pipeline *pipeline, const struct view *view, struct error *error)
{
	/* Edits made today go before the bulk. */
	if (cut_time(pipeline, view) <= view->now) {
		int rc = pipeline_cut(pipeline, true, error);
		if (rc && rc != ERR_ABSENT)
			return rc;
	}
	return pipeline_import(pipeline, error);
}

static bool is_unreadable(const struct pipeline *pipeline) { return pipeline->env.unreadable_rows > 0 || pipeline->env.unseen; }

/* What can't be read seldom becomes readable by being tried again, and a bad disk takes long to say no: less and less often; and when somebody asks for a version. Those who ask meanwhile get the version
 * that follows: with a try for each of them, there would be none as long as they come faster than the tree is looked through. */
static bool is_retry_due(struct pipeline *pipeline, const struct view *view)
{
	if (!is_unreadable(pipeline)) {
		pipeline->retry_at = 0;
		if (!pipeline->env.head_lacking && !pipeline->env.unreadable.code) /* else a try is under way */
			pipeline->retry_ns = 0;
		return false;
	}
	if (!pipeline->retry_at) {
		pipeline->retry_ns = pipeline->retry_ns ? min_time(2 * pipeline->retry_ns, UNREADABLE_MAX_NS) : UNREADABLE_MIN_NS;
		pipeline->retry_at = view->now + pipeline->retry_ns;
	}
	bool asked = view->asked && view->ticket > pipeline->retried && pipeline->sync_done >= pipeline->retried; /* only this thread sets sync_done */
	return !view->finishing && (view->now >= pipeline->retry_at || asked);
}

/* True: this turn is over. */
static bool retry_step(struct pipeline *pipeline, const struct view *view)
{
	struct error error = {0};
	bool scan = false;
	int rc = pipeline_retry(pipeline, &scan, &error);

	if (rc) {
		settle_outcome(pipeline, rc, &error);
		return true;
	}
	pipeline->retried = view->ticket;
	pipeline->retry_at = 0;
	if (scan)
		set_phase(pipeline, PIPELINE_SCANNING);
	return scan;
}

static bool is_version_due(const struct pipeline *pipeline)
{
	const struct seal_env *env = &pipeline->env;

	return pipeline->force || pipeline->blind || env->head == 0 || env->head_partial || (env->head_lacking && !is_unreadable(pipeline));
}

/* Who is told that the version lacks something finds it in the status, too. */
static void tell_version(struct pipeline *pipeline, const struct view *view)
{
	const struct error *lacks = is_unreadable(pipeline) ? &pipeline->env.unreadable : NULL;

	if (lacks)
		pipeline_set_error(pipeline, lacks);
	tell_done(pipeline, view->ticket, lacks);
}

static int cut_step(struct pipeline *pipeline, const struct view *view, struct error *error)
{
	bool blind = pipeline->blind;
	int rc = pipeline_cut(pipeline, blind, error); /* I7 */

	if (rc == ERR_ABSENT) {
		pipeline->now = false;
		rc = 0;
	}
	if (!rc && !pipeline->env.bulk && blind)
		set_phase(pipeline, PIPELINE_SCANNING);
	else if (!rc && !pipeline->env.bulk && !pipeline->env.head_partial && !(pipeline->env.head_lacking && !is_unreadable(pipeline)))
		tell_version(pipeline, view);
	return rc;
}

/* Uploads have got somewhere, or have found something. False: this turn is over. */
static bool heed_uploads(struct pipeline *pipeline, const struct view *view)
{
	if (view->upload.lost || view->upload.damaged) {
		if (view->upload.lost)
			pipeline->taking_over = true;
		set_phase(pipeline, PIPELINE_CHECKING);
		return false;
	}
	if (pipeline->env.first_seq && view->upload.confirmed >= pipeline->env.first_seq)
		pipeline->taking_over = false;
	if (view->upload.confirmed == pipeline->env.head && view->upload.confirmed > pipeline->poked) {
		pipeline->poked = view->upload.confirmed;
		checkpointer_poke(pipeline->parts.checkpointer);
	}
	return true;
}

/* When settling is due, NEVER when nothing is left to do for it. */
static int64_t settle_time(struct pipeline *pipeline, const struct view *view)
{
	if (view->journal.unsettled == 0 || pipeline->spooled_epoch <= pipeline->settled_epoch)
		return NEVER;
	if (!pipeline->settle_at)
		pipeline->settle_at = view->now + SETTLE_NS;
	return pipeline->settle_at;
}

/* Whether it is time to look at suspect inodes; all: also those whose time has not come, because somebody waits for a version that has everything, or there will be no further one. */
static bool are_suspects_due(struct pipeline *pipeline, const struct view *view, bool *all)
{
	*all = view->journal.suspects > 0 && ((view->finishing && !pipeline->suspects_ended) || view->ticket > pipeline->suspects_ticket);
	return *all || suspect_due(volume_journal(pipeline->parts.volume)) <= view->now;
}

static void heed_suspects(struct pipeline *pipeline, struct view *view)
{
	struct journal *journal = volume_journal(pipeline->parts.volume);
	struct error error = {0};
	bool all;

	if (!are_suspects_due(pipeline, view, &all))
		return;
	int rc = suspect_check(journal, all, &error);
	pipeline->suspects_ended = view->finishing;
	pipeline->suspects_ticket = view->ticket;
	if (rc)
		settle_outcome(pipeline, rc, &error);
	journal_get_counts(journal, &view->journal);
}

/* Somebody wants to know what was changed behind the mount. What the mount itself has changed is cut first: a scan can't tell the one from the other, and has a file that was written since the last cut sealed again, all of it. */
static void begin_rescan(struct pipeline *pipeline, const struct view *view)
{
	bool may_cut = !view->upload.fenced && !pipeline->status.held && !pipeline->env.bulk;
	struct error error = {0};

	if (may_cut && view->journal.first_change_ns && has_room(pipeline))
		cut_step(pipeline, view, &error); /* failed: it is tried again after the scan, and then told */
	pipeline_before_scan(pipeline);
	set_phase(pipeline, PIPELINE_SCANNING);
}

static bool stand_still(struct pipeline *pipeline, const struct view *view)
{
	if (!view->finishing)
		wait_until(pipeline, NEVER);
	return view->finishing;
}

/* One decision. True: the thread ends. */
static bool run_step(struct pipeline *pipeline, struct view *view)
{
	struct error error = {0};
	int rc;

	if (!heed_uploads(pipeline, view))
		return false;
	if (view->rescan && !view->finishing) {
		begin_rescan(pipeline, view);
		return false;
	}
	if (view->upload.fenced || pipeline->status.held)
		return stand_still(pipeline, view);
	if (pipeline->rescan_at && view->now >= pipeline->rescan_at && !view->finishing) {
		set_phase(pipeline, PIPELINE_SCANNING);
		return false;
	}
	heed_suspects(pipeline, view);
	int64_t dirty_at = cut_time(pipeline, view);
	int64_t cut_at = dirty_at != NEVER && (pipeline->now || view->asked || view->finishing) ? view->now : dirty_at;
	int64_t settle_at = settle_time(pipeline, view);
	if (settle_at <= view->now) {
		rc = pipeline_settle(pipeline, &error);
		if (rc || (pipeline->unsettled && !pipeline->failures)) /* its own message goes when it is through */
			pipeline_set_error(pipeline, rc ? &error : NULL);
		pipeline->unsettled = rc != 0;
	}
	if (is_retry_due(pipeline, view) && retry_step(pipeline, view))
		return false;
	bool work = pipeline->env.bulk || cut_at <= view->now || view->asked || is_version_due(pipeline);
	if (view->finishing && (pipeline->env.bulk || pipeline->last_tries++ >= LAST_CUT_TRIES))
		return true;
	if (!work && !view->finishing) {
		int64_t later = min_time(settle_at, pipeline->rescan_at ? pipeline->rescan_at : NEVER);
		later = min_time(later, suspect_due(volume_journal(pipeline->parts.volume)));
		wait_until(pipeline, min_time(cut_at, pipeline->retry_at ? min_time(later, pipeline->retry_at) : later));
		return false;
	}
	if (!has_room(pipeline)) {
		if (!view->finishing)
			wait_until(pipeline, view->now + LOCAL_TROUBLE_NS);
		return view->finishing;
	}
	pipeline->worked = true;
	rc = pipeline->env.bulk ? import_step(pipeline, view, &error) : cut_step(pipeline, view, &error);
	if (view->finishing && rc && rc != ERR_ABANDONED && rc != ERR_TIMEOUT) {
		pipeline_set_error(pipeline, &error);
		return true;
	}
	if (!is_damaged(pipeline))
		settle_outcome(pipeline, rc, &error);
	return view->finishing && !rc;
}

/* ---------------------------------------------------------------- the thread */

static void check_or_scan(struct pipeline *pipeline, enum pipeline_phase phase)
{
	struct error error = {0};

	pipeline->worked = true;
	pthread_mutex_lock(&pipeline->lock);
	uint64_t asked = pipeline->rescan_asked;
	pthread_mutex_unlock(&pipeline->lock);
	int rc = phase == PIPELINE_CHECKING ? pipeline_check(pipeline, &error) : pipeline_scan(pipeline, &error);
	if (!rc && phase == PIPELINE_SCANNING) {
		pthread_mutex_lock(&pipeline->lock);
		pipeline->rescan_done = asked;
		pthread_mutex_unlock(&pipeline->lock);
	}
	if (!rc)
		set_phase(pipeline, phase == PIPELINE_CHECKING ? PIPELINE_SCANNING : PIPELINE_RUNNING);
	if (!is_damaged(pipeline))
		settle_outcome(pipeline, rc, &error);
}

static void *run(void *context)
{
	struct pipeline *pipeline = context;
	struct error error = {0};
	bool end = false;

	while (!end) {
		enum pipeline_phase phase = phase_of(pipeline);
		struct view view;
		look(pipeline, &view);
		if (is_damaged(pipeline))
			end = stand_still(pipeline, &view);
		else if (phase == PIPELINE_RUNNING)
			end = run_step(pipeline, &view);
		else if (view.finishing)
			end = true;
		else
			check_or_scan(pipeline, phase);
	}
	if (pipeline->spooled_epoch > pipeline->settled_epoch && pipeline_settle(pipeline, &error))
		log_warn("%s", error.message);
	set_phase(pipeline, PIPELINE_ENDED);
	return NULL;
}

int pipeline_new(struct pipeline **out, struct error *error)
{
	struct pipeline *pipeline = calloc(1, sizeof(*pipeline));

	*out = pipeline;
	if (!pipeline)
		return error_errno(error, ENOMEM, "pipeline");
	pthread_mutex_init(&pipeline->lock, NULL);
	clock_cond_init(&pipeline->work);
	clock_cond_init(&pipeline->done);
	pipeline->backlog_before = UINT64_MAX;
	return 0;
}

int pipeline_start(struct pipeline *pipeline, const struct pipeline_parts *parts, struct error *error)
{
	struct seal_env *env = &pipeline->env;
	int failure;

	pipeline->parts = *parts;
	pipeline->taking_over = parts->take_over;
	*env = (struct seal_env){.volume = parts->volume, .master = parts->master, .chunker = parts->chunker, .spool = parts->spool,
				 .upload = parts->upload, .stop = &pipeline->stop};
	writer_new(parts->master, parts->volume, env->writer_id);
	struct backing *backing = volume_backing(parts->volume);
	failure = -backing_identify(backing, backing_root_fd(backing), "", &env->root, &(struct stat){0}, NULL);
	if (failure)
		return error_errno(error, failure, "the root directory");
	failure = pthread_create(&pipeline->thread, NULL, run, pipeline);
	if (failure)
		return error_errno(error, failure, "starting the sync thread");
	pipeline->started = true;
	return 0;
}

void pipeline_free(struct pipeline *pipeline)
{
	if (!pipeline)
		return;
	pthread_cond_destroy(&pipeline->work);
	pthread_cond_destroy(&pipeline->done);
	pthread_mutex_destroy(&pipeline->lock);
	free(pipeline);
}
