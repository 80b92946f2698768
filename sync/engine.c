#include "engine_internal.h"

#include "fetch.h"
#include "io.h"
#include "log.h"
#include "recover.h"
#include "setup.h"
#include "store_late.h"
#include "sync.h"
#include "unlock.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STORE_TRIES 2 /* upload tries again by itself */

/* ---------------------------------------------------------------- open */

struct opening {
	struct engine *engine;
	struct volume_descriptor descriptor;
	struct volume_texts texts;
	bool known;     /* the database describes a volume */
	int64_t encrypted;
	uint8_t volume_id[CRYPT_ID_BYTES];
};

static int read_local(struct opening *opening, struct error *error)
{
	struct db *db = volume_db(opening->engine->volume);
	struct error why = {0};
	struct db_conn *conn;
	int rc = db_read_begin(db, &conn, error);

	if (rc)
		return rc;
	/* What only fails to be read may be whole, with a spool beside it. */
	rc = db_meta_read_blob(conn, "volume_id", opening->volume_id, CRYPT_ID_BYTES, &opening->known, &why);
	opening->encrypted = db_meta_int(conn, "encrypted", 1);
	if (rc)
		error_set(error, rc, 0, "%s/volume.db: can't be read: %s", volume_state_path(opening->engine->volume), why.message);
	else if (opening->known)
		rc = volume_texts_load(conn, &opening->texts, error);
	db_read_end(db, conn);
	return rc;
}

/* Faults 46: another volume, or one without encryption, under the name of ours. */
static int check_identity(const struct opening *opening, struct error *error)
{
	const struct volume_config *config = volume_config(opening->engine->volume);

	if (opening->descriptor.suite == SUITE_NONE && (opening->encrypted || config->encryption))
		return error_set(error, ERR_KEY, 0, "%s: the volume is encrypted, and what is here is not: refused", config->name);
	if (memcmp(opening->descriptor.volume_id, opening->volume_id, CRYPT_ID_BYTES) != 0)
		return error_set(error, ERR_CORRUPT, 0, "%s: the local copies are of another volume", config->name);
	return 0;
}

static int unlock_local(struct opening *opening, struct error *error)
{
	const struct volume_config *config = volume_config(opening->engine->volume);
	struct secret secret;
	int rc = secret_read(NULL, config, &secret, error);

	if (rc)
		return rc;
	rc = volume_texts_unlock(&opening->texts, &secret, config->name, &opening->descriptor, &opening->engine->master, error);
	secret_wipe(&secret);
	return rc ? rc : check_identity(opening, error);
}

/* The local database is a cache (faults 20, 21): a new, empty one is filled from the remote, and the mount goes on as a take-over of our own history, if its head is ours (pipeline_check). */
static int mark_rebuilt(struct engine *engine, struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(volume_db(engine->volume), true, &conn, error);

	if (rc)
		return rc;
	rc = db_meta_set_int(conn, "rebuilt", 1, error);
	if (!rc)
		return db_commit(volume_db(engine->volume), error);
	db_rollback(volume_db(engine->volume));
	return rc;
}

static int rebuild(struct opening *opening, struct error *error)
{
	struct engine *engine = opening->engine;
	const struct volume_config *config = volume_config(engine->volume);
	struct recover_head head;
	struct secret secret;
	int rc = secret_read(NULL, config, &secret, error);

	if (rc)
		return rc;
	log_warn("%s: the local database is new; filling it from %s", config->name, config->remote);
	rc = volume_texts_fetch(engine->store, &opening->texts, error);
	if (!rc)
		rc = volume_texts_unlock(&opening->texts, &secret, config->remote, &opening->descriptor, &engine->master, error);
	secret_wipe(&secret);
	if (!rc && opening->descriptor.suite == SUITE_NONE && config->encryption)
		rc = error_set(error, ERR_KEY, 0, "%s: holds a volume without encryption, and the config wants one: refused",
			       config->remote);
	if (!rc) /* first: what a kill interrupts, the next mount goes on with */
		rc = mark_rebuilt(engine, error);
	if (!rc)
		rc = setup_describe(volume_db(engine->volume), &opening->descriptor, &opening->texts, error);
	if (!rc)
		rc = recover_catalogue(engine->store, engine->master, volume_db(engine->volume), volume_state_path(engine->volume),
				       NULL, NULL, &head, error);
	return rc;
}

static int make_chunker(struct opening *opening, struct error *error)
{
	uint8_t key[CRYPT_KEY_BYTES];

	master_derive(opening->engine->master, "yester gear", key);
	opening->engine->chunker = chunker_new(key, opening->descriptor.chunk_min, opening->descriptor.chunk_average,
					       opening->descriptor.chunk_max);
	crypt_wipe(key, sizeof(key));
	return opening->engine->chunker ? 0 : error_errno(error, ENOMEM, "engine");
}

static int open_all(struct opening *opening, struct error *error)
{
	struct engine *engine = opening->engine;
	int rc = store_late_open(volume_config(engine->volume), STORE_TRIES, &engine->store, error);

	if (!rc)
		rc = read_local(opening, error);
	if (!rc)
		rc = opening->known ? unlock_local(opening, error) : rebuild(opening, error);
	engine->descriptor = opening->descriptor;
	if (!rc)
		rc = make_chunker(opening, error);
	if (!rc && fetch_new(engine->master, engine->store, volume_spool_fd(engine->volume), &engine->remote))
		rc = error_errno(error, ENOMEM, "engine");
	if (!rc)
		volume_set_remote(engine->volume, engine->remote);
	return rc;
}

static void engine_close(struct engine *engine)
{
	if (!engine)
		return;
	pipeline_free(engine->pipeline);
	if (engine->store) /* nobody waits any more for what is being read ahead */
		store_cancel(engine->store);
	if (engine->remote)
		volume_set_remote(engine->volume, NULL);
	fetch_free(engine->remote);
	chunker_free(engine->chunker);
	master_free(engine->master);
	store_close(engine->store);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

static int engine_open(struct volume *volume, const struct engine_options *options, struct engine **out, struct error *error)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	struct opening opening = {.engine = engine};
	int rc;

	*out = NULL;
	if (!engine)
		return error_errno(error, ENOMEM, "engine");
	pthread_mutex_init(&engine->lock, NULL);
	engine->volume = volume;
	if (options)
		engine->options = *options;
	rc = open_all(&opening, error);
	volume_texts_free(&opening.texts);
	if (rc) {
		engine_close(engine);
		return rc;
	}
	engine_status_at_rest(engine, &engine->last);
	*out = engine;
	return 0;
}

/* ---------------------------------------------------------------- start, stop */

static void stop_parts(struct engine *engine)
{
	struct error ignored = {0};

	if (engine->pipeline) {
		pipeline_finish(engine->pipeline);
		pipeline_dismiss(engine->pipeline);
		if (pipeline_calm(engine->pipeline, &ignored))
			log_warn("%s; the next mount reads a few files again", ignored.message);
	}
	store_cancel(engine->store);
	checkpointer_stop(engine->checkpointer);
	upload_stop(engine->upload);
	spool_free(engine->spool);
	engine->checkpointer = NULL;
	engine->upload = NULL;
	engine->spool = NULL;
}

static int start_parts(struct engine *engine, struct error *error)
{
	struct pipeline_parts parts = {.volume = engine->volume, .store = engine->store, .master = engine->master,
				       .chunker = engine->chunker, .take_over = engine->options.take_over,
				       .accept_loss = engine->options.accept_loss};
	int rc = spool_open(engine->volume, &engine->spool, error);

	if (!rc)
		rc = pipeline_new(&engine->pipeline, error);
	if (!rc)
		rc = volume_start_journal(engine->volume, pipeline_wake, engine->pipeline, &parts.clean, &parts.same_boot, error);
	if (!rc)
		rc = upload_start(engine->volume, engine->store, engine->spool, pipeline_wake, engine->pipeline, &engine->upload, error);
	if (!rc)
		rc = checkpointer_start(engine->volume, engine->store, engine->master, &engine->checkpointer, error);
	parts.spool = engine->spool;
	parts.upload = engine->upload;
	parts.checkpointer = engine->checkpointer;
	return rc ? rc : pipeline_start(engine->pipeline, &parts, error);
}

static int engine_start(struct engine *engine, struct error *error)
{
	int rc = descriptor_writable(&engine->descriptor, error);

	if (!rc)
		rc = start_parts(engine, error);
	if (rc) {
		stop_parts(engine);
		return rc;
	}
	pthread_mutex_lock(&engine->lock);
	engine->running = true;
	pthread_mutex_unlock(&engine->lock);
	return 0;
}

static int engine_sync(struct engine *engine, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error)
{
	return pipeline_sync(engine->pipeline, rescan, timeout_ns, version, error);
}

static int engine_stop(struct engine *engine, int64_t drain_ns, struct error *error)
{
	struct engine_status status;
	int rc;

	if (!engine->running)
		return 0;
	pipeline_finish(engine->pipeline);
	rc = pipeline_drain(engine->pipeline, drain_ns, error);
	if (!rc && drain_ns > 0)
		checkpointer_wait(engine->checkpointer, drain_ns); /* else the next session makes it anew */
	engine_status(engine, &status);
	pthread_mutex_lock(&engine->lock);
	engine->last = status;
	engine->running = false;
	pthread_mutex_unlock(&engine->lock);
	stop_parts(engine);
	return rc;
}

const struct engine_ops *sync_engine(void)
{
	static const struct engine_ops ops = {
		.init = sync_init, .clone = sync_clone, .check = sync_check, .open = engine_open, .start = engine_start,
		.sync = engine_sync, .status = engine_status, .stop = engine_stop, .close = engine_close,
	};

	return &ops;
}
