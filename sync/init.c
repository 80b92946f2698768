/* `yester init` (verbs.h). */
#include "verbs.h"

#include "interrupt.h"
#include "log.h"
#include "setup.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIES 5 /* attempts per request: a person waits */

struct making {
	struct volume_config *config;
	struct init_result *out;
	struct store *store;
	struct volume_descriptor descriptor;
	struct master *master;
	struct volume_texts texts;
	struct volume *volume;
	char *made_key_file; /* NULL: none was made */
	bool made_state, made_config, put_volume;
	size_t slots_put;
};

/* ---------------------------------------------------------------- the remote before */

static int stop_at_first(void *context, const struct store_object *object)
{
	(void)object;
	*(bool *)context = true;
	return 1;
}

static int refuse_existing(struct making *making, struct error *error)
{
	bool volume = false, log = false;
	int rc = store_list(making->store, VOLUME_KEY, NULL, stop_at_first, &volume, error);

	if (rc >= 0 && !volume)
		rc = store_list(making->store, "log/", NULL, stop_at_first, &log, error);
	if (rc < 0)
		return rc;
	if (volume)
		return error_set(error, ERR_EXISTS, 0, "%s: a volume is already there; yester clone %s DIR to use it",
				 making->config->remote, making->config->remote);
	if (log)
		return error_set(error, ERR_EXISTS, 0,
				 "%s: the log of a volume is there, without its descriptor; choose another prefix",
				 making->config->remote);
	return 0;
}

static int open_remote(struct making *making, struct error *error)
{
	int rc = config_check_remote(making->config->remote, error);

	if (!rc)
		rc = store_open(making->config, true, TRIES, &making->store, error);
	if (!rc)
		rc = setup_check_directory(making->config, error);
	if (!rc)
		rc = refuse_existing(making, error);
	if (rc || making->config->unsafe_single_writer)
		return rc;
	rc = store_probe_conditional_put(making->store, error);
	if (rc == ERR_UNSUPPORTED && error)
		error_set(error, rc, 0, "%s; if nothing else will ever write there: --unsafe-single-writer", error->message);
	return rc;
}

/* ---------------------------------------------------------------- keys */

/* A key file when the person named nothing. */
static int make_key_file(struct making *making, struct secret *secret, struct error *error)
{
	char *path = setup_key_path(making->config, error);
	int rc;

	if (!path)
		return error ? error->code : ERR_FAILED;
	rc = key_create_file(path, &secret->bytes, error);
	if (!rc) {
		secret->given = true;
		secret->kind = KEY_FILE;
		making->made_key_file = path;
		snprintf(making->out->key_file, sizeof(making->out->key_file), "%s", path);
		return setup_replace(&making->config->key_file, path, error);
	}
	free(path);
	return rc;
}

static int make_slots(struct making *making, const struct secret *secret, struct error *error)
{
	uint8_t recovery[20];
	int rc = setup_add_slot(&making->texts, making->master, secret->kind, secret->bytes.data, secret->bytes.length,
				error);

	if (rc)
		return rc;
	key_new_recovery(recovery, making->out->recovery_key);
	rc = setup_add_slot(&making->texts, making->master, KEY_RECOVERY, recovery, sizeof(recovery), error);
	crypt_wipe(recovery, sizeof(recovery));
	return rc;
}

static int make_keys(struct making *making, const struct unlock *unlock, struct error *error)
{
	struct volume_config *config = making->config;
	bool encrypted = !(unlock && unlock->unencrypted);
	struct secret secret = {0};
	int rc = 0;

	config->encryption = encrypted;
	descriptor_init(&making->descriptor, encrypted ? SUITE_AES256_GCM : SUITE_NONE);
	making->master = key_new_master(&making->descriptor);
	if (!making->master)
		return error_errno(error, ENOMEM, "keys");
	if (encrypted) {
		rc = secret_read(unlock, config, &secret, error);
		if (!rc && secret.given && secret.kind == KEY_RECOVERY)
			rc = error_set(error, ERR_USAGE, 0, "a new volume gets a recovery key of its own");
		if (!rc && !secret.given)
			rc = make_key_file(making, &secret, error);
		else if (!rc && secret.kind == KEY_PASSPHRASE && unlock && unlock->passphrase_file)
			rc = setup_remember_path(&config->passphrase_file, unlock->passphrase_file, error);
		else if (!rc && secret.kind == KEY_FILE && unlock && unlock->key_file)
			rc = setup_remember_path(&config->key_file, unlock->key_file, error);
		if (!rc)
			rc = make_slots(making, &secret, error);
		secret_wipe(&secret);
	}
	if (rc)
		return rc;
	rc = descriptor_write(&making->descriptor, making->master, &making->texts.descriptor);
	return rc ? error_set(error, rc, 0, "volume descriptor: %s", error_word(rc)) : 0;
}

/* ---------------------------------------------------------------- making it */

static int make_state(struct making *making, struct error *error)
{
	int rc = volume_create(making->config, &making->volume, error);

	making->made_state = rc != ERR_EXISTS; /* also a part of it */
	if (!rc)
		rc = setup_describe(volume_db(making->volume), &making->descriptor, &making->texts, error);
	return rc ? rc : volume_open_backing(making->volume, false, error);
}

static int put_slots(struct making *making, struct error *error)
{
	int rc = 0;

	while (!rc && making->slots_put < making->texts.count) {
		const struct volume_text *slot = &making->texts.slots[making->slots_put++];
		rc = setup_put_text(making->store, making->config, slot->key, &slot->bytes, error);
	}
	return rc;
}

static int put_volume(struct making *making, struct error *error)
{
	int rc = setup_put_text(making->store, making->config, VOLUME_KEY, &making->texts.descriptor, error);

	if (rc == ERR_EXISTS)
		return error_set(error, rc, 0, "%s: somebody else has just made a volume there", making->config->remote);
	making->put_volume = true; /* or perhaps */
	return rc;
}

/* Files and bytes in the directory now, for the person to read; and what the volume won't hold. */
static void count_files(struct making *making)
{
	char *paths[] = {making->config->directory, NULL};
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_XDEV | FTS_NOCHDIR, NULL);
	FTSENT *entry;
	dev_t device = 0;

	while (walk && (entry = fts_read(walk))) {
		if (entry->fts_level == 0 && entry->fts_info == FTS_D)
			device = entry->fts_statp->st_dev;
		else if (entry->fts_info == FTS_D && entry->fts_statp->st_dev != device)
			log_warn("%s: another filesystem is mounted here; the volume has an empty directory in its place",
				 entry->fts_path);
		if (entry->fts_info == FTS_F) {
			making->out->files++;
			making->out->bytes += (uint64_t)entry->fts_statp->st_size;
		}
	}
	if (walk)
		fts_close(walk);
}

static int make_all(struct making *making, const struct unlock *unlock, struct error *error)
{
	int rc = setup_check_name(making->config, error);

	if (!rc)
		rc = open_remote(making, error);
	if (!rc)
		rc = make_keys(making, unlock, error);
	if (!rc)
		rc = make_state(making, error);
	if (!rc)
		rc = put_slots(making, error);
	if (!rc) {
		rc = config_write(making->config, true, error);
		making->made_config = rc == 0;
	}
	return rc ? rc : put_volume(making, error);
}

/* The remote's part is best effort: slots without a volume are no volume. An unclear answer may have left
 * `volume` there; somebody else's stays. */
static void undo(struct making *making)
{
	if (making->put_volume && setup_is_ours(making->store, VOLUME_KEY, &making->texts.descriptor))
		store_delete(making->store, VOLUME_KEY, NULL);
	for (size_t i = 0; i < making->slots_put; i++)
		store_delete(making->store, making->texts.slots[i].key, NULL);
	if (making->made_config)
		unlink(making->config->file);
	if (making->made_state)
		setup_remove_state(making->config);
	if (making->made_key_file)
		unlink(making->made_key_file);
	crypt_wipe(making->out->recovery_key, sizeof(making->out->recovery_key));
	memset(making->out, 0, sizeof(*making->out));
}

int sync_init(struct volume_config *config, const struct unlock *unlock, struct init_result *out, struct error *error)
{
	struct making making = {.config = config, .out = out};
	struct error why = {0};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = make_all(&making, unlock, &why);
	volume_close(making.volume, false);
	if (rc && interrupt_asked())
		rc = error_set(&why, ERR_FAILED, EINTR, "%s: interrupted; no volume was made", config->directory);
	interrupt_forget();
	if (rc) {
		undo(&making);
		error_set(error, rc, why.sys_errno, "%s", why.message);
	} else {
		memcpy(out->volume_id, making.descriptor.volume_id, CRYPT_ID_BYTES);
		count_files(&making);
	}
	store_close(making.store);
	master_free(making.master);
	volume_texts_free(&making.texts);
	free(making.made_key_file);
	return rc;
}
