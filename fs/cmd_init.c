/* yester init DIR REMOTE */
#include "bytes.h"
#include "cmd.h"
#include "human.h"
#include "interrupt.h"
#include "new_config.h"
#include "options.h"
#include "progress.h"
#include "store_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct init_words {
	const char *operands[2]; /* DIR REMOTE */
	const char *name, *passphrase_file;
	bool no_encryption, unsafe_single_writer;
	struct store_options store;
};

static int read_words(int argc, char **argv, struct init_words *words, struct unlock *unlock, struct error *error)
{
	const struct option_spec specs[] = {
		{ "name", 0, NULL, &words->name },
		{ "passphrase-file", 0, NULL, &words->passphrase_file },
		{ "no-encryption", 0, &words->no_encryption, NULL },
		{ "unsafe-single-writer", 0, &words->unsafe_single_writer, NULL },
		STORE_OPTION_SPECS(&words->store),
	};
	const char *environment = getenv("YESTER_PASSPHRASE_FILE");
	int rc = options_parse(argc, argv, specs, sizeof specs / sizeof *specs, words->operands, 2, 2, "DIR REMOTE", error);

	if (rc < 0)
		return rc;
	if (words->no_encryption && words->passphrase_file)
		return error_set(error, ERR_USAGE, 0, "init: --no-encryption and --passphrase-file exclude each other; leave one out");
	unlock->unencrypted = words->no_encryption;
	unlock->passphrase_file = words->passphrase_file;
	if (!words->no_encryption && !unlock->passphrase_file && environment && environment[0])
		unlock->passphrase_file = environment;
	return 0;
}

static void say_keys(const struct volume_config *config, const struct unlock *unlock, const struct init_result *made)
{
	if (unlock->unencrypted) {
		printf("  encrypted    nothing: whoever can read the remote can read and change everything\n");
		return;
	}
	printf("  encrypted    names, contents and attributes; the remote learns only sizes and times\n");
	if (made->key_file[0])
		printf("  key          %s (random, made just now)\n", made->key_file);
	else
		printf("  key          opened by the passphrase in %s\n",
		       config->passphrase_file ? config->passphrase_file : unlock->passphrase_file);
}

static void say_recovery_key(const struct init_result *made)
{
	if (!made->recovery_key[0])
		return;
	printf("\nRecovery key, shown this once:\n\n    %s\n\n"
	       "Print it or keep it in a password manager, away from this machine. When the machine is gone, the remote and this\n"
	       "key bring everything back (yester clone). Without this key%s nobody can, not even you.\n",
	       made->recovery_key, made->key_file[0] ? " or the key file" : " or the passphrase");
}

static void say(const struct volume_config *config, const struct unlock *unlock, const struct init_result *made)
{
	char id[33], files[HUMAN_BYTES], bytes[HUMAN_BYTES], *quoted = human_quoted(config->directory);

	hex_encode(id, made->volume_id, sizeof made->volume_id);
	human_plural(files, made->files, "file");
	human_size(bytes, made->bytes);
	printf("Volume %s: %s is to be kept in %s\n", config->name, config->directory, config->remote);
	printf("  volume id    %s\n  holds now    %s, %s\n", id, files, bytes);
	say_keys(config, unlock, made);
	printf("  config       %s\n", config->file);
	say_recovery_key(made);
	printf("\nNext:  yester mount %s\n", quoted ? quoted : "DIR");
	free(quoted);
}

int cmd_init(int argc, char **argv, const struct engine_ops *engine)
{
	struct init_words words = { 0 };
	struct unlock unlock = { 0 };
	struct volume_config *config = NULL;
	struct init_result made = { 0 };
	struct progress *progress = progress_new(stderr); /* says so when the store keeps us waiting */
	struct error error = { 0 };
	int rc = read_words(argc, argv, &words, &unlock, &error);

	interrupt_catch();
	if (rc == 0)
		rc = new_config(&(struct new_config){ words.operands[0], words.operands[1], words.name, true }, &config, &error);
	if (rc == 0)
		rc = store_options_apply(&words.store, config, &error);
	if (rc == 0) {
		config->unsafe_single_writer = words.unsafe_single_writer;
		rc = engine->init(config, &unlock, &made, &error);
	}
	progress_free(progress);
	if (rc == 0)
		say(config, &unlock, &made);
	explicit_bzero(&made, sizeof made);
	config_free(config);
	return rc == 0 ? 0 : cmd_fail(&error);
}
