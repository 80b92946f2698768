#include "cmd.h"
#include "config.h"
#include "mount.h"
#include "mount_point.h"
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* The volume whose directory is DIR itself. */
static int find_volume(const char *directory, struct volume_config **out, struct error *error)
{
	char *rest = NULL;
	int rc = config_find(directory, out, &rest, error);
	if (rc == 0 && rest[0]) {
		rc = error_set(error, ERR_USAGE, 0, "%s: is inside the volume %s; mount %s", directory, (*out)->name,
			       (*out)->directory);
		config_free(*out);
		*out = NULL;
	}
	free(rest);
	return rc;
}

static int mount_volume(const struct volume_config *config, const char *where, struct mount_request *request,
			struct error *error)
{
	char *path = NULL;
	int rc = 0;

	if (where) {
		path = realpath(where, NULL);
		if (!path && errno == ENOENT)
			return error_set(error, ERR_ABSENT, ENOENT, "%s: there is no such directory; make it, then mount again", where);
		if (!path)
			return error_errno(error, errno, "%s", where);
	}
	request->config = config;
	request->mountpoint = path ? path : config->directory;
	rc = mount_point_check(config, request->mountpoint, error);
	if (rc == 0)
		rc = mount_run(request, error);
	free(path);
	return rc;
}

int cmd_mount(int argc, char **argv, const struct engine_ops *engine)
{
	struct mount_options options = {0};
	struct mount_request request = {.options = &options, .ops = engine};
	const char *list = NULL, *operands[2];
	const struct option_spec specs[] = {
		{"foreground", 'f', &request.foreground, NULL},
		{"options", 'o', NULL, &list},
	};
	struct volume_config *config = NULL;
	struct error error = {.code = 0};

	int rc = options_parse(argc, argv, specs, COUNT(specs), operands, 1, 2, "DIR [MOUNTPOINT]", &error);
	if (rc == 0 && list)
		rc = mount_options_parse(list, &options, &error);
	if (rc == 0)
		rc = find_volume(operands[0], &config, &error);
	if (rc == 0)
		rc = mount_volume(config, operands[1], &request, &error);
	config_free(config);
	buf_free(&options.kernel);
	return rc == 0 ? 0 : cmd_fail(&error);
}
