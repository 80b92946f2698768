/* restore_place: where PATH is in its volume, and where it is to be written. Descriptors and strings belong to the struct. */
#ifndef YESTER_RESTORE_PLACE_H
#define YESTER_RESTORE_PLACE_H

#include "config.h"
#include "err.h"

#include <stdbool.h>

struct restore_place {
	struct volume_config *config;
	char *inside;    /* path in the volume, "" for its root */
	bool mounted;    /* a daemon has it */
	int dirfd;       /* the directory to write into */
	char *name;      /* and the name there */
	char *shown;     /* both as a path, for messages */
	bool exists;     /* that name is there now */
	bool whole;      /* the volume itself: dirfd is its directory, name is "" */
};

/* `to` NULL: the target is PATH itself, through the mount when the volume is mounted. Else DEST: must not be there, or is a directory to put it into. A
 * last link in PATH is not followed. ERR_ABSENT, ERR_EXISTS, ERR_USAGE, ... */
int restore_place_find(const char *path, const char *to, struct restore_place *out, struct error *error);
void restore_place_free(struct restore_place *place);

#endif
