/* unlock: from what a person or a config gives, and the small text objects of a volume, to the master key. Any thread. */
#ifndef YESTER_UNLOCK_H
#define YESTER_UNLOCK_H

#include "buf.h"
#include "config.h"
#include "crypt.h"
#include "db.h"
#include "engine.h"
#include "key.h"
#include "record.h"
#include "store.h"

#include <stdbool.h>

#define VOLUME_KEY "volume" /* of the descriptor */
#define SLOT_PREFIX "key/"
#define SLOT_KEY_BYTES 16 /* "key/" 8 digits NUL */
#define SLOTS_MAX 256     /* more are not looked at */

/* What opens a key slot. */
struct secret {
	bool given;
	enum key_kind kind;
	struct buf bytes;
};
/* Reads what `unlock` names (may be NULL), else what the config names, else YESTER_PASSPHRASE_FILE if the config says encrypted. Nothing named: 0 and given = false. ERR_KEY, ERR_USAGE, ERR_ABSENT, ... */
int secret_read(const struct unlock *unlock, const struct volume_config *config, struct secret *out, struct error *error);
void secret_wipe(struct secret *secret);

/* The descriptor and the key slots. */
struct volume_text {
	char key[RECORD_KEY_BYTES];
	struct buf bytes;
};
struct volume_texts {
	struct buf descriptor;
	struct volume_text *slots;
	size_t count;
};
/* From the store. ERR_ABSENT: "no yester volume here". ERR_CORRUPT: too large. The caller frees, also after an error. */
int volume_texts_fetch(struct store *store, struct volume_texts *out, struct error *error);
/* From the copies in remote_object. ERR_ABSENT when there is no descriptor. */
int volume_texts_load(struct db_conn *conn, struct volume_texts *out, struct error *error);
/* Writes one copy, in the caller's transaction. */
int volume_text_save(struct db_conn *conn, const char *key, const void *bytes, size_t length, struct error *error);
void volume_texts_free(struct volume_texts *texts);

/* Unwraps the master with whichever slot the secret fits and verifies the descriptor. `where`: for messages. ERR_KEY: wrong or missing secret, or one
 * was given for a volume that says it is not encrypted (fault 46). ERR_CORRUPT, ERR_UNSUPPORTED. */
int volume_texts_unlock(const struct volume_texts *texts, const struct secret *secret, const char *where,
			struct volume_descriptor *descriptor, struct master **out, struct error *error);

/* A fresh key for a slot: "key/" and eight random digits. */
void slot_key_new(char out[SLOT_KEY_BYTES]);

#endif
