/* `yester check` (verbs.h): order of things, and the log. check_internal.h says what the other parts do. */
#include "verbs.h"

#include "check_internal.h"
#include "db_internal.h"
#include "interrupt.h"
#include "io.h"
#include "setup.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIES 8 /* attempts per request */

/* ---------------------------------------------------------------- what it works on */

/* The catalogue holds names in the clear: a directory of its own, removed at the end. */
static int make_work(struct checking *checking, struct error *error)
{
	const char *base = getenv("TMPDIR");
	struct db_conn *conn;
	int rc;

	checking->dir = io_printf("%s/yester-check-XXXXXX", base && base[0] == '/' ? base : "/var/tmp");
	if (!checking->dir)
		return error_errno(error, ENOMEM, "check");
	if (!mkdtemp(checking->dir)) {
		rc = error_errno(error, errno, "%s", checking->dir);
		free(checking->dir);
		checking->dir = NULL;
		return rc;
	}
	rc = db_open(checking->dir, true, &checking->work, error);
	if (!rc)
		rc = db_begin(checking->work, false, &conn, error);
	if (rc)
		return rc;
	rc = db_exec(conn,
		     "CREATE TABLE check_object(key TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID; "
		     "CREATE TABLE check_chunk(chunk INTEGER PRIMARY KEY, damage INTEGER NOT NULL) STRICT; "
		     "CREATE TABLE check_file(damage INTEGER NOT NULL, ino INTEGER NOT NULL, first INTEGER NOT NULL, "
		     "last INTEGER NOT NULL, PRIMARY KEY(damage, ino)) STRICT, WITHOUT ROWID",
		     error);
	if (!rc)
		return db_commit(checking->work, error);
	db_rollback(checking->work);
	return rc;
}

static void remove_work(struct checking *checking)
{
	int fd;

	db_close(checking->work);
	if (!checking->dir)
		return;
	fd = open(checking->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		tree_clear(fd);
		close(fd);
	}
	rmdir(checking->dir);
	free(checking->dir);
}

/* What this machine knows, if it knows anything. A damaged database is damage, not an end of the check. */
static int open_local(struct checking *checking, int64_t *confirmed, struct error *error)
{
	struct error why = {0};
	struct db_conn *conn;
	int rc;

	*confirmed = 0;
	if (!checking->config->directory)
		return 0;
	rc = volume_open_reader(checking->config, &checking->local, &why);
	if (rc == ERR_ABSENT)
		return 0;
	if (rc == ERR_CORRUPT)
		return damage_add(checking, "local database", why.message, 0, NULL, 0, error);
	if (rc)
		return error_set(error, rc, why.sys_errno, "%s", why.message);
	rc = db_read_begin(volume_db(checking->local), &conn, error);
	if (rc)
		return rc;
	*confirmed = db_meta_int(conn, "confirmed", 0);
	db_read_end(volume_db(checking->local), conn);
	return 0;
}

/* ---------------------------------------------------------------- keys */

/* The copies of descriptor and slots that init or clone left in the local database. */
static int load_local_texts(struct checking *checking, struct volume_texts *texts, struct error *error)
{
	struct db_conn *conn;
	int rc = db_read_begin(volume_db(checking->local), &conn, error);

	if (rc)
		return rc;
	rc = volume_texts_load(conn, texts, error);
	db_read_end(volume_db(checking->local), conn);
	return rc;
}

/* The remote's descriptor is that of this volume. */
static int compare_identity(struct checking *checking, const struct volume_descriptor *descriptor, struct error *error)
{
	uint8_t id[CRYPT_ID_BYTES];
	struct db_conn *conn;
	bool encrypted, known;
	int rc = db_read_begin(volume_db(checking->local), &conn, error);

	if (rc)
		return rc;
	known = db_meta_blob(conn, "volume_id", id, sizeof(id)) == 0;
	encrypted = db_meta_int(conn, "encrypted", 0) == 1;
	db_read_end(volume_db(checking->local), conn);
	if (known && memcmp(id, descriptor->volume_id, sizeof(id)) != 0)
		return error_set(error, ERR_CORRUPT, 0, "%s: holds another volume", checking->store->url);
	if (encrypted && descriptor->suite == SUITE_NONE)
		return error_set(error, ERR_CORRUPT, 0, "%s: says that the volume is not encrypted, and it is",
				 checking->store->url);
	return 0;
}

static int on_any(void *context, const struct store_object *object)
{
	(void)object;
	*(bool *)context = true;
	return 1;
}

/* Nothing at all is another thing than damage here and there, and each missing object by its name helps nobody. 0: there is something. */
static int refuse_empty(struct checking *checking, struct error *error)
{
	const char *url = checking->store->url;
	bool found = false;
	int rc = store_list(checking->store, "", NULL, on_any, &found, error);

	if (found)
		return 0;
	if (rc)
		return rc;
	return error_set(error, ERR_CORRUPT, 0, strncmp(url, "file://", 7) == 0 ?
			 "%s: it is empty, and a volume of this machine should be there; is its disk mounted? If it is, bring the files back" :
			 "%s: it is empty, and a volume of this machine should be there; correct `remote` in %s, or bring the objects back",
			 url, checking->config->file);
}

static int unlock_remote(struct checking *checking, const struct secret *secret, struct error *error)
{
	struct volume_texts texts = {0};
	struct volume_descriptor *descriptor = &checking->descriptor;
	struct error why = {0};
	bool helps; /* what this machine knows */
	int empty, rc = volume_texts_fetch(checking->store, &texts, &why);

	if (!rc)
		rc = volume_texts_unlock(&texts, secret, checking->store->url, descriptor, &checking->master, &why);
	if (!rc && checking->local)
		rc = compare_identity(checking, descriptor, &why);
	helps = checking->local && (rc == ERR_ABSENT || (rc == ERR_CORRUPT && !checking->master));
	empty = helps && rc == ERR_ABSENT ? refuse_empty(checking, &why) : 0;
	/* Without the descriptor nobody else could read the volume; we can. */
	if (empty) {
		rc = empty;
	} else if (helps) {
		rc = damage_add(checking, VOLUME_KEY, rc == ERR_ABSENT ? "it is not in the remote" : "it is not the volume's descriptor",
				0, NULL, 0, &why);
		volume_texts_free(&texts);
		if (!rc)
			rc = load_local_texts(checking, &texts, &why);
		if (!rc)
			rc = volume_texts_unlock(&texts, secret, checking->config->name, descriptor, &checking->master, &why);
	}
	volume_texts_free(&texts);
	return rc ? error_set(error, rc, why.sys_errno, "%s", why.message) : 0;
}

static int unlock_volume(struct checking *checking, const struct unlock *unlock, struct error *error)
{
	struct secret secret;
	int rc = config_check_remote(checking->config->remote, error);

	if (!rc)
		rc = store_open(checking->config, false, TRIES, &checking->store, error);
	if (!rc)
		rc = secret_read(unlock, checking->config, &secret, error);
	if (rc)
		return rc;
	rc = unlock_remote(checking, &secret, error);
	secret_wipe(&secret);
	return rc;
}

/* ---------------------------------------------------------------- log */

/* "log/0000000000000004: it does not follow ..." into object and reason. */
static int add_log_damage(struct checking *checking, const char *message, struct error *error)
{
	const char *colon = strchr(message, ':');
	char object[RECORD_KEY_BYTES] = "log";

	if (colon && (size_t)(colon - message) < sizeof(object) &&
	    (strncmp(message, "log/", 4) == 0 || strncmp(message, "checkpoint/", 11) == 0)) {
		snprintf(object, sizeof(object), "%.*s", (int)(colon - message), message);
		message = colon + strspn(colon, ": ");
	}
	return damage_add(checking, object, message, 0, NULL, 0, error);
}

static int add_intruder(struct checking *checking, struct error *error)
{
	char key[RECORD_KEY_BYTES];

	record_key(key, checking->head.intruder);
	return damage_add(checking, key, "by another writer than the record before it, and no take-over (I17)", 0, NULL, 0, error);
}

/* Rebuilding the catalogue is what verifies the chain. Where the log is damaged, what this machine knows says which packs there must be, else
 * what the log says up to the damage. */
static int check_log(struct checking *checking, struct error *error)
{
	struct error why = {0};
	int rc = recover_catalogue(checking->store, checking->master, checking->work, checking->dir, checking->progress,
				   checking->context, &checking->head, &why);

	checking->catalogue = checking->work;
	if (!rc) {
		checking->out->records = (uint64_t)(checking->head.seq - checking->head.base.seq);
		return checking->head.intruder ? add_intruder(checking, error) : 0;
	}
	if (rc != ERR_CORRUPT)
		return error_set(error, rc, why.sys_errno, "%s", why.message);
	if (checking->local)
		checking->catalogue = volume_db(checking->local);
	return add_log_damage(checking, why.message, error);
}

static int check_all(struct checking *checking, const struct unlock *unlock, struct error *error)
{
	int64_t confirmed;
	int rc = make_work(checking, error);

	if (!rc)
		rc = open_local(checking, &confirmed, error);
	if (!rc)
		rc = unlock_volume(checking, unlock, error);
	if (!rc)
		rc = check_log(checking, error);
	if (!rc && checking->local && checking->catalogue == checking->work)
		rc = check_local(checking, confirmed, error);
	if (!rc)
		rc = check_packs(checking, error);
	if (!rc)
		rc = damage_report(checking, error);
	if (!rc && checking->damage_count)
		rc = error_set(error, ERR_CORRUPT, 0, "%s: damage found: %llu objects, %llu files", checking->config->remote,
			       (unsigned long long)checking->out->damaged_objects,
			       (unsigned long long)checking->out->damaged_files);
	return rc;
}

int sync_check(const struct volume_config *config, const struct unlock *unlock, int percent, progress_fn *progress,
	       void (*report)(void *context, const char *line), void *context, struct check_result *out,
	       struct error *error)
{
	struct checking checking = {.config = config, .percent = percent, .progress = progress, .report = report,
				    .context = context, .out = out, .lock = PTHREAD_MUTEX_INITIALIZER};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = check_all(&checking, unlock, error);
	if (rc && interrupt_asked())
		rc = error_set(error, ERR_FAILED, EINTR, "%s: interrupted; what was not looked at may be damaged", config->remote);
	damage_free(&checking);
	volume_close(checking.local, false);
	remove_work(&checking);
	master_free(checking.master);
	store_close(checking.store);
	pthread_mutex_destroy(&checking.lock);
	return rc;
}
