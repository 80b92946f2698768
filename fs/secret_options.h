/* secret_options: how the person opens a volume that this machine does not know: --passphrase-file, --key-file, --recovery-key-file, the environment, or an answer on the
 * terminal. Secrets never stand on the command line. One thread. */
#ifndef YESTER_SECRET_OPTIONS_H
#define YESTER_SECRET_OPTIONS_H

#include "engine.h"
#include "options.h"

struct secret_options {
	const char *passphrase_file, *key_file, *recovery_key_file; /* as given */
	char recovery_key[64]; /* read from recovery_key_file or typed */
	int typed_fd;          /* a passphrase that was typed, in memory; -1 */
	char typed_path[32];
};
/* The three options, for options_parse. */
#define SECRET_OPTION_SPECS(secret)                                                                                    \
	{ "passphrase-file", 0, NULL, &(secret)->passphrase_file }, { "key-file", 0, NULL, &(secret)->key_file },      \
	{ "recovery-key-file", 0, NULL, &(secret)->recovery_key_file }
#define SECRET_OPTIONS_EMPTY { .typed_fd = -1 }

/* Fills *unlock, which points into *secret. Nothing given: YESTER_PASSPHRASE_FILE, else nothing is set. ERR_USAGE (two of them), ERR_KEY, ... */
int secret_options_read(struct secret_options *secret, struct unlock *unlock, struct error *error);
/* True when nothing was given and there is a terminal to ask on. */
bool secret_options_can_ask(const struct unlock *unlock);
/* Asks for a passphrase or recovery key, without echo. ERR_KEY (an empty answer), ERR_FAILED (with EINTR: Ctrl-C or a signal, after interrupt_catch). */
int secret_options_ask(struct secret_options *secret, const char *remote, struct unlock *unlock, struct error *error);
void secret_options_wipe(struct secret_options *secret);

#endif
