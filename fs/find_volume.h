/* find_volume: from any path of a person's to the volume that it lies in: also through a mount on another place than the directory. */
#ifndef YESTER_FIND_VOLUME_H
#define YESTER_FIND_VOLUME_H

#include "config.h"
#include "err.h"

/* As config_find; *rest (may be NULL) is the path below the directory, fresh. */
int find_volume(const char *path, struct volume_config **config, char **rest, struct error *error);

#endif
