/* mount_serve: what the daemon does between its start and its end (mount.h). */
#ifndef YESTER_MOUNT_SERVE_H
#define YESTER_MOUNT_SERVE_H

#include "mount.h"

/* Opens, mounts, calls `tell` with a code of 0, serves until the mount is gone, closes. 0; ERR_TIMEOUT: something is left for next time (already logged); any
 * other error: nothing was mounted, or it broke. `tell` is called once at most, and not when mounting failed. */
int mount_serve(const struct mount_request *request, void (*tell)(void *context, const struct error *error),
		void *context, struct error *error);

#endif
