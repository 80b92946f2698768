/* yester restore PATH --at TIME
 *
 * In place: the version is found; a cut records the present; the past is written beside the target under a name of its own; one rename puts it there; what was
 * there is removed. Killed at any moment, the target is either the old or the new one, whole; the other may be left beside it. The volume itself can't be
 * renamed: there it is so for each of its entries. */
#include "clock.h"
#include "cmd.h"
#include "control_client.h"
#include "extract.h"
#include "human.h"
#include "interrupt.h"
#include "io.h"
#include "json_field.h"
#include "bytes.h"
#include "options.h"
#include "progress.h"
#include "restore_place.h"
#include "restore_root.h"
#include "restore_version.h"
#include "tree.h"
#include "unmounted.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOBS 4
#define TEMPORARY_BYTES 40

struct restoring {
	const char *path, *at, *to;
	struct restore_place place;
	struct unmounted *unmounted; /* in place of an unmounted volume: the engine; else: history alone */
	struct restore_version version;
	int64_t cut;                 /* version that holds the present; 0: none was needed */
	char temporary[TEMPORARY_BYTES];
	struct extract_result written;
	struct progress *progress;
};

static int read_words(int argc, char **argv, struct restoring *restoring, struct error *error)
{
	const struct option_spec specs[] = { { "at", 0, NULL, &restoring->at }, { "to", 0, NULL, &restoring->to } };
	const char *operands[1];
	int rc = options_parse(argc, argv, specs, 2, operands, 1, 1, "PATH", error);

	if (rc < 0)
		return rc;
	restoring->path = operands[0];
	if (!restoring->at)
		return error_set(error, ERR_USAGE, 0, "restore: --at TIME is missing; for example --at 10m-ago");
	return 0;
}

/* The present, as a version. */
static int cut(struct restoring *restoring, struct error *error)
{
	struct error why = { 0 };
	struct buf answer = { 0 };
	int rc;

	if (restoring->to)
		return 0;
	if (!restoring->place.mounted) {
		rc = unmounted_sync(restoring->unmounted, 0, &restoring->cut, &why);
	} else {
		rc = control_call(restoring->place.config, "sync", 0, NULL, NULL, &answer, &why);
		if (rc == 0)
			json_field_int((const char *)answer.data, "version", &restoring->cut);
		buf_free(&answer);
	}
	if (rc < 0)
		error_set(error, rc, why.sys_errno, "%s; so the present state is not recorded, and nothing was changed: use --to DEST",
			  why.message);
	return rc;
}

/* Only with --to: in place it is all or nothing. */
static void say_damaged(void *context, const char *path, const struct error *why)
{
	struct restoring *restoring = context;
	char shown[PATH_MAX];

	progress_clear(restoring->progress);
	escape_text(shown, sizeof shown, path);
	fprintf(stderr, "yester: %s: left out: %s\n", shown, why->message);
}

static void report(void *context, const char *what, uint64_t done, uint64_t total, const char *unit)
{
	struct restoring *restoring = context;

	progress_report(restoring->progress, what, done, total, unit);
}

static int extract(struct restoring *restoring, struct error *error)
{
	struct extract_options options = { .jobs = JOBS, .stop = interrupt_flag(), .progress = report, .context = restoring,
					   .damaged = restoring->to ? say_damaged : NULL };
	uint8_t random[8];
	char hex[17];
	int rc;

	io_random(random, sizeof random);
	hex_encode(hex, random, sizeof random);
	snprintf(restoring->temporary, sizeof restoring->temporary, ".yester-restore-%s", hex);
	restoring->progress = progress_new(stderr);
	rc = extract_tree(unmounted_volume(restoring->unmounted), restoring->version.row.seq, restoring->version.ino,
			  restoring->place.dirfd, restoring->temporary, &options, &restoring->written, error);
	progress_free(restoring->progress);
	restoring->progress = NULL;
	if (rc < 0 && interrupt_asked())
		rc = error_set(error, ERR_FAILED, EINTR, "%s: interrupted; it is as it was", restoring->place.shown);
	return rc;
}

/* One rename. Afterwards what was there, if anything, has the temporary name. */
static int swap(struct restoring *restoring, struct error *error)
{
	const struct restore_place *place = &restoring->place;
	unsigned flags = place->exists ? RENAME_EXCHANGE : RENAME_NOREPLACE;

	if (renameat2(place->dirfd, restoring->temporary, place->dirfd, place->name, flags) == 0)
		return 0;
	if (errno == EEXIST)
		return error_set(error, ERR_EXISTS, errno, "%s: it has appeared meanwhile, and was left alone; try again", place->shown);
	if (errno == EINVAL)
		return error_set(error, ERR_UNSUPPORTED, errno, "%s: its filesystem can't exchange two names; use --to DEST", place->shown);
	return error_errno(error, errno, "%s: can't be put in place", place->shown);
}

/* The volume's directory stays; what is in it is exchanged. */
static int replace_whole(struct restoring *restoring, struct error *error)
{
	struct error why = { 0 };
	char name[40];
	int rc = restore_root(restoring->place.dirfd, restoring->temporary, &why);

	if (rc == 0)
		return 0;
	restore_version_name(unmounted_volume(restoring->unmounted), restoring->cut, name);
	return error_set(error, rc, why.sys_errno, "%s: restored in part: %s; to undo: yester restore %s --at %s",
			 restoring->place.shown, why.message, restoring->place.shown, name);
}

/* Durable, before anything says that it is done. */
static int write_out(struct restoring *restoring, struct error *error)
{
	int rc = extract(restoring, error);

	if (rc == 0 && syncfs(restoring->place.dirfd) != 0 && errno != ENOSYS)
		rc = error_errno(error, errno, "%s: can't be brought to the disk", restoring->place.shown);
	if (rc == 0)
		rc = restoring->place.whole ? replace_whole(restoring, error) : swap(restoring, error);
	if (rc == 0)
		fsync(restoring->place.dirfd);
	/* Either the half that was written, or what was there before. */
	if (tree_remove(restoring->place.dirfd, restoring->temporary) != 0 && errno != ENOENT)
		fprintf(stderr, "yester: %s: can't remove it: %s; it can be deleted\n", restoring->temporary, strerror(errno));
	return rc;
}

static void say_undo(const struct restoring *restoring)
{
	char *quoted = human_quoted(restoring->place.shown), name[40];

	restore_version_name(unmounted_volume(restoring->unmounted), restoring->cut, name);
	if (name[0] && quoted && restoring->place.exists)
		printf("Undo:  yester restore %s --at %s\n", quoted, name);
	free(quoted);
}

static void say(const struct restoring *restoring)
{
	char at[HUMAN_BYTES], bytes[HUMAN_BYTES], entries[HUMAN_BYTES], shown[PATH_MAX], from[PATH_MAX];

	escape_text(shown, sizeof shown, restoring->place.shown);
	escape_text(from, sizeof from, restoring->path);
	human_time(at, restoring->version.row.time_s);
	human_size(bytes, restoring->written.bytes);
	human_count(entries, restoring->written.inodes);
	printf("%s is as %s was at %s", shown, restoring->to ? from : "it", at);
	if (restoring->written.inodes == 1)
		printf(" (%s)\n", bytes);
	else
		printf(" (%s files and directories, %s)\n", entries, bytes);
	if (restoring->written.skipped > 0) {
		human_plural(entries, restoring->written.skipped, "file");
		printf("  %s could not get everything back (owner, set-user-ID bit, device, attribute): that needs root.\n", entries);
	}
	if (restoring->cut == 0)
		return;
	say_undo(restoring);
	if (!restoring->place.mounted)
		printf("Not uploaded yet: the next yester mount or yester sync does that.\n");
}

static int restore(struct restoring *restoring, const struct engine_ops *engine, struct error *error)
{
	struct restore_place *place = &restoring->place;
	int rc = restore_place_find(restoring->path, restoring->to, place, error);

	if (rc == 0 && (restoring->to || place->mounted))
		rc = unmounted_open_history(place->config, engine, &restoring->unmounted, error);
	else if (rc == 0)
		rc = unmounted_open(place->config, engine, &restoring->unmounted, error);
	if (rc == 0)
		rc = restore_version_find(unmounted_volume(restoring->unmounted), restoring->at, place->inside, restoring->path,
					  &restoring->version, error);
	if (rc == 0)
		rc = cut(restoring, error);
	if (rc == 0)
		rc = write_out(restoring, error);
	if (rc < 0)
		return rc;
	say(restoring);
	if (restoring->written.damaged > 0)
		rc = error_set(error, ERR_CORRUPT, 0, "%s: %llu damaged files were left out; see above, and yester check", place->shown,
			       (unsigned long long)restoring->written.damaged);
	return rc;
}

int cmd_restore(int argc, char **argv, const struct engine_ops *engine)
{
	struct restoring restoring = { .place.dirfd = -1 };
	struct error error = { 0 }, later = { 0 };
	int rc = read_words(argc, argv, &restoring, &error);

	interrupt_catch();
	if (rc == 0)
		rc = restore(&restoring, engine, &error);
	if (unmounted_close(restoring.unmounted, &later) < 0 && rc == 0) {
		error = later;
		rc = later.code;
	}
	restore_place_free(&restoring.place);
	return rc == 0 ? 0 : cmd_fail(&error);
}
