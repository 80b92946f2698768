#include "unlock.h"

#include "bytes.h"
#include "db_internal.h"
#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the secret */

static int read_recovery(const char *text, struct secret *out, struct error *error)
{
	uint8_t bytes[20];
	int rc = key_parse_recovery(text, bytes, error);

	if (!rc && buf_append(&out->bytes, bytes, sizeof(bytes)))
		rc = error_errno(error, ENOMEM, "recovery key");
	crypt_wipe(bytes, sizeof(bytes));
	return rc;
}

int secret_read(const struct unlock *unlock, const struct volume_config *config, struct secret *out, struct error *error)
{
	const char *passphrase = unlock ? unlock->passphrase_file : NULL, *file = unlock ? unlock->key_file : NULL;
	const char *recovery = unlock ? unlock->recovery_key : NULL;
	int rc;

	*out = (struct secret){0};
	if (!passphrase && !file && !recovery && config) {
		passphrase = config->passphrase_file;
		file = config->key_file;
		if (!passphrase && !file && config->encryption)
			passphrase = getenv("YESTER_PASSPHRASE_FILE");
	}
	if (passphrase && !passphrase[0])
		passphrase = NULL;
	if (!passphrase && !file && !recovery)
		return 0;
	if (recovery) {
		out->kind = KEY_RECOVERY;
		rc = read_recovery(recovery, out, error);
	} else if (passphrase) {
		out->kind = KEY_PASSPHRASE;
		rc = key_read_passphrase(passphrase, &out->bytes, error);
	} else {
		out->kind = KEY_FILE;
		rc = key_read_file(file, &out->bytes, error);
	}
	out->given = rc == 0;
	if (rc)
		secret_wipe(out);
	return rc;
}

void secret_wipe(struct secret *secret)
{
	buf_wipe(&secret->bytes);
	secret->given = false;
}

/* ---------------------------------------------------------------- the texts */

struct text_list {
	struct volume_texts *texts;
	uint64_t sizes[SLOTS_MAX];
	uint64_t descriptor_size;
	bool found, failed;
};

static struct volume_text *add_slot(struct volume_texts *texts, const char *key)
{
	struct volume_text *grown = reallocarray(texts->slots, texts->count + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	texts->slots = grown;
	grown += texts->count++;
	memset(grown, 0, sizeof(*grown));
	snprintf(grown->key, sizeof(grown->key), "%s", key);
	return grown;
}

static int on_descriptor(void *context, const struct store_object *object)
{
	struct text_list *list = context;

	if (strcmp(object->key, VOLUME_KEY) != 0)
		return 0;
	list->found = true;
	list->descriptor_size = object->size;
	return 1;
}

static int on_slot(void *context, const struct store_object *object)
{
	struct text_list *list = context;

	if (strlen(object->key) >= RECORD_KEY_BYTES || object->size == 0 || object->size > KEY_TEXT_MAX_BYTES)
		return 0; /* no slot of ours */
	if (list->texts->count == SLOTS_MAX)
		return 1;
	list->sizes[list->texts->count] = object->size;
	if (!add_slot(list->texts, object->key))
		list->failed = true;
	return list->failed;
}

/* The size is asked for first, so that a hostile store can't make us hold gigabytes. */
static int fetch_descriptor(struct store *store, struct text_list *list, struct error *error)
{
	int rc = store_list(store, VOLUME_KEY, NULL, on_descriptor, list, error);

	if (rc < 0)
		return rc;
	if (!list->found)
		return error_set(error, ERR_ABSENT, 0, "%s: no yester volume here; check the remote's name, or yester init",
				 store->url);
	if (list->descriptor_size == 0 || list->descriptor_size > KEY_TEXT_MAX_BYTES)
		return error_set(error, ERR_CORRUPT, 0, "%s: %s: not a volume descriptor", store->url, VOLUME_KEY);
	return store_get(store, VOLUME_KEY, 0, list->descriptor_size, &list->texts->descriptor, error);
}

int volume_texts_fetch(struct store *store, struct volume_texts *out, struct error *error)
{
	struct text_list list = {.texts = out};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = fetch_descriptor(store, &list, error);
	if (rc < 0)
		return rc;
	rc = store_list(store, SLOT_PREFIX, NULL, on_slot, &list, error);
	if (rc < 0)
		return rc;
	if (list.failed)
		return error_errno(error, ENOMEM, "%s: key slots", store->url);
	for (size_t i = 0; i < out->count; i++) {
		rc = store_get(store, out->slots[i].key, 0, list.sizes[i], &out->slots[i].bytes, error);
		if (rc && rc != ERR_ABSENT) /* removed meanwhile: it stays empty, and fits nothing */
			return rc;
	}
	return 0;
}

int volume_texts_load(struct db_conn *conn, struct volume_texts *out, struct error *error)
{
	memset(out, 0, sizeof(*out));
	int rc = db_step(conn, error, "SELECT key, bytes FROM remote_object ORDER BY key", "");
	sqlite3_stmt *stmt = db_last(conn);

	for (; rc == 1; rc = db_next(conn, stmt, error)) {
		const char *key = (const char *)sqlite3_column_text(stmt, 0);
		struct volume_text *slot = NULL;
		struct buf *target = &out->descriptor;
		if (!key || strlen(key) >= RECORD_KEY_BYTES)
			continue;
		if (strncmp(key, SLOT_PREFIX, strlen(SLOT_PREFIX)) == 0)
			target = (slot = add_slot(out, key)) ? &slot->bytes : NULL;
		else if (strcmp(key, VOLUME_KEY) != 0)
			continue;
		if (!target || buf_append(target, sqlite3_column_blob(stmt, 1), (size_t)sqlite3_column_bytes(stmt, 1))) {
			db_reset(stmt);
			return error_errno(error, ENOMEM, "key slots");
		}
	}
	if (rc < 0)
		return rc;
	if (!out->descriptor.length)
		return error_set(error, ERR_ABSENT, 0, "the local database has no copy of the volume descriptor");
	return 0;
}

int volume_text_save(struct db_conn *conn, const char *key, const void *bytes, size_t length, struct error *error)
{
	return db_step(conn, error, "INSERT OR REPLACE INTO remote_object(key, bytes) VALUES(?, ?)", "tb", key, bytes,
		       length);
}

void volume_texts_free(struct volume_texts *texts)
{
	for (size_t i = 0; i < texts->count; i++)
		buf_free(&texts->slots[i].bytes);
	free(texts->slots);
	buf_free(&texts->descriptor);
	memset(texts, 0, sizeof(*texts));
}

/* ---------------------------------------------------------------- unlocking */

static const char *kind_name(enum key_kind kind)
{
	return kind == KEY_PASSPHRASE ? "passphrase" : kind == KEY_FILE ? "key file" : "recovery key";
}

/* A slot that is damaged doesn't matter as long as another one fits. */
static int try_slots(const struct volume_texts *texts, const struct secret *secret, const char *where,
		     const struct volume_descriptor *descriptor, struct master **out, struct error *error)
{
	struct error slot_error = {0};
	bool tried = false;

	for (size_t i = 0; i < texts->count; i++) {
		const struct buf *text = &texts->slots[i].bytes;
		enum key_kind kind;
		int rc = key_slot_kind(text->data, text->length, &kind, &slot_error);
		if (rc || kind != secret->kind)
			continue;
		rc = key_slot_open(text->data, text->length, descriptor, kind, secret->bytes.data, secret->bytes.length,
				   out, &slot_error);
		if (!rc)
			return 0;
		if (rc != ERR_KEY && rc != ERR_CORRUPT && rc != ERR_UNSUPPORTED)
			return error_set(error, rc, slot_error.sys_errno, "%s: %s", where, slot_error.message);
		tried = tried || rc == ERR_KEY;
	}
	if (tried)
		return error_set(error, ERR_KEY, 0, "%s: wrong %s", where, kind_name(secret->kind));
	if (slot_error.code)
		return error_set(error, slot_error.code, 0, "%s: key slot: %s", where, slot_error.message);
	return error_set(error, ERR_KEY, 0, "%s: the volume has no key slot for a %s; use another kind of key", where,
			 kind_name(secret->kind));
}

int volume_texts_unlock(const struct volume_texts *texts, const struct secret *secret, const char *where,
			struct volume_descriptor *descriptor, struct master **out, struct error *error)
{
	const struct buf *text = &texts->descriptor;
	int rc = descriptor_read(text->data, text->length, descriptor, error);

	*out = NULL;
	if (rc)
		return rc;
	if (descriptor->suite == SUITE_NONE) {
		if (secret->given)
			return error_set(error, ERR_KEY, 0,
					 "%s: says that it is not encrypted, although a %s was given; it is not trusted", where,
					 kind_name(secret->kind));
		*out = master_new(descriptor->volume_id, NULL);
		rc = *out ? 0 : error_errno(error, ENOMEM, "%s", where);
	} else if (!secret->given) {
		rc = error_set(error, ERR_KEY, 0,
			       "%s: the volume is encrypted; give a passphrase file, key file or recovery key", where);
	} else {
		rc = try_slots(texts, secret, where, descriptor, out, error);
	}
	if (!rc)
		rc = descriptor_verify(text->data, text->length, *out, error);
	if (rc) {
		master_free(*out);
		*out = NULL;
	}
	return rc;
}

void slot_key_new(char out[SLOT_KEY_BYTES])
{
	uint8_t random[4];
	char hex[2 * sizeof(random) + 1];

	io_random(random, sizeof(random));
	hex_encode(hex, random, sizeof(random));
	snprintf(out, SLOT_KEY_BYTES, "%s%s", SLOT_PREFIX, hex);
}
