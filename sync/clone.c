/* `yester clone` (verbs.h; PROTOCOL "Clone"). */
#include "verbs.h"

#include "catalogue.h"
#include "extract.h"
#include "fetch.h"
#include "interrupt.h"
#include "log.h"
#include "recover.h"
#include "setup.h"
#include "tree.h"
#include "when.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 8 /* attempts per request */
#define JOBS 8

struct cloning {
	struct volume_config *config;
	struct clone_result *out;
	progress_fn *progress;
	void *context;
	struct store *store;
	struct volume_descriptor descriptor;
	struct master *master;
	struct volume_texts texts;
	struct volume *volume;
	struct remote *remote;
	struct recover_head head;
	struct version_row version;
	char *made_key_file; /* NULL: none was made */
	const struct volume_text *new_slot; /* for it; NULL: it has one */
	bool made_directory, made_state, made_config, extracting, put_slot;
};

/* ---------------------------------------------------------------- before anything is made */

/* Absent (*absent) or empty. */
static int check_empty(const char *path, bool *absent, struct error *error)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int rc = 0;

	*absent = !dir && errno == ENOENT;
	if (*absent)
		return 0;
	if (!dir)
		return error_errno(error, errno, "%s", path);
	while (!rc && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = error_set(error, ERR_EXISTS, 0, "%s: not empty; clone into a new or an empty directory", path);
	closedir(dir);
	return rc;
}

/* Nothing is written, here or there, before the secret has proven right (fault 45). */
static int unlock_remote(struct cloning *cloning, const struct secret *secret, struct error *error)
{
	int rc = config_check_remote(cloning->config->remote, error);

	if (!rc)
		rc = store_open(cloning->config, false, TRIES, &cloning->store, error);
	if (!rc)
		rc = volume_texts_fetch(cloning->store, &cloning->texts, error);
	if (!rc)
		rc = volume_texts_unlock(&cloning->texts, secret, cloning->store->url, &cloning->descriptor,
					 &cloning->master, error);
	return rc;
}

/* ---------------------------------------------------------------- the key for later mounts */

static int copy_key_file(struct cloning *cloning, const struct secret *secret, const char *from, struct error *error)
{
	char *path = setup_key_path(cloning->config, error), a[PATH_MAX], b[PATH_MAX];
	int rc;

	if (!path)
		return error ? error->code : ERR_FAILED;
	rc = setup_replace(&cloning->config->key_file, path, error);
	if (rc || (from && realpath(from, a) && realpath(path, b) && strcmp(a, b) == 0)) {
		free(path); /* it is in its place already */
		return rc;
	}
	rc = setup_write_key_file(path, &secret->bytes, error);
	if (rc)
		free(path);
	else
		cloning->made_key_file = path;
	return rc;
}

/* The recovery key stays on paper: this machine gets a key file of its own. */
static int make_key_file(struct cloning *cloning, struct error *error)
{
	char *path;
	struct buf secret = {0};
	int rc = descriptor_writable(&cloning->descriptor, error);

	if (rc)
		return rc;
	path = setup_key_path(cloning->config, error);
	if (!path)
		return error ? error->code : ERR_FAILED;
	rc = key_create_file(path, &secret, error);
	if (rc) {
		free(path);
		return rc;
	}
	cloning->made_key_file = path;
	rc = setup_add_slot(&cloning->texts, cloning->master, KEY_FILE, secret.data, secret.length, error);
	buf_wipe(&secret);
	if (rc)
		return rc;
	cloning->new_slot = &cloning->texts.slots[cloning->texts.count - 1];
	return setup_replace(&cloning->config->key_file, path, error);
}

static int keep_key(struct cloning *cloning, const struct unlock *unlock, const struct secret *secret,
		    struct error *error)
{
	struct volume_config *config = cloning->config;
	const char *passphrase = unlock && unlock->passphrase_file ? unlock->passphrase_file : config->passphrase_file;
	const char *file = unlock && unlock->key_file ? unlock->key_file : config->key_file;

	config->encryption = cloning->descriptor.suite != SUITE_NONE;
	if (!config->encryption)
		return 0;
	if (secret->kind == KEY_PASSPHRASE)
		return setup_remember_path(&config->passphrase_file, passphrase, error);
	return secret->kind == KEY_FILE ? copy_key_file(cloning, secret, file, error) : make_key_file(cloning, error);
}

/* ---------------------------------------------------------------- catalogue */

static int make_state(struct cloning *cloning, bool absent, struct error *error)
{
	int rc;

	if (absent && mkdir(cloning->config->directory, 0700) < 0)
		return error_errno(error, errno, "%s", cloning->config->directory);
	cloning->made_directory = absent;
	rc = setup_check_directory(cloning->config, error);
	if (rc)
		return rc;
	rc = volume_create(cloning->config, &cloning->volume, error);
	cloning->made_state = rc != ERR_EXISTS; /* also a part of it */
	if (!rc)
		rc = setup_describe(volume_db(cloning->volume), &cloning->descriptor, &cloning->texts, error);
	if (!rc)
		rc = recover_catalogue(cloning->store, cloning->master, volume_db(cloning->volume),
				       volume_state_path(cloning->volume), cloning->progress, cloning->context,
				       &cloning->head, error);
	if (!rc && cloning->head.empty)
		rc = error_set(error, ERR_ABSENT, 0, "%s: the volume has no version yet; there is nothing to recover",
			       cloning->store->url);
	return rc;
}

static int take_time(void *context, const struct version_row *row)
{
	int64_t *time_s = context;

	*time_s = row->time_s;
	return 1;
}

static int no_version(const struct cloning *cloning, int64_t first_s, struct error *error)
{
	char name[WHEN_NAME_BYTES] = "";

	if (first_s < 0)
		return error_set(error, ERR_ABSENT, 0, "%s: the first upload is not complete; without --at, the part that is there is recovered",
				 cloning->store->url);
	when_name(name, first_s);
	return error_set(error, ERR_ABSENT, 0, "%s: the history begins later, at %s; choose a --at from then on, or leave it out",
			 cloning->store->url, name);
}

static int choose_version(struct cloning *cloning, int64_t at_s, struct error *error)
{
	struct db_conn *conn;
	int64_t first_s = -1;
	int rc = db_read_begin(volume_db(cloning->volume), &conn, error);

	if (rc)
		return rc;
	rc = at_s < 0 ? catalogue_version_newest(conn, false, &cloning->version) :
			catalogue_version_at(conn, at_s, &cloning->version);
	/* An import that never came to its end: better a part than nothing. */
	if (rc == ERR_ABSENT && at_s < 0)
		rc = catalogue_version_newest(conn, true, &cloning->version);
	if (rc == ERR_ABSENT)
		catalogue_version_each(conn, 0, take_time, &first_s);
	db_read_end(volume_db(cloning->volume), conn);
	if (rc == ERR_ABSENT)
		return no_version(cloning, first_s, error);
	return rc ? error_set(error, rc, 0, "catalogue: can't look up versions") : 0;
}

/* ---------------------------------------------------------------- tree */

/* When the machine has burned down, nine files are better than none of ten. */
static void on_damaged(void *context, const char *path, const struct error *why)
{
	const struct cloning *cloning = context;

	log_error("%s/%s: left out: %s", cloning->config->directory, path, why->message);
}

static void on_progress(void *context, const char *what, uint64_t done, uint64_t total, const char *unit)
{
	const struct cloning *cloning = context;

	if (cloning->progress)
		cloning->progress(cloning->context, what, done, total, unit);
}

static int write_tree(struct cloning *cloning, struct error *error)
{
	struct volume *volume = cloning->volume;
	/* Of an older version nothing may count as captured in the head: the first mount's rescan compares. */
	struct extract_options options = {.record_local = cloning->version.seq == cloning->head.seq, .jobs = JOBS,
					  .stop = interrupt_flag(), .progress = on_progress, .context = cloning, .damaged = on_damaged};
	struct extract_result result = {0};
	int rc = volume_open_backing(volume, false, error);

	if (rc)
		return rc;
	rc = fetch_new(cloning->master, cloning->store, -1, &cloning->remote);
	if (rc)
		return error_errno(error, ENOMEM, "clone");
	volume_set_remote(volume, cloning->remote);
	cloning->extracting = true;
	rc = extract_tree(volume, cloning->version.seq, CATALOGUE_ROOT_INO, backing_root_fd(volume_backing(volume)), "",
			  &options, &result, error);
	if (rc)
		return rc;
	/* Before anything is called captured (I8, I10): after a power cut stat alone would prove nothing. */
	rc = backing_syncfs(volume_backing(volume));
	if (rc)
		return error_errno(error, -rc, "%s: bringing the tree to the disk", cloning->config->directory);
	cloning->out->version = cloning->version.seq;
	cloning->out->time_s = cloning->version.time_s;
	cloning->out->partial = (cloning->version.flags & VERSION_PARTIAL) != 0;
	cloning->out->lacking = (cloning->version.flags & VERSION_LACKING) != 0;
	cloning->out->inodes = result.inodes;
	cloning->out->bytes = result.bytes;
	cloning->out->skipped = result.skipped;
	cloning->out->damaged = result.damaged;
	return 0;
}

/* The tree is what local_inode says, so the next mount's rescan finds nothing; and it is a take-over. */
static int set_marks(struct cloning *cloning, struct error *error)
{
	struct db *db = volume_db(cloning->volume);
	struct db_conn *conn;
	uint8_t boot_id[16];
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	backing_boot_id(boot_id);
	rc = db_meta_set_int(conn, "must_take_over", 1, error);
	if (!rc)
		rc = db_meta_set_int(conn, "clean", 1, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "boot_id", boot_id, sizeof(boot_id), error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

static int finish(struct cloning *cloning, struct error *error)
{
	int rc = set_marks(cloning, error);

	if (!rc && cloning->new_slot) {
		cloning->put_slot = true; /* or perhaps */
		rc = setup_put_text(cloning->store, cloning->config, cloning->new_slot->key, &cloning->new_slot->bytes,
				    error);
	}
	if (rc)
		return rc;
	rc = config_write(cloning->config, true, error); /* last: without it there is no volume */
	cloning->made_config = rc == 0;
	return rc;
}

/* ---------------------------------------------------------------- all of it */

static int clone_all(struct cloning *cloning, const struct unlock *unlock, int64_t at_s, struct error *error)
{
	struct secret secret = {0};
	bool absent = false;
	int rc = setup_check_name(cloning->config, error);

	if (!rc)
		rc = check_empty(cloning->config->directory, &absent, error);
	if (!rc)
		rc = secret_read(unlock, cloning->config, &secret, error);
	if (!rc)
		rc = unlock_remote(cloning, &secret, error);
	if (!rc)
		rc = keep_key(cloning, unlock, &secret, error);
	secret_wipe(&secret);
	if (!rc)
		rc = make_state(cloning, absent, error);
	if (!rc)
		rc = choose_version(cloning, at_s, error);
	if (!rc)
		rc = write_tree(cloning, error);
	return rc ? rc : finish(cloning, error);
}

/* The directory was empty: what is in it is ours. */
static void undo_directory(const struct cloning *cloning)
{
	const char *path = cloning->config->directory;
	int fd = cloning->extracting ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		if (tree_clear(fd) < 0)
			log_warn("%s: can't remove what the clone wrote: %s", path, strerror(errno));
		close(fd);
	}
	if (cloning->made_directory && rmdir(path) < 0)
		log_warn("%s: can't remove it: %s", path, strerror(errno));
}

static void undo(const struct cloning *cloning)
{
	undo_directory(cloning);
	if (cloning->put_slot)
		store_delete(cloning->store, cloning->new_slot->key, NULL);
	if (cloning->made_config)
		unlink(cloning->config->file);
	if (cloning->made_state)
		setup_remove_state(cloning->config);
	if (cloning->made_key_file)
		unlink(cloning->made_key_file);
}

int sync_clone(struct volume_config *config, const struct unlock *unlock, int64_t at_s, progress_fn *progress,
	       void *context, struct clone_result *out, struct error *error)
{
	struct cloning cloning = {.config = config, .out = out, .progress = progress, .context = context};
	struct error why = {0};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = clone_all(&cloning, unlock, at_s, &why);
	if (cloning.volume)
		volume_set_remote(cloning.volume, NULL);
	volume_close(cloning.volume, false);
	fetch_free(cloning.remote);
	if (rc && interrupt_asked())
		rc = error_set(&why, ERR_FAILED, EINTR, "%s: interrupted; nothing of the clone stays behind", config->directory);
	interrupt_forget();
	if (rc) {
		undo(&cloning);
		error_set(error, rc, why.sys_errno, "%s", why.message);
	}
	store_close(cloning.store);
	master_free(cloning.master);
	volume_texts_free(&cloning.texts);
	free(cloning.made_key_file);
	return rc;
}
