/* engine_internal: engine.c and status.c. */
#ifndef YESTER_ENGINE_INTERNAL_H
#define YESTER_ENGINE_INTERNAL_H

#include "checkpointer.h"
#include "chunker.h"
#include "crypt.h"
#include "engine.h"
#include "key.h"
#include "pipeline.h"
#include "spool.h"
#include "store.h"
#include "upload.h"

#include <pthread.h>

struct engine {
	struct volume *volume; /* the caller's */
	struct engine_options options;
	struct store *store;
	struct master *master;
	struct remote *remote;
	struct chunker *chunker;
	struct volume_descriptor descriptor;
	/* From engine_start to engine_stop. */
	struct spool *spool;
	struct upload *upload;
	struct checkpointer *checkpointer;
	struct pipeline *pipeline; /* stays until engine_close: the journal knows it */
	pthread_mutex_t lock;
	bool running;              /* lock: the parts are there */
	struct engine_status last; /* lock: when they are not */
};

void engine_status(struct engine *engine, struct engine_status *out);
/* Of an engine that is not started: from the database alone. */
void engine_status_at_rest(struct engine *engine, struct engine_status *out);

#endif
