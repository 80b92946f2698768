/* setup: what init and clone share: making a volume's local side, and removing it again when something fails. One thread. */
#ifndef YESTER_SETUP_H
#define YESTER_SETUP_H

#include "unlock.h"

/* config->directory is a directory that can become a volume, apart from the remote. ERR_USAGE, ERR_ABSENT, ... */
int setup_check_directory(const struct volume_config *config, struct error *error);
/* ERR_EXISTS when there is a config or state directory of that name, or a volume on that directory. */
int setup_check_name(const struct volume_config *config, struct error *error);

/* Fresh string: config_dir()/NAME.key; the directory is made. NULL with *error. */
char *setup_key_path(const struct volume_config *config, struct error *error);
/* Writes 32 bytes as a key file, 0600, durable. ERR_EXISTS. */
int setup_write_key_file(const char *path, const struct buf *secret, struct error *error);

/* Sets a string of the config. */
int setup_replace(char **target, const char *text, struct error *error);
/* The same with the absolute path of a file. What comes through a pipe can't be read again at the next mount: then NULL is set. */
int setup_remember_path(char **target, const char *path, struct error *error);

/* Wraps the master into a fresh slot of texts. */
int setup_add_slot(struct volume_texts *texts, const struct master *master, enum key_kind kind, const void *secret,
		   size_t length, struct error *error);
/* Creates an object. Ours already there (an answer was lost) is success, another ERR_EXISTS. Where the store has no conditional PUT and
 * config->unsafe_single_writer says so, without the condition. */
int setup_put_text(struct store *store, const struct volume_config *config, const char *key, const struct buf *text,
		   struct error *error);

/* Whether the object has exactly those bytes; false also when nothing is known. */
bool setup_is_ours(struct store *store, const char *key, const struct buf *text);

/* meta volume_id, encrypted, head = confirmed = 0, and the copies of the texts. */
int setup_describe(struct db *db, const struct volume_descriptor *descriptor, const struct volume_texts *texts,
		   struct error *error);

/* Removes $STATE/NAME. The volume must be closed. Best effort. */
void setup_remove_state(const struct volume_config *config);

#endif
