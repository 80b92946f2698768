/* yester clone REMOTE DIR */
#include "clock.h"
#include "cmd.h"
#include "human.h"
#include "interrupt.h"
#include "new_config.h"
#include "progress.h"
#include "secret_options.h"
#include "store_options.h"
#include "when.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct clone_words {
	const char *operands[2]; /* REMOTE DIR */
	const char *name, *at;
	int64_t at_s;            /* -1: the newest */
	struct store_options store;
};

static int read_words(int argc, char **argv, struct clone_words *words, struct secret_options *secret, struct unlock *unlock,
		      struct error *error)
{
	const struct option_spec specs[] = {
		{ "at", 0, NULL, &words->at },
		{ "name", 0, NULL, &words->name },
		SECRET_OPTION_SPECS(secret),
		STORE_OPTION_SPECS(&words->store),
	};
	int rc = options_parse(argc, argv, specs, sizeof specs / sizeof *specs, words->operands, 2, 2, "REMOTE DIR", error);

	if (rc < 0)
		return rc;
	words->at_s = -1;
	if (words->at && when_parse(words->at, clock_wall_ns() / NS_PER_S, &words->at_s) == WHEN_BAD)
		return error_set(error, ERR_USAGE, 0, "--at %s: that is no time; write it as 10m-ago, 3d-ago, 2026-11-20 or "
				 "2026-11-20T08:14:07 (UTC)", words->at);
	return secret_options_read(secret, unlock, error);
}

static void say(const struct volume_config *config, const struct clone_result *made)
{
	char at[HUMAN_BYTES], entries[HUMAN_BYTES], bytes[HUMAN_BYTES], *quoted = human_quoted(config->directory);

	human_time(at, made->time_s);
	human_count(entries, made->inodes);
	human_size(bytes, made->bytes);
	printf("%s is as it was at %s (version %lld): %s files and directories, %s\n", config->directory, at,
	       (long long)made->version, entries, bytes);
	if (made->partial)
		printf("  The first upload of this volume never came to its end: this is the part that got there.\n");
	if (made->lacking)
		printf("  When this version was made, some files of the tree could not be read: here they are older, or missing.\n");
	if (made->skipped > 0) {
		human_plural(entries, made->skipped, "file");
		printf("  %s could not get everything back (owner, set-user-ID bit, device, attribute): that needs root.\n", entries);
	}
	if (config->key_file)
		printf("  key          %s\n", config->key_file);
	if (config->encryption && !config->key_file && !config->passphrase_file)
		printf("  The passphrase is not kept here: set YESTER_PASSPHRASE_FILE, or passphrase_file in %s, before mounting.\n",
		       config->file);
	printf("  config       %s\n\nNext:  yester mount %s\n"
	       "       This machine then writes to the remote. One that did so before is fenced: it goes on locally, but uploads nothing.\n",
	       config->file, quoted ? quoted : "DIR");
	free(quoted);
}

int cmd_clone(int argc, char **argv, const struct engine_ops *engine)
{
	struct clone_words words = { 0 };
	struct secret_options secret = SECRET_OPTIONS_EMPTY;
	struct unlock unlock = { 0 };
	struct volume_config *config = NULL;
	struct clone_result made = { 0 };
	struct progress *progress = progress_new(stderr);
	struct error error = { 0 };
	int rc = read_words(argc, argv, &words, &secret, &unlock, &error);

	interrupt_catch();
	if (rc == 0)
		rc = new_config(&(struct new_config){ words.operands[1], words.operands[0], words.name, false }, &config, &error);
	if (rc == 0)
		rc = store_options_apply(&words.store, config, &error);
	if (rc == 0)
		rc = engine->clone(config, &unlock, words.at_s, progress_report, progress, &made, &error);
	if (rc == ERR_KEY && secret_options_can_ask(&unlock)) {
		progress_clear(progress);
		rc = secret_options_ask(&secret, config->remote, &unlock, &error);
		if (rc == 0)
			rc = engine->clone(config, &unlock, words.at_s, progress_report, progress, &made, &error);
	}
	progress_free(progress);
	if (rc == 0)
		say(config, &made);
	secret_options_wipe(&secret);
	config_free(config);
	return rc == 0 ? 0 : cmd_fail(&error);
}
