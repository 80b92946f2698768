/* yester check DIR|REMOTE */
#include "bytes.h"
#include "cmd.h"
#include "find_volume.h"
#include "human.h"
#include "interrupt.h"
#include "new_config.h"
#include "progress.h"
#include "secret_options.h"
#include "store_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_words {
	const char *operands[1]; /* DIR|REMOTE */
	bool read_data;
	const char *percent_text;
	int percent;
	struct store_options store;
};

static int read_percent(struct check_words *words, struct error *error)
{
	char *end;
	long value;

	words->percent = words->read_data ? 100 : 0;
	if (!words->percent_text)
		return 0;
	value = strtol(words->percent_text, &end, 10);
	if (end == words->percent_text || (*end && strcmp(end, "%") != 0) || value < 1 || value > 100)
		return error_set(error, ERR_USAGE, 0, "--read-data=%s: it takes a percentage from 1 to 100", words->percent_text);
	words->percent = (int)value;
	return 0;
}

static int read_words(int argc, char **argv, struct check_words *words, struct secret_options *secret, struct unlock *unlock,
		      struct error *error)
{
	const struct option_spec specs[] = {
		{ "read-data", 0, &words->read_data, &words->percent_text },
		SECRET_OPTION_SPECS(secret),
		STORE_OPTION_SPECS(&words->store),
	};
	int rc = options_parse(argc, argv, specs, sizeof specs / sizeof *specs, words->operands, 1, 1, "DIR or REMOTE", error);

	if (rc == 0)
		rc = read_percent(words, error);
	return rc ? rc : secret_options_read(secret, unlock, error);
}

/* The config of DIR, or one without a directory for a bare REMOTE. */
static int find(const struct check_words *words, struct volume_config **out, struct error *error)
{
	const char *operand = words->operands[0];
	struct volume_config *config = NULL;
	int rc;

	if (!strstr(operand, "://")) {
		rc = find_volume(operand, &config, NULL, error);
		if (rc == 0)
			rc = store_options_refuse(&words->store, config->file, error);
	} else {
		config = config_new("check");
		rc = config ? new_config_remote(operand, &config->remote, error) : error_set(error, ERR_NOMEM, 0, "out of memory");
		if (rc == 0)
			rc = new_config_environment(config, error);
		if (rc == 0)
			rc = store_options_apply(&words->store, config, error);
	}
	if (rc == 0)
		*out = config;
	else
		config_free(config);
	return rc;
}

/* Damage goes to stdout: it is what was asked for. */
static void say_damage(void *context, const char *line)
{
	char shown[4096];

	progress_clear(context);
	escape_text(shown, sizeof shown, line);
	puts(shown);
}

static void say(const struct volume_config *config, const struct check_words *words, const struct check_result *found)
{
	char records[HUMAN_BYTES], packs[HUMAN_BYTES], chunks[HUMAN_BYTES], bytes[HUMAN_BYTES];

	human_plural(records, found->records, "record");
	human_plural(packs, found->packs, "pack");
	human_plural(chunks, found->chunks, "chunk");
	human_size(bytes, found->bytes);
	printf("%s: %s, %s, %s", config->remote, records, packs, chunks);
	if (words->percent > 0)
		printf(", %s read back", bytes);
	printf(": no damage\n");
	if (words->percent == 0)
		printf("The data itself was not read; yester check --read-data does that.\n");
}

int cmd_check(int argc, char **argv, const struct engine_ops *engine)
{
	struct check_words words = { 0 };
	struct secret_options secret = SECRET_OPTIONS_EMPTY;
	struct unlock unlock = { 0 };
	struct volume_config *config = NULL;
	struct check_result found = { 0 };
	struct progress *progress = progress_new(stderr);
	struct error error = { 0 };
	int rc = read_words(argc, argv, &words, &secret, &unlock, &error);

	interrupt_catch();
	if (rc == 0)
		rc = find(&words, &config, &error);
	if (rc == 0)
		rc = engine->check(config, &unlock, words.percent, progress_report, say_damage, progress, &found, &error);
	if (rc == ERR_KEY && secret_options_can_ask(&unlock)) {
		progress_clear(progress);
		rc = secret_options_ask(&secret, config->remote, &unlock, &error);
		if (rc == 0)
			rc = engine->check(config, &unlock, words.percent, progress_report, say_damage, progress, &found, &error);
	}
	progress_free(progress);
	if (rc == 0)
		say(config, &words, &found);
	secret_options_wipe(&secret);
	config_free(config);
	return rc == 0 ? 0 : cmd_fail(&error);
}
