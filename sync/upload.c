#include "upload.h"

#include "clock.h"
#include "io.h"
#include "log.h"
#include "upload_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_MIN_NS NS_PER_S
#define BACKOFF_MAX_NS (60 * NS_PER_S)
#define REFUSED_NS (60 * NS_PER_S)
#define CONTACT_NS (24 * 3600 * NS_PER_S) /* Commit 7: a day without a confirmation */

/* ---------------------------------------------------------------- what is next; lock held */

static bool stands_still(const struct upload *upload)
{
	const struct upload_status *status = &upload->status;

	return upload->paused || upload->held || status->fenced || status->lost || status->damaged;
}

static struct spool_object *next_pack(struct upload *upload)
{
	struct spool_object *pack = upload->packs.first;

	if (!upload->status.contact)
		return NULL;
	while (pack && pack->in_flight)
		pack = pack->queue;
	return pack;
}

/* The next record, if nothing it needs is missing (I15). */
static struct spool_object *next_record(struct upload *upload)
{
	struct spool_object *record = upload->records.first;

	if (!record || record->in_flight || record->row.seq != upload->status.confirmed + 1)
		return NULL;
	/* The queue is in order of versions, and a pack leaves it when it is acknowledged. */
	return upload->packs.first && upload->packs.first->row.seq <= record->row.seq ? NULL : record;
}

static bool contact_is_due(struct upload *upload)
{
	if (upload->status.contact && upload->records.first && clock_mono_ns() > upload->contact_until && !upload->in_flight)
		upload->status.contact = false;
	return !upload->status.contact;
}

/* Waits for a change, or until what is there to do may be tried again. */
static void wait_work(struct upload *upload, bool something)
{
	int64_t left = upload->not_before - clock_mono_ns();

	if (something && !stands_still(upload) && left > 0) {
		struct timespec deadline = clock_deadline(left);
		pthread_cond_timedwait(&upload->work, &upload->lock, &deadline);
	} else {
		pthread_cond_wait(&upload->work, &upload->lock);
	}
}

/* ---------------------------------------------------------------- after an attempt; lock held */

static int64_t jitter(uint64_t failures)
{
	int64_t ceiling = failures >= 6 ? BACKOFF_MAX_NS : BACKOFF_MIN_NS << failures;
	uint64_t random;

	io_random(&random, sizeof(random));
	return BACKOFF_MIN_NS / 4 + (int64_t)(random % (uint64_t)(ceiling > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : ceiling));
}

static void succeeded(struct upload *upload)
{
	upload->status.successes++;
	upload->status.failures = 0;
	upload->status.trouble = UPLOAD_FINE;
	upload->status.error.code = 0;
	upload->not_before = 0;
	pthread_cond_broadcast(&upload->work);
	pthread_cond_broadcast(&upload->moved);
}

static void failed(struct upload *upload, int rc, const struct error *error)
{
	struct upload_status *status = &upload->status;
	bool retry = rc == ERR_RETRY;

	if (rc == ERR_ABANDONED)
		return; /* store_cancel: upload_stop follows */
	if (status->error.code != rc || strcmp(status->error.message, error->message) != 0)
		log_warn("%s; %s", error->message, retry ? "trying again" : "trying again each minute");
	status->failures++;
	status->trouble = retry ? UPLOAD_OFFLINE : UPLOAD_REFUSED;
	status->error = *error;
	status->error.code = rc;
	status->error_ns = clock_wall_ns();
	upload->not_before = clock_mono_ns() + (retry ? jitter(status->failures) : REFUSED_NS);
}

static bool is_damage(const struct spool_object *object, int rc) { return object && rc == ERR_CORRUPT; }

/* Another writer's record stands where ours should: the end, or for a take-over the signal to replay. */
static void outrun(struct upload *upload, const struct error *error)
{
	bool fenced = !upload->taking_over;

	upload->status.error = *error;
	upload->status.error_ns = clock_wall_ns();
	if (fenced) {
		log_error("%s", error->message);
		upload->status.fenced = true;
		pthread_mutex_unlock(&upload->lock);
		commit_fenced(upload);
		pthread_mutex_lock(&upload->lock);
	} else {
		upload->status.lost = true;
	}
}

static void settle(struct upload *upload, const struct spool_object *object, int rc, const struct error *error)
{
	if (!rc)
		succeeded(upload);
	else if (rc == ERR_FENCED)
		outrun(upload, error);
	else
		failed(upload, rc, error);
	if (is_damage(object, rc))
		upload->status.damaged = true;
}

/* ---------------------------------------------------------------- threads */

/* Lock held on entry and exit of these. */
static void begin(struct upload *upload, struct spool_object *object)
{
	upload->in_flight++;
	if (object) {
		object->in_flight = true;
		object->references++;
	}
	pthread_mutex_unlock(&upload->lock);
}

static void end(struct upload *upload, struct spool_object *object)
{
	upload->in_flight--;
	if (object) {
		object->in_flight = false;
		upload_unref(object);
	}
	if (upload->in_flight == 0)
		pthread_cond_broadcast(&upload->idle);
	pthread_mutex_unlock(&upload->lock);
	upload->changed(upload->context);
	pthread_mutex_lock(&upload->lock);
}

static void upload_pack(struct upload *upload, struct spool_object *pack)
{
	struct error error = {0};
	int rc;

	begin(upload, pack);
	rc = commit_pack(upload, pack, &error);
	pthread_mutex_lock(&upload->lock);
	if (!rc) {
		upload_pack_done(upload, pack);
		upload_queue_remove(&upload->packs, pack);
	}
	if (!pack->dropped)
		settle(upload, pack, rc, &error);
	end(upload, pack);
}

static void *worker_run(void *context)
{
	struct upload *upload = context;

	pthread_mutex_lock(&upload->lock);
	while (!upload->stopping) {
		struct spool_object *pack = next_pack(upload);
		if (!pack || stands_still(upload) || upload->not_before > clock_mono_ns())
			wait_work(upload, pack);
		else
			upload_pack(upload, pack);
	}
	pthread_mutex_unlock(&upload->lock);
	return NULL;
}

static void contact(struct upload *upload)
{
	struct error error = {0};
	int rc;

	begin(upload, NULL);
	rc = commit_contact(upload, &error);
	pthread_mutex_lock(&upload->lock);
	if (!rc) {
		upload->status.contact = true;
		upload->contact_until = clock_mono_ns() + CONTACT_NS;
	}
	settle(upload, NULL, rc, &error);
	end(upload, NULL);
}

static void confirmed(struct upload *upload, struct spool_object *record)
{
	struct upload_status *status = &upload->status;

	status->confirmed = record->row.seq;
	memcpy(status->confirmed_hash, record->row.hash, sizeof(status->confirmed_hash));
	if (!record->incomplete)
		status->confirmed_cut_ns = record->cut_ns;
	if (record->take_over)
		upload->taking_over = false;
	status->files -= record->files;
	upload->contact_until = clock_mono_ns() + CONTACT_NS;
	record->row.state = SPOOL_DONE;
	spool_count_done(upload->spool, (uint64_t)record->row.size);
	upload_queue_remove(&upload->records, record);
}

static void upload_record(struct upload *upload, struct spool_object *record)
{
	struct error error = {0}, ignored = {0};
	int rc;

	begin(upload, record);
	rc = commit_record(upload, record, &error);
	pthread_mutex_lock(&upload->lock);
	if (!rc)
		confirmed(upload, record);
	settle(upload, record, rc, &error);
	if (!rc) {
		pthread_mutex_unlock(&upload->lock);
		if (spool_evict(upload->spool, &ignored))
			log_warn("%s; the spool is tidied later", ignored.message);
		pthread_mutex_lock(&upload->lock);
	}
	end(upload, record);
}

static void *log_run(void *context)
{
	struct upload *upload = context;

	pthread_mutex_lock(&upload->lock);
	while (!upload->stopping) {
		bool first = contact_is_due(upload);
		struct spool_object *record = first ? NULL : next_record(upload);
		if ((!first && !record) || stands_still(upload) || upload->not_before > clock_mono_ns())
			wait_work(upload, first || record);
		else if (first)
			contact(upload);
		else
			upload_record(upload, record);
	}
	pthread_mutex_unlock(&upload->lock);
	return NULL;
}

/* ---------------------------------------------------------------- life */

static int start_threads(struct upload *upload, struct error *error)
{
	int wanted = volume_config(upload->volume)->uploads + 1;
	int failure = 0;

	if (wanted > UPLOAD_THREADS_MAX + 1)
		wanted = UPLOAD_THREADS_MAX + 1;
	while (upload->thread_count < wanted && !failure) {
		failure = pthread_create(&upload->threads[upload->thread_count], NULL, upload->thread_count ? worker_run : log_run,
					 upload);
		if (!failure)
			upload->thread_count++;
	}
	/* The log thread and one worker are enough to get on. */
	return failure && upload->thread_count < 2 ? error_errno(error, failure, "starting the upload threads") : 0;
}

int upload_start(struct volume *volume, struct store *store, struct spool *spool, void (*changed)(void *), void *context,
		 struct upload **out, struct error *error)
{
	struct upload *upload = calloc(1, sizeof(*upload));
	int rc;

	*out = NULL;
	if (!upload)
		return error_errno(error, ENOMEM, "upload");
	*upload = (struct upload){.volume = volume, .store = store, .spool = spool, .changed = changed, .context = context,
				  .paused = true};
	pthread_mutex_init(&upload->lock, NULL);
	clock_cond_init(&upload->work);
	clock_cond_init(&upload->moved);
	pthread_cond_init(&upload->idle, NULL);
	rc = start_threads(upload, error);
	if (rc)
		upload_stop(upload);
	else
		*out = upload;
	return rc;
}

void upload_stop(struct upload *upload)
{
	if (!upload)
		return;
	pthread_mutex_lock(&upload->lock);
	upload->stopping = true;
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
	for (int i = 0; i < upload->thread_count; i++)
		pthread_join(upload->threads[i], NULL);
	upload_queue_clear(upload, &upload->packs);
	upload_queue_clear(upload, &upload->records);
	pthread_cond_destroy(&upload->idle);
	pthread_cond_destroy(&upload->moved);
	pthread_cond_destroy(&upload->work);
	pthread_mutex_destroy(&upload->lock);
	free(upload);
}

void upload_pause(struct upload *upload)
{
	pthread_mutex_lock(&upload->lock);
	upload->paused = true;
	while (upload->in_flight > 0)
		pthread_cond_wait(&upload->idle, &upload->lock);
	upload->status.lost = upload->status.damaged = false;
	pthread_mutex_unlock(&upload->lock);
}

void upload_resume(struct upload *upload, bool contact_made, bool taking_over)
{
	pthread_mutex_lock(&upload->lock);
	upload->paused = false;
	upload->taking_over = taking_over;
	if (contact_made) {
		upload->status.contact = true;
		upload->contact_until = clock_mono_ns() + CONTACT_NS;
		upload->status.fenced = false;
		succeeded(upload);
	}
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
}

void upload_fence(struct upload *upload, const struct error *error)
{
	pthread_mutex_lock(&upload->lock);
	upload->status.fenced = true;
	upload->status.error = *error;
	upload->status.error_ns = clock_wall_ns();
	pthread_mutex_unlock(&upload->lock);
	log_error("%s", error->message);
}

void upload_hold(struct upload *upload, bool held)
{
	pthread_mutex_lock(&upload->lock);
	upload->held = held;
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
}

void upload_kick(struct upload *upload)
{
	pthread_mutex_lock(&upload->lock);
	upload->not_before = 0;
	pthread_cond_broadcast(&upload->work);
	pthread_mutex_unlock(&upload->lock);
}

void upload_await(struct upload *upload, uint64_t seen, int64_t timeout_ns)
{
	struct timespec deadline = clock_deadline(timeout_ns);

	pthread_mutex_lock(&upload->lock);
	if (upload->status.successes == seen)
		pthread_cond_timedwait(&upload->moved, &upload->lock, &deadline);
	pthread_mutex_unlock(&upload->lock);
}

void upload_get_status(struct upload *upload, struct upload_status *out)
{
	pthread_mutex_lock(&upload->lock);
	*out = upload->status;
	out->oldest_cut_ns = upload->records.first ? upload->records.first->cut_ns : 0;
	pthread_mutex_unlock(&upload->lock);
}
