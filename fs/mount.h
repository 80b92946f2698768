/* mount: the daemon's life.
 *
 *   parent                                   daemon
 *   fork, wait for a word on the pipe        setsid, log to syslog (before any thread or database connection exists)
 *                                            volume_open, volume_open_backing (before the mount covers it), engine open and start, control socket
 *                                            mount; word on the pipe; serve
 *   statfs on the mountpoint: it answers
 *   exit 0                                   ... until the mount goes away (umount(8), `yester umount`, a signal)
 *                                            engine stop (last cut), close all; the volume is marked clean if nothing is open (I10)
 *
 * SIGTERM and SIGINT: upload what is left for a while, then unmount, by force if it is in use. A second one: don't wait. */
#ifndef YESTER_MOUNT_H
#define YESTER_MOUNT_H

#include "engine.h"
#include "mount_options.h"

struct mount_request {
	const struct volume_config *config;
	const char *mountpoint; /* absolute; config->directory: in place */
	const struct mount_options *options;
	const struct engine_ops *ops;
	bool foreground;
};

/* Returns in the parent when the mount answers; in the foreground when it is gone: ERR_TIMEOUT if something is not in the remote yet. */
int mount_run(const struct mount_request *request, struct error *error);

#endif
