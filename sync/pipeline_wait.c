/* Those who talk to the sync thread. */
#include "clock.h"
#include "log.h"
#include "pipeline_internal.h"

#include <errno.h>
#include <string.h>

#define CUT_ONLY_NS (60 * NS_PER_S)
#define DRAIN_FAILURES 3

void pipeline_wake(void *context)
{
	struct pipeline *pipeline = context;

	pthread_mutex_lock(&pipeline->lock);
	pipeline->woken = true;
	pthread_cond_signal(&pipeline->work);
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
}

void pipeline_tell(struct pipeline *pipeline)
{
	pipeline->changes++;
	pthread_cond_broadcast(&pipeline->done);
}

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

/* ---------------------------------------------------------------- sync */

struct waiting {
	struct pipeline *pipeline;
	struct timespec deadline;
	bool forever;
	uint64_t rollbacks; /* when the version to wait for was made */
	struct error lacks; /* of that version */
	struct error *error;
};

/* Lock held. The last thing that went wrong, as the reason why it took too long. */
static int timed_out(const struct waiting *waiting, const struct upload_status *upload)
{
	const struct error *own = &waiting->pipeline->status.error;
	const char *why = own->code ? own->message : upload->error.code ? upload->error.message :
		"the remote has not taken everything yet; nothing is lost, the rest goes up later (yester status)";

	return error_set(waiting->error, ERR_TIMEOUT, 0, "not durable in time: %s", why);
}

static int still_mapped(const struct waiting *waiting, const struct pipeline_status *status)
{
	return error_set(waiting->error, ERR_TIMEOUT, 0,
			 "%llu file%s mapped for writing by a program that goes on; what it stores from now on is found at the next mount",
			 (unsigned long long)status->suspects, status->suspects == 1 ? " is" : "s are");
}

/* Lock held; given up while the upload is asked. What makes waiting pointless. */
static int look_up_trouble(const struct waiting *waiting, struct upload_status *upload)
{
	struct pipeline *pipeline = waiting->pipeline;

	pthread_mutex_unlock(&pipeline->lock);
	upload_get_status(pipeline->parts.upload, upload);
	pthread_mutex_lock(&pipeline->lock);
	if (pipeline->dismissed)
		return error_set(waiting->error, ERR_TIMEOUT, 0, "not durable in time: the volume is being unmounted");
	if (upload->fenced && pipeline->status.phase != PIPELINE_CHECKING) /* there a take-over may be ending it */
		return error_set(waiting->error, ERR_FENCED, 0, "%s",
				 upload->error.code == ERR_FENCED ? upload->error.message
								  : "another machine has written to the remote; mount here with -o take_over");
	if (pipeline->status.damaged)
		return error_set(waiting->error, ERR_CORRUPT, 0, "%s", pipeline->status.error.message);
	if (pipeline->status.held)
		return error_set(waiting->error, ERR_FAILED, 0, "%s", pipeline->status.error.message);
	return 0;
}

static int wait_change(const struct waiting *waiting, const struct upload_status *upload)
{
	struct pipeline *pipeline = waiting->pipeline;
	int rc = waiting->forever ? pthread_cond_wait(&pipeline->done, &pipeline->lock)
				  : pthread_cond_timedwait(&pipeline->done, &pipeline->lock, &waiting->deadline);

	return rc == ETIMEDOUT ? timed_out(waiting, upload) : 0;
}

/* Lock held: until a cut was taken after now, and spooled. */
static int wait_cut(struct waiting *waiting, int64_t *target)
{
	struct pipeline *pipeline = waiting->pipeline;
	uint64_t ticket = ++pipeline->sync_asked;
	struct upload_status upload;
	int rc;

	pipeline->woken = true;
	pthread_cond_signal(&pipeline->work);
	for (;;) {
		uint64_t seen = pipeline->changes;
		rc = look_up_trouble(waiting, &upload);
		if (pipeline->sync_done >= ticket)
			break;
		if (rc)
			return rc;
		if (pipeline->status.phase == PIPELINE_ENDED)
			return error_set(waiting->error, ERR_FAILED, 0, "the volume is being unmounted");
		if (seen == pipeline->changes && (rc = wait_change(waiting, &upload)))
			return rc;
	}
	*target = pipeline->sync_target;
	waiting->lacks = pipeline->sync_lacks;
	waiting->rollbacks = pipeline->sync_rollbacks;
	if (waiting->error)
		waiting->error->code = 0; /* what came after the cut is for who waits for more */
	return 0;
}

/* Lock held: until that version is confirmed. *again: it was taken back meanwhile. */
static int wait_confirmed(const struct waiting *waiting, int64_t target, bool *again)
{
	struct pipeline *pipeline = waiting->pipeline;
	struct upload_status upload;
	int rc;

	*again = false;
	for (;;) {
		uint64_t seen = pipeline->changes;
		rc = look_up_trouble(waiting, &upload);
		if (rc)
			return rc;
		/* First: after a take-over the number may be confirmed, and mean another machine's version. */
		*again = pipeline->rollbacks != waiting->rollbacks;
		if (*again || upload.confirmed >= target)
			return 0;
		if (seen == pipeline->changes && (rc = wait_change(waiting, &upload)))
			return rc;
	}
}

/* Lock held: until a scan that begins after now has come to its end. What keeps versions from being made does not matter here. */
static int wait_scan(struct waiting *waiting, int64_t timeout_ns)
{
	struct pipeline *pipeline = waiting->pipeline;
	uint64_t ticket = ++pipeline->rescan_asked, before = 0;
	struct upload_status upload = {0};

	pipeline->woken = true;
	pthread_cond_signal(&pipeline->work);
	while (pipeline->rescan_done < ticket) {
		if (pipeline->dismissed || pipeline->status.phase == PIPELINE_ENDED)
			return error_set(waiting->error, ERR_FAILED, 0, "the volume is being unmounted");
		if (pipeline->status.damaged) /* there will be none */
			return error_set(waiting->error, ERR_CORRUPT, 0, "%s", pipeline->status.error.message);
		int rc = wait_change(waiting, &upload);
		uint64_t scanned = atomic_load(&pipeline->scanned);
		if (rc && timeout_ns == 0 && scanned != before) /* it gets on */
			waiting->deadline = clock_deadline(CUT_ONLY_NS);
		else if (rc)
			return rc;
		before = scanned;
	}
	return 0;
}

int pipeline_sync(struct pipeline *pipeline, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error)
{
	struct waiting waiting = {.pipeline = pipeline, .forever = timeout_ns < 0, .error = error,
				  .deadline = clock_deadline(timeout_ns ? timeout_ns : CUT_ONLY_NS)};
	bool again = true;
	int64_t target = 0;
	int rc = 0;

	pthread_mutex_lock(&pipeline->lock);
	if (pipeline->dismissed) {
		pthread_mutex_unlock(&pipeline->lock);
		return error_set(error, ERR_FAILED, 0, "the volume is being unmounted");
	}
	pipeline->waiting++;
	pthread_mutex_unlock(&pipeline->lock);
	upload_kick(pipeline->parts.upload);
	pthread_mutex_lock(&pipeline->lock);
	if (rescan)
		rc = wait_scan(&waiting, timeout_ns);
	if (timeout_ns == 0)
		waiting.deadline = clock_deadline(CUT_ONLY_NS);
	while (again && !rc) {
		again = false;
		rc = wait_cut(&waiting, &target);
		if (!rc && timeout_ns)
			rc = wait_confirmed(&waiting, target, &again);
	}
	pipeline->waiting--;
	pipeline_tell(pipeline);
	pthread_mutex_unlock(&pipeline->lock);
	if (!rc && waiting.lacks.code)
		rc = error_set(error, waiting.lacks.code, waiting.lacks.sys_errno, "%s", waiting.lacks.message);
	if (version)
		*version = target;
	return rc;
}

int pipeline_drain(struct pipeline *pipeline, int64_t drain_ns, struct error *error)
{
	struct waiting waiting = {.pipeline = pipeline, .error = error, .deadline = clock_deadline(drain_ns)};
	struct pipeline_status status;
	struct upload_status upload;
	int rc = 0;

	/* Is everything in a version? Not if the last cut was impossible, or the tree was not looked through. */
	pipeline_get_status(pipeline, &status);
	upload_kick(pipeline->parts.upload);
	pthread_mutex_lock(&pipeline->lock);
	for (;;) {
		uint64_t seen = pipeline->changes;
		rc = look_up_trouble(&waiting, &upload);
		if (rc == ERR_CORRUPT && upload.confirmed < pipeline->status.head)
			rc = 0; /* what is spooled still goes up: the next mount begins with an empty spool */
		if (!rc && upload.confirmed >= pipeline->status.head && !status.clean)
			rc = status.suspects ? still_mapped(&waiting, &status) : timed_out(&waiting, &upload);
		if (rc || upload.confirmed >= pipeline->status.head)
			break;
		if (upload.failures >= DRAIN_FAILURES || upload.trouble == UPLOAD_REFUSED || drain_ns <= 0 ||
		    pipeline->cancelled) {
			rc = timed_out(&waiting, &upload);
			break;
		}
		if (seen == pipeline->changes && (rc = wait_change(&waiting, &upload)))
			break;
	}
	if (rc == ERR_TIMEOUT && pipeline->status.damaged) /* the reason that counts */
		rc = error_set(error, ERR_CORRUPT, 0, "%s", pipeline->status.error.message);
	pthread_mutex_unlock(&pipeline->lock);
	return rc;
}

void pipeline_finish(struct pipeline *pipeline)
{
	if (!pipeline->started)
		return;
	atomic_store(&pipeline->stop, true);
	pthread_mutex_lock(&pipeline->lock);
	bool checking = pipeline->cancelled = pipeline->status.phase == PIPELINE_CHECKING;
	pipeline->finishing = pipeline->woken = true;
	pthread_cond_signal(&pipeline->work);
	pthread_mutex_unlock(&pipeline->lock);
	if (checking) /* it may wait for the remote, and nothing is uploaded meanwhile */
		store_cancel(pipeline->parts.store);
	pthread_join(pipeline->thread, NULL);
	pipeline->started = false;
}

void pipeline_dismiss(struct pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->dismissed = true;
	pipeline_tell(pipeline);
	while (pipeline->waiting > 0)
		pthread_cond_wait(&pipeline->done, &pipeline->lock);
	pthread_mutex_unlock(&pipeline->lock);
}

/* ---------------------------------------------------------------- status */

void pipeline_get_status(struct pipeline *pipeline, struct pipeline_status *out)
{
	struct journal_counts counts;

	/* A cut takes the dirt out of sight before its version shows: a sealing that began, went on or ended while we looked makes the look worthless. */
	pthread_mutex_lock(&pipeline->lock);
	uint64_t before = pipeline->sealings;
	pthread_mutex_unlock(&pipeline->lock);
	journal_get_counts(volume_journal(pipeline->parts.volume), &counts);
	pthread_mutex_lock(&pipeline->lock);
	*out = pipeline->status;
	out->suspects = counts.suspects;
	out->scanned = atomic_load(&pipeline->scanned);
	out->clean = before == pipeline->sealings && before % 2 == 0 && counts.dirty_inodes == 0 && counts.dirty_names == 0 &&
		     counts.first_change_ns == 0 && counts.suspects == 0 && (out->phase == PIPELINE_RUNNING || out->phase == PIPELINE_ENDED) &&
		     pipeline->scan_complete && !out->importing && !out->held && !pipeline->partial_head && !pipeline->unreadable;
	pthread_mutex_unlock(&pipeline->lock);
}
