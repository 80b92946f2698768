/* holder: the process that has a volume's lock. */
#ifndef YESTER_HOLDER_H
#define YESTER_HOLDER_H

#include "config.h"
#include "control_client.h"
#include "err.h"

/* The process that keeps the volume, 0: nobody does. Waits, up to a minute, for one that is ending: a killed one whose last threads still hold its files, or a daemon whose mount is gone (umount(8) does
 * not wait for it) while it makes its last version, which takes disk and no network. */
int holder_wait(const struct volume_config *config);

/* ERR_BUSY, with what to do about process `holder`. */
int holder_refuse(const struct volume_config *config, int holder, struct error *error);

/* control_call, for verbs that also work on an unmounted volume: a daemon that is ending is waited for, and there is none (ERR_ABSENT) then. */
int holder_call(const struct volume_config *config, const char *verb, int64_t timeout_ms, control_progress_fn *progress, void *context,
		struct buf *answer, struct error *error);

#endif
