/* status_json: what `status` says, as JSON (schema 1, DESIGN section 7); the same for a mounted and an unmounted volume. */
#ifndef YESTER_STATUS_JSON_H
#define YESTER_STATUS_JSON_H

#include "buf.h"
#include "engine.h"

/* Of the ways to be faster: which are in force. */
struct status_features { bool passthrough, io_uring; };

/* Appends one object. `status` was taken no earlier than `taken_ns` (wall clock), so that "everything is safe" never says more than was true (I24).
 * mountpoint NULL: not mounted, the state is then `unmounted`. 0 or ERR_NOMEM. */
int status_json(const struct volume_config *config, const struct engine_status *status,
		const struct status_features *features, int64_t taken_ns, const char *mountpoint, struct buf *out);

#endif
