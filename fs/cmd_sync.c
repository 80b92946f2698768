/* yester sync DIR */
#include "clock.h"
#include "cmd.h"
#include "find_volume.h"
#include "holder.h"
#include "json_field.h"
#include "mount_point.h"
#include "options.h"
#include "progress.h"
#include "unmounted.h"

#include <inttypes.h>
#include <stdio.h>

/* From the daemon's lines of progress to the bar. */
struct watching { struct progress *progress; uint64_t most; };

static void watch(void *context, const char *text)
{
	struct watching *watching = context;
	uint64_t pending_bytes, pending_files, uploaded_bytes;

	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &pending_bytes, &pending_files, &uploaded_bytes) != 3)
		return;
	if (pending_bytes > watching->most)
		watching->most = pending_bytes;
	if (watching->most > 0)
		progress_report(watching->progress, "uploading", watching->most - pending_bytes, watching->most, "bytes");
}

/* ERR_ABSENT: no daemon has it. */
static int sync_mounted(const struct volume_config *config, bool rescan, int64_t timeout_ns, int64_t *version, struct error *error)
{
	struct watching watching = { .progress = progress_new(stderr) };
	struct buf answer = { 0 };
	int64_t timeout_ms = timeout_ns < 0 ? -1 : timeout_ns / 1000000;
	int rc = holder_call(config, rescan ? "rescan" : "sync", timeout_ms, watch, &watching, &answer, error);

	progress_free(watching.progress);
	if (rc == 0)
		json_field_int((const char *)answer.data, "version", version);
	buf_free(&answer);
	return rc;
}

static int sync_unmounted(const struct volume_config *config, const struct engine_ops *engine, int64_t timeout_ns, int64_t *version,
			  struct error *error)
{
	struct unmounted *unmounted;
	struct error later = { 0 };
	int rc = mount_point_check_plain(config, error);

	if (rc == 0)
		rc = unmounted_open(config, engine, &unmounted, error);
	if (rc < 0)
		return rc;
	rc = unmounted_sync(unmounted, timeout_ns, version, error);
	if (unmounted_close(unmounted, &later) < 0 && rc == 0) {
		*error = later;
		rc = later.code;
	}
	return rc;
}

int cmd_sync(int argc, char **argv, const struct engine_ops *engine)
{
	const char *operands[1], *timeout = NULL;
	bool rescan = false;
	const struct option_spec specs[] = { { "timeout", 0, NULL, &timeout }, { "rescan", 0, &rescan, NULL } };
	struct volume_config *config = NULL;
	struct error error = { 0 };
	int64_t timeout_ns = -1, version = 0;
	int rc = options_parse(argc, argv, specs, 2, operands, 1, 1, "DIR", &error);

	if (rc == 0 && timeout)
		rc = options_duration("--timeout", timeout, &timeout_ns, &error);
	if (rc == 0)
		rc = find_volume(operands[0], &config, NULL, &error);
	if (rc == 0) {
		rc = sync_mounted(config, rescan, timeout_ns, &version, &error);
		if (rc == ERR_ABSENT)
			rc = sync_unmounted(config, engine, timeout_ns, &version, &error);
	}
	if (rc == 0 && timeout_ns == 0)
		printf("%s: version %" PRId64 " is made, and on its way\n", config->directory, version);
	else if (rc == 0)
		printf("%s: version %" PRId64 " is in %s\n", config->directory, version, config->remote);
	config_free(config);
	return rc == 0 ? 0 : cmd_fail(&error);
}
