/* yester status [DIR] */
#include "clock.h"
#include "cmd.h"
#include "control_client.h"
#include "find_volume.h"
#include "mount_point.h"
#include "options.h"
#include "progress.h"
#include "status_json.h"
#include "status_text.h"
#include "volume_rest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct status_words {
	const char *operands[1]; /* DIR or NULL */
	bool json, watch;
};

/* ---- one volume */

static void say_error(struct engine_status *status, const struct volume_config *config, const struct volume_rest *rest)
{
	if (mount_point_is_dead(config->directory))
		snprintf(status->last_error, sizeof status->last_error,
			 "the mount is there, but its daemon has died; yester mount %.200s recovers it", config->directory);
	else if (rest->fenced)
		snprintf(status->last_error, sizeof status->last_error,
			 "another machine has taken this volume over; yester mount -o take_over %.200s takes it back", config->directory);
	else if (rest->uploads_held)
		snprintf(status->last_error, sizeof status->last_error,
			 "most of the tree has gone, and nothing goes up: bring it back, or yester mount -o accept_loss %.200s",
			 config->directory);
	if (status->last_error[0])
		status->last_error_ns = clock_wall_ns();
}

/* The same JSON as a daemon's, out of the database alone: no key is needed. */
static int rest_json(const struct volume_config *config, struct buf *out, struct error *error)
{
	struct engine_status status = { 0 };
	int64_t now_ns = clock_wall_ns();
	struct volume_rest rest;
	struct volume *volume;
	int rc = volume_open_reader(config, &volume, error);

	if (rc == ERR_ABSENT)
		return error_set(error, rc, 0, "%s: the local database is gone; the next yester mount or yester sync fills a new one from %s",
				 config->directory, config->remote);
	if (rc == ERR_CORRUPT)
		return error_set(error, rc, 0, "%s; the next yester mount or yester sync fills a new one from %s", error->message,
				 config->remote);
	if (rc < 0)
		return rc;
	rc = volume_rest_read(volume, &rest, error);
	volume_close(volume, false);
	if (rc < 0)
		return rc;
	memcpy(status.volume_id, rest.volume_id, sizeof status.volume_id);
	memcpy(status.head_hash, rest.confirmed_hash, sizeof status.head_hash);
	status.head = rest.head;
	status.confirmed = rest.confirmed;
	status.safe_until_ns = rest.confirmed_cut_ns; /* I24: never "now", edits while unmounted are not known */
	status.pending_files = rest.pending_files;
	if (rest.oldest_cut_ns && now_ns > rest.oldest_cut_ns)
		status.oldest_pending_seconds = (double)(now_ns - rest.oldest_cut_ns) / (double)NS_PER_S;
	status.suspect_files = rest.suspect_files;
	status.pending_bytes = rest.pending_bytes;
	status.spool_bytes = rest.spool_bytes;
	status.backlog_files = rest.backlog_files;
	status.backlog_bytes = rest.backlog_bytes;
	say_error(&status, config, &rest);
	/* The empty text puts a NUL behind the JSON, as there is one behind a daemon's. */
	if (status_json(config, &status, &(struct status_features){0}, now_ns, NULL, out) < 0 || buf_printf(out, "%s", "") < 0)
		return error_set(error, ERR_NOMEM, 0, "%s: out of memory", config->name);
	return 0;
}

static int volume_json(const struct volume_config *config, struct buf *out, struct error *error)
{
	struct error why = { 0 };
	int rc = control_call(config, "status", 0, NULL, NULL, out, &why);

	/* It is being unmounted, or has just been: the database has all that there is to say. */
	if (rc == ERR_ABSENT || rc == ERR_BUSY || (rc == ERR_ABANDONED && !mount_point_has_volume(config->directory))) {
		buf_clear(out);
		rc = rest_json(config, out, &why);
	}
	if (rc < 0)
		error_set(error, rc, why.sys_errno, "%s: %s", config->name, why.message);
	return rc;
}

/* ---- all that is asked for */

struct showing {
	const struct status_words *words;
	bool color;
	struct buf *out;
	size_t count;
	int code; /* exit code so far */
	struct error error;
};

static int show(void *context, struct volume_config *config)
{
	struct showing *showing = context;
	struct buf json = { 0 };
	int rc = volume_json(config, &json, &showing->error);

	if (rc < 0) { /* the others are shown all the same */
		buf_free(&json);
		/* Above a screen that is drawn again, nobody would see it. */
		if (showing->words->watch && !showing->words->json)
			return buf_printf(showing->out, "yester: %s\n", showing->error.message);
		showing->code = cmd_fail(&showing->error);
		return 0;
	}
	if (showing->words->json)
		rc = buf_printf(showing->out, "%s%s", showing->count > 0 ? "," : "", (const char *)json.data);
	else
		rc = showing->count > 0 ? buf_printf(showing->out, "\n") : 0;
	if (rc == 0 && !showing->words->json)
		rc = status_text((const char *)json.data, clock_wall_ns() / NS_PER_S, showing->color, showing->out);
	showing->count++;
	buf_free(&json);
	return rc;
}

static int show_all(struct showing *showing)
{
	int rc = showing->words->json ? buf_printf(showing->out, "[") : 0;

	if (rc == 0)
		rc = config_each(show, showing, &showing->error);
	if (rc == 0 && showing->words->json)
		rc = buf_printf(showing->out, "]");
	if (rc == 0 && showing->count == 0 && showing->code == 0 && !showing->words->json)
		rc = buf_printf(showing->out, "No volume yet. Make one with yester init DIR REMOTE.\n");
	return rc;
}

/* One time. The exit code. */
static int status_once(const struct status_words *words, bool color, struct buf *out)
{
	struct showing showing = { .words = words, .color = color, .out = out };
	struct volume_config *config = NULL;
	int rc;

	if (words->operands[0]) {
		rc = find_volume(words->operands[0], &config, NULL, &showing.error);
		if (rc == 0)
			rc = show(&showing, config);
	} else {
		rc = show_all(&showing);
	}
	if (rc == 0 && words->json && (showing.count > 0 || !words->operands[0]))
		rc = buf_printf(out, "\n");
	config_free(config);
	if (rc == ERR_NOMEM)
		error_set(&showing.error, rc, 0, "status: out of memory");
	return rc < 0 ? cmd_fail(&showing.error) : showing.code;
}

/* Until interrupted, or the reader of a pipe goes. */
static int status_watch(const struct status_words *words, const struct terminal *terminal)
{
	struct timespec second = { .tv_sec = 1 };
	struct buf out = { 0 };

	for (;;) {
		int code;

		buf_clear(&out);
		code = status_once(words, terminal->color, &out);
		if (code != 0 && out.length == 0) {
			buf_free(&out);
			return code;
		}
		if (terminal->is_tty && !words->json)
			fputs("\033[H\033[J", stdout); /* ECMA-48: from the top, the rest erased */
		fwrite(out.data, 1, out.length, stdout);
		if (!terminal->is_tty && !words->json)
			putchar('\n');
		if (fflush(stdout) != 0) {
			buf_free(&out);
			return 1;
		}
		nanosleep(&second, NULL);
	}
}

int cmd_status(int argc, char **argv, const struct engine_ops *engine)
{
	struct status_words words = { 0 };
	const struct option_spec specs[] = { { "json", 0, &words.json, NULL }, { "watch", 0, &words.watch, NULL } };
	struct terminal terminal;
	struct buf out = { 0 };
	struct error error;
	int code;

	(void)engine;
	if (options_parse(argc, argv, specs, 2, words.operands, 0, 1, "[DIR]", &error) < 0)
		return cmd_fail(&error);
	terminal_look(stdout, &terminal);
	if (words.watch)
		return status_watch(&words, &terminal);
	code = status_once(&words, terminal.color, &out);
	if (out.length > 0)
		fwrite(out.data, 1, out.length, stdout);
	buf_free(&out);
	return code;
}
