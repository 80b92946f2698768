/* verbs: the parts of struct engine_ops (engine.h) that need no mounted volume. sync_engine() puts the table together. Contracts: engine.h. */
#ifndef YESTER_VERBS_H
#define YESTER_VERBS_H

#include "engine.h"

/* init.c. Order: key file, key slots, state directory, config, and last the remote's `volume`: a half-made volume is no volume. */
int sync_init(struct volume_config *config, const struct unlock *unlock, struct init_result *out, struct error *error);
/* clone.c. at_s < 0: the newest version. */
int sync_clone(struct volume_config *config, const struct unlock *unlock, int64_t at_s, progress_fn *progress,
	       void *context, struct clone_result *out, struct error *error);
/* check.c. config->directory NULL: a bare remote, without anything local to compare with. */
int sync_check(const struct volume_config *config, const struct unlock *unlock, int percent, progress_fn *progress,
	       void (*report)(void *context, const char *line), void *context, struct check_result *out,
	       struct error *error);

#endif
