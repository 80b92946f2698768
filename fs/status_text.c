#include "status_text.h"

#include "err.h"
#include "human.h"
#include "json_field.h"
#include "when.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct view {
	const char *json;
	int64_t now_s;
	bool color;
	struct buf *out;
	int rc;
	char state[32], directory[PATH_MAX];
};

#define SAY(view, ...) ((view)->rc = (view)->rc < 0 ? (view)->rc : buf_printf((view)->out, __VA_ARGS__))

static int64_t number(const struct view *view, const char *path)
{
	int64_t value;

	json_field_int(view->json, path, &value);
	return value < 0 ? 0 : value;
}

static bool is(const struct view *view, const char *state)
{
	return strcmp(view->state, state) == 0;
}

static const char *color_of(const struct view *view)
{
	if (is(view, "synced"))
		return "\033[32m";
	if (is(view, "fenced") || is(view, "degraded"))
		return "\033[31m";
	return "\033[33m";
}

static void say_head(struct view *view)
{
	char mountpoint[PATH_MAX];

	SAY(view, "%s", view->directory);
	if (json_field_text(view->json, "mountpoint", mountpoint, sizeof mountpoint) && strcmp(mountpoint, view->directory) != 0)
		SAY(view, " on %s", mountpoint);
	SAY(view, ": %s%s%s\n", view->color ? color_of(view) : "", view->state, view->color ? "\033[0m" : "");
}

static void say_safe(struct view *view)
{
	char text[64], at[HUMAN_BYTES], ago[HUMAN_BYTES];
	int64_t seconds;

	if (!json_field_text(view->json, "safe_until", text, sizeof text) ||
	    when_parse(text, view->now_s, &seconds) != WHEN_TIME) {
		/* After a clone or a take-over there are versions, of another writer. */
		SAY(view, "  safe       nothing yet: %s\n", is(view, "unmounted") ? "the first upload begins with a mount" :
		    number(view, "version") > 0 ? "no version of this machine is in the remote" : "the first upload is not complete");
		return;
	}
	human_time(at, seconds);
	human_duration(ago, (double)(view->now_s - seconds));
	SAY(view, "  safe       all changes up to %s", at);
	SAY(view, is(view, "synced") && view->now_s - seconds < 2 ? " (now)" : " (%s ago)", ago);
	SAY(view, ", version %lld\n", (long long)number(view, "version"));
}

static void say_pending(struct view *view)
{
	char files[HUMAN_BYTES], bytes[HUMAN_BYTES], oldest[HUMAN_BYTES];
	int64_t pending_files = number(view, "pending_files"), pending_bytes = number(view, "pending_bytes");

	if (json_field_true(view->json, "scanning")) {
		human_plural(files, (uint64_t)number(view, "scanned"), "file");
		SAY(view, "  scanning   %s looked at so far, for what changed behind the mount\n", files);
	}
	if (json_field_true(view->json, "importing")) {
		human_plural(files, (uint64_t)number(view, "backlog_files"), "file");
		human_size(bytes, (uint64_t)number(view, "backlog_bytes"));
		SAY(view, "  importing  %s, %s to go\n", files, bytes);
	}
	human_plural(files, (uint64_t)pending_files, "file");
	human_size(bytes, (uint64_t)pending_bytes);
	human_duration(oldest, (double)number(view, "oldest_pending_seconds"));
	if (pending_files == 0 && pending_bytes == 0)
		SAY(view, "  waiting    nothing%s\n", is(view, "unmounted") ? " that is known" : "");
	else if (pending_files == 0) /* what an earlier session sealed */
		SAY(view, "  waiting    %s to go up\n", bytes);
	else if (is(view, "unmounted") && pending_bytes == 0) /* changed whole: how much that is shows when they are read */
		SAY(view, "  waiting    %s\n", files);
	else if (is(view, "unmounted") && number(view, "oldest_pending_seconds") == 0) /* what was changed is in no version yet: nobody knows when */
		SAY(view, "  waiting    %s, %s\n", files, bytes);
	else
		SAY(view, "  waiting    %s, %s, the oldest since %s\n", files, bytes, oldest);
	if (number(view, "suspect_files") > 0) {
		human_plural(files, (uint64_t)number(view, "suspect_files"), "file");
		SAY(view, "  mapped     %s that a program may write to unseen: compared at each version\n", files);
	}
}

static void say_remote(struct view *view)
{
	char remote[1024], uploaded[HUMAN_BYTES], spool[HUMAN_BYTES];

	json_field_text(view->json, "remote", remote, sizeof remote);
	human_size(uploaded, (uint64_t)number(view, "uploaded_bytes"));
	human_size(spool, (uint64_t)number(view, "spool_bytes"));
	if (is(view, "unmounted"))
		SAY(view, "  remote     %s\n", remote);
	else
		SAY(view, "  remote     %s (%s sent since the mount)\n", remote, uploaded);
	if (number(view, "spool_bytes") > 0)
		SAY(view, "  spool      %s sealed on this disk\n", spool);
}

static void say_advice(struct view *view)
{
	char message[1024], *quoted = human_quoted(view->directory);
	const char *directory = quoted ? quoted : view->directory;

	if (json_field_text(view->json, "last_error", message, sizeof message) && message[0])
		SAY(view, "  last error %s\n", message);
	if (is(view, "offline"))
		SAY(view, "  The remote does not answer. Work goes on; what waits goes up when it does.\n");
	if (is(view, "fenced"))
		SAY(view, "  Another machine has taken this volume over: nothing goes up from here. To take it back:\n"
			  "  yester umount %s; yester mount -o take_over %s\n", directory, directory);
	if (is(view, "unmounted"))
		SAY(view, "  What changed since is found by the next `yester mount %s` or `yester sync %s`.\n", directory, directory);
	free(quoted);
}

int status_text(const char *json, int64_t now_s, bool color, struct buf *out)
{
	struct view view = { .json = json, .now_s = now_s, .color = color, .out = out };

	json_field_text(json, "state", view.state, sizeof view.state);
	json_field_text(json, "directory", view.directory, sizeof view.directory);
	say_head(&view);
	say_safe(&view);
	say_pending(&view);
	say_remote(&view);
	say_advice(&view);
	return view.rc;
}
