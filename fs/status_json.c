#include "status_json.h"

#include "bytes.h"
#include "clock.h"
#include "json.h"

#include <fuse_lowlevel.h>
#include <string.h>
#include <time.h>

/* Null when the time is 0. */
static void put_time(struct json *json, const char *key, int64_t ns)
{
	char text[32];
	struct tm tm;
	time_t seconds = ns_timespec(ns).tv_sec; /* rounded down: never later than true */
	if (!ns || !gmtime_r(&seconds, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		json_null(json, key);
	else
		json_string(json, key, text);
}

static void put_requests(struct json *json, const struct engine_status *status)
{
	json_begin_object(json, "requests");
	json_uint(json, "put", status->put);
	json_uint(json, "get", status->get);
	json_uint(json, "list", status->list);
	json_uint(json, "delete", status->delete_);
	json_uint(json, "head", status->head_requests);
	json_end_object(json);
}

static void put_features(struct json *json, const struct status_features *features)
{
	json_begin_object(json, "features");
	json_bool(json, "passthrough", features->passthrough);
	json_bool(json, "io_uring", features->io_uring);
	json_string(json, "libfuse", fuse_pkgversion());
	json_end_object(json);
}

int status_json(const struct volume_config *config, const struct engine_status *status,
		const struct status_features *features, int64_t taken_ns, const char *mountpoint, struct buf *out)
{
	struct json json = {.out = out};
	char id[2 * sizeof(status->volume_id) + 1], hash[2 * sizeof(status->head_hash) + 1];

	hex_encode(id, status->volume_id, sizeof(status->volume_id));
	hex_encode(hash, status->head_hash, sizeof(status->head_hash));
	json_begin_object(&json, NULL);
	json_int(&json, "schema", 1);
	json_string(&json, "volume", config->name);
	json_string(&json, "volume_id", id);
	json_string(&json, "directory", config->directory);
	json_string(&json, "mountpoint", mountpoint);
	json_string(&json, "remote", config->remote);
	json_bool(&json, "mounted", mountpoint != NULL);
	json_string(&json, "state", mountpoint ? engine_state_word(status->state) : "unmounted");
	json_int(&json, "version", status->confirmed);
	json_string(&json, "version_hash", status->confirmed ? hash : NULL);
	json_int(&json, "spooled_version", status->head);
	put_time(&json, "safe_until", status->safe_until_ns == INT64_MAX ? taken_ns : status->safe_until_ns);
	json_uint(&json, "pending_bytes", status->pending_bytes);
	json_uint(&json, "pending_files", status->pending_files);
	json_uint(&json, "suspect_files", status->suspect_files);
	json_int(&json, "oldest_pending_seconds", (int64_t)status->oldest_pending_seconds);
	json_uint(&json, "spool_bytes", status->spool_bytes);
	json_uint(&json, "uploaded_bytes", status->uploaded_bytes);
	put_requests(&json, status);
	put_features(&json, features);
	json_bool(&json, "scanning", status->scanning);
	json_bool(&json, "importing", status->importing);
	json_uint(&json, "scanned", status->scanned);
	json_uint(&json, "backlog_files", status->backlog_files);
	json_uint(&json, "backlog_bytes", status->backlog_bytes);
	json_string(&json, "last_error", status->last_error[0] ? status->last_error : NULL);
	put_time(&json, "last_error_time", status->last_error[0] ? status->last_error_ns : 0);
	json_end_object(&json);
	return json_finish(&json);
}
