/* control_client: asks the daemon of a mounted volume. The protocol stands in control.h. */
#ifndef YESTER_CONTROL_CLIENT_H
#define YESTER_CONTROL_CLIENT_H

#include "buf.h"
#include "config.h"
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

/* A line of progress; control.h says what it holds. */
typedef void control_progress_fn(void *context, const char *text);

/* One request, with one connection. `timeout_ms` is the argument of sync and umount (-1: for ever), ignored by the others. progress may be NULL.
 * *answer (may be NULL) is cleared and receives the JSON of `ok`, with a NUL behind it. Returns 0, the daemon's error, or of our own: ERR_ABSENT (no daemon runs for this
 * volume), ERR_DENIED, ERR_ABANDONED (it ended meanwhile), ERR_FAILED (it does not speak our protocol). Returns when the daemon has closed the connection: after `umount`, when it is gone. */
int control_call(const struct volume_config *config, const char *verb, int64_t timeout_ms,
		 control_progress_fn *progress, void *context, struct buf *answer, struct error *error);

/* A daemon of this volume listens, whatever its state. */
bool control_listens(const struct volume_config *config);

#endif
