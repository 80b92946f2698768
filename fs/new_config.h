/* new_config: the config of a volume that init or clone is about to make, from what the person wrote; and the checks of the place that need no network. */
#ifndef YESTER_NEW_CONFIG_H
#define YESTER_NEW_CONFIG_H

#include "config.h"

struct new_config {
	const char *directory, *remote;
	const char *name;          /* NULL: from the directory's name, made unique */
	bool must_exist;           /* init; else the directory may be absent */
};

/* A config with name, directory, remote, and those S3 settings of the environment that a mount at boot would otherwise not know (endpoint, region, profile: never credentials).
 * Refuses a directory that is, or lies in, or holds another volume, a mounted yester, state or config of yester, the remote itself, or a
 * real `.snapshots`. ERR_USAGE, ERR_ABSENT, ERR_EXISTS, ... */
int new_config(const struct new_config *wanted, struct volume_config **out, struct error *error);

/* "docs" from "/data/My Docs": fits out (65 bytes), valid, never empty. For tests. */
#define NEW_CONFIG_NAME_BYTES 65
void new_config_name(char out[NEW_CONFIG_NAME_BYTES], const char *directory);

/* The S3 settings alone: for a remote that is looked at without being a volume of this machine. ERR_NOMEM. */
int new_config_environment(struct volume_config *config, struct error *error);

/* A copy of the remote without slashes at its end, checked. ERR_USAGE. */
int new_config_remote(const char *remote, char **out, struct error *error);

#endif
