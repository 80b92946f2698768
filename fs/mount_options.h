/* mount_options: what `-o` and fstab say. */
#ifndef YESTER_MOUNT_OPTIONS_H
#define YESTER_MOUNT_OPTIONS_H

#include "buf.h"
#include "err.h"

#include <stdbool.h>

struct mount_options {
	bool take_over;        /* -o take_over */
	bool adopt;            /* -o adopt: the directory was moved or made anew, and that is as it should be */
	bool accept_loss;      /* -o accept_loss: most of the tree is gone, and that is as it should be */
	bool exclusive;        /* -o exclusive: nobody changes the directory but through the mount, though it is mounted elsewhere */
	bool snapdir_visible;  /* -o snapdir=visible */
	bool no_passthrough;   /* -o no_passthrough: all I/O through us */
	bool allow_other;      /* also without it when root */
	bool read_only;
	bool suid, nosuid, dev, nodev, exec, noexec; /* said so; what is not said is as on the filesystem below */
	struct buf kernel;     /* further ones for mount(2), comma-separated, each preceded by a comma; buf_free */
};

/* Adds a comma-separated list. ERR_USAGE names what is unknown. */
int mount_options_parse(const char *list, struct mount_options *out, struct error *error);

#endif
