#include "clock.h"
#include "cmd.h"
#include "config.h"
#include "control_client.h"
#include "mount_point.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof(*(list)))
#define DEFAULT_TIMEOUT_NS (60 * NS_PER_S)

struct showing {
	struct progress *progress;
	uint64_t most; /* bytes that were pending at the most */
	bool started;
};

/* "+ PENDING_BYTES PENDING_FILES UPLOADED_BYTES" without its plus. */
static void show(void *context, const char *text)
{
	struct showing *showing = context;
	uint64_t pending, files, uploaded;

	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &pending, &files, &uploaded) != 3)
		return;
	if (!showing->started || pending > showing->most)
		showing->most = pending;
	showing->started = true;
	progress_report(showing->progress, "uploading", showing->most - pending, showing->most, "bytes");
}

/* The daemon is gone: nothing can be drained, only the mount has to go. What it had queued is on disk, and is found at the next mount. */
static int unmount_dead(const struct volume_config *config, const char *path, struct error *error)
{
	if (!mount_point_is_yester(path))
		return error_set(error, ERR_ABSENT, 0, "%s: is not mounted", config->directory);
	return mount_point_unmount(path, true, error);
}

static int unmount(const struct volume_config *config, const char *operand, int64_t timeout_ns, struct error *error)
{
	struct showing showing = {.progress = progress_new(stderr)};
	int64_t timeout_ms = timeout_ns < 0 ? -1 : timeout_ns / 1000000;

	int rc = control_call(config, "umount", timeout_ms, show, &showing, NULL, error);
	progress_free(showing.progress);
	if (rc == ERR_ABSENT) {
		rc = unmount_dead(config, config->directory, error);
		if (rc == ERR_ABSENT && strcmp(operand, config->directory) != 0)
			rc = unmount_dead(config, operand, error);
	}
	return rc;
}

/* DIR is the volume's directory, or where it is mounted: then the mount's source says which volume it is. */
static int find_mounted(const char *operand, struct volume_config **out, struct error *error)
{
	struct mount_entry entry;
	char *path = realpath(operand, NULL), *rest = NULL;
	const char *directory = operand;
	int rc;

	if (path && mount_point_find(path, &entry) && strcmp(entry.type, "fuse.yester") == 0)
		directory = entry.source;
	rc = config_find(directory, out, &rest, error);
	if (rc == 0 && rest[0]) {
		rc = error_set(error, ERR_USAGE, 0, "%s: is inside the volume %s; unmount %s", operand, (*out)->name,
			       (*out)->directory);
		config_free(*out);
		*out = NULL;
	}
	free(rest);
	free(path);
	return rc;
}

int cmd_umount(int argc, char **argv, const struct engine_ops *engine)
{
	const char *timeout = NULL, *operand;
	const struct option_spec specs[] = {{"timeout", 0, NULL, &timeout}};
	struct volume_config *config = NULL;
	struct error error = {.code = 0};
	int64_t timeout_ns = DEFAULT_TIMEOUT_NS;

	(void)engine;
	int rc = options_parse(argc, argv, specs, COUNT(specs), &operand, 1, 1, "DIR", &error);
	if (rc == 0 && timeout)
		rc = options_duration("--timeout", timeout, &timeout_ns, &error);
	if (rc == 0)
		rc = find_mounted(operand, &config, &error);
	if (rc == 0)
		rc = unmount(config, operand, timeout_ns, &error);
	config_free(config);
	return rc == 0 ? 0 : cmd_fail(&error);
}
