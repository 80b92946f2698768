#include "unmounted.h"

#include "clock.h"
#include "history.h"
#include "log.h"
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define WATCH_NS (NS_PER_S / 5)

struct unmounted {
	const struct engine_ops *ops;
	struct volume *volume;
	struct engine *engine;
	bool started;
	/* The thread that shows progress. */
	struct progress *progress;
	pthread_t watcher;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool done; /* lock */
};

/* ---- life */

static int open_parts(struct unmounted *unmounted, const struct volume_config *config, bool history_only, struct error *error)
{
	struct engine_options options = { 0 };
	int rc = history_only ? volume_open_reader(config, &unmounted->volume, error) :
				volume_open(config, &unmounted->volume, error);

	if (history_only && (rc == ERR_ABSENT || rc == ERR_CORRUPT))
		return error_set(error, rc, 0, "%s; the next yester mount or yester sync fills a new one from %s", error->message, config->remote);
	if (rc == 0 && !history_only)
		rc = volume_open_backing(unmounted->volume, false, error);
	if (rc == 0)
		rc = unmounted->ops->open(unmounted->volume, &options, &unmounted->engine, error);
	if (rc == 0 && !history_only) {
		rc = unmounted->ops->start(unmounted->engine, error);
		unmounted->started = rc == 0;
	}
	return rc;
}

static int open_any(const struct volume_config *config, const struct engine_ops *ops, bool history_only, struct unmounted **out,
		    struct error *error)
{
	struct unmounted *unmounted = calloc(1, sizeof *unmounted);
	int rc;

	if (!unmounted)
		return error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", config->name);
	/* What the engine has to say is either an error of the verb, told once by it, or mended by trying again. */
	log_open("yester", LOG_LEVEL_NONE, false);
	unmounted->ops = ops;
	pthread_mutex_init(&unmounted->lock, NULL);
	clock_cond_init(&unmounted->wake);
	rc = open_parts(unmounted, config, history_only, error);
	if (rc == 0)
		*out = unmounted;
	else
		unmounted_close(unmounted, NULL);
	return rc;
}

int unmounted_open(const struct volume_config *config, const struct engine_ops *ops, struct unmounted **out, struct error *error)
{
	return open_any(config, ops, false, out, error);
}

int unmounted_open_history(const struct volume_config *config, const struct engine_ops *ops, struct unmounted **out,
			   struct error *error)
{
	return open_any(config, ops, true, out, error);
}

int unmounted_close(struct unmounted *unmounted, struct error *error)
{
	int rc = 0;

	if (!unmounted)
		return 0;
	history_stop();
	if (unmounted->started)
		rc = unmounted->ops->stop(unmounted->engine, 0, error);
	if (unmounted->engine)
		unmounted->ops->close(unmounted->engine);
	volume_close(unmounted->volume, unmounted->started && (rc == 0 || rc == ERR_TIMEOUT));
	pthread_cond_destroy(&unmounted->wake);
	pthread_mutex_destroy(&unmounted->lock);
	free(unmounted);
	return rc == ERR_TIMEOUT ? 0 : rc;
}

struct volume *unmounted_volume(const struct unmounted *unmounted)
{
	return unmounted->volume;
}

struct engine *unmounted_engine(const struct unmounted *unmounted)
{
	return unmounted->engine;
}

/* ---- sync */

static void *watch(void *context)
{
	struct unmounted *unmounted = context;
	uint64_t most = 0;

	pthread_mutex_lock(&unmounted->lock);
	while (!unmounted->done) {
		struct timespec until = clock_deadline(WATCH_NS);
		struct engine_status status;

		pthread_mutex_unlock(&unmounted->lock);
		unmounted->ops->status(unmounted->engine, &status);
		if (status.pending_bytes > most)
			most = status.pending_bytes;
		if (status.scanning)
			progress_report(unmounted->progress, "looking for changes", status.scanned, 0, "files");
		else if (most > 0)
			progress_report(unmounted->progress, "uploading", most - status.pending_bytes, most, "bytes");
		pthread_mutex_lock(&unmounted->lock);
		if (!unmounted->done)
			pthread_cond_timedwait(&unmounted->wake, &unmounted->lock, &until);
	}
	pthread_mutex_unlock(&unmounted->lock);
	return NULL;
}

int unmounted_sync(struct unmounted *unmounted, int64_t timeout_ns, int64_t *version, struct error *error)
{
	bool watching;
	int rc;

	unmounted->done = false;
	unmounted->progress = progress_new(stderr);
	watching = pthread_create(&unmounted->watcher, NULL, watch, unmounted) == 0;
	rc = unmounted->ops->sync(unmounted->engine, false, timeout_ns, version, error);
	if (watching) {
		pthread_mutex_lock(&unmounted->lock);
		unmounted->done = true;
		pthread_cond_signal(&unmounted->wake);
		pthread_mutex_unlock(&unmounted->lock);
		pthread_join(unmounted->watcher, NULL);
	}
	progress_free(unmounted->progress);
	unmounted->progress = NULL;
	return rc;
}
