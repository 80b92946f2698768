/* unmounted: the engine in this very process, for verbs on a volume that no daemon has. One thread. */
#ifndef YESTER_UNMOUNTED_H
#define YESTER_UNMOUNTED_H

#include "engine.h"

struct unmounted;

/* Takes the lock (ERR_BUSY), opens volume and backing tree, starts the engine: it looks for what changed. */
int unmounted_open(const struct volume_config *config, const struct engine_ops *ops, struct unmounted **out, struct error *error);
/* Only for reading versions: no lock, no backing tree, nothing runs. Also beside a daemon. */
int unmounted_open_history(const struct volume_config *config, const struct engine_ops *ops, struct unmounted **out,
			   struct error *error);
struct volume *unmounted_volume(const struct unmounted *unmounted);
struct engine *unmounted_engine(const struct unmounted *unmounted);
/* Engine's sync, with what it does shown on stderr if it takes long. */
int unmounted_sync(struct unmounted *unmounted, int64_t timeout_ns, int64_t *version, struct error *error);
/* Stops and closes all; what is not uploaded waits for the next time. 0, or an error worth telling. NULL is fine. */
int unmounted_close(struct unmounted *unmounted, struct error *error);

#endif
