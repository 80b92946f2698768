#include "find_volume.h"

#include "mount_point.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, ENOMEM, "out of memory");
}

/* The yester mount that holds the absolute path: its volume's config and the rest of the path. ERR_ABSENT: none does. */
static int find_by_mount(const char *path, struct volume_config **config, char **rest, struct error *error)
{
	struct mount_entry entry;
	char *at = strdup(path);
	int rc = ERR_ABSENT;

	if (!at)
		return no_memory(error);
	for (;;) {
		char *slash;

		if (mount_point_find(at[0] ? at : "/", &entry) && strcmp(entry.type, "fuse.yester") == 0) {
			const char *tail = path + strlen(at);

			rc = config_find(entry.source, config, NULL, error);
			*rest = rc == 0 ? strdup(tail + (*tail == '/')) : NULL;
			if (rc == 0 && !*rest) {
				config_free(*config);
				*config = NULL;
				rc = no_memory(error);
			}
			break;
		}
		slash = strrchr(at, '/');
		if (!slash)
			break;
		*slash = '\0';
	}
	free(at);
	return rc;
}

int find_volume(const char *path, struct volume_config **config, char **rest, struct error *error)
{
	char *real = realpath(path, NULL), *tail = NULL;
	int rc = real ? find_by_mount(real, config, &tail, error) : ERR_ABSENT;

	free(real);
	if (rc == ERR_ABSENT)
		return config_find(path, config, rest, error);
	if (rc == 0 && rest)
		*rest = tail;
	else
		free(tail);
	return rc;
}
