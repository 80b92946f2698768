#include "setup.h"

#include "bytes.h"
#include "io.h"
#include "log.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- checks */

/* A remote below the directory would record its own growth for ever. */
static int check_apart(const struct volume_config *config, struct error *error)
{
	char directory[PATH_MAX], remote[PATH_MAX];
	size_t length;

	if (strncmp(config->remote, "file://", 7) != 0 || !realpath(config->directory, directory) ||
	    !realpath(config->remote + 7, remote))
		return 0;
	length = strcmp(directory, "/") == 0 ? 0 : strlen(directory);
	if (strncmp(remote, directory, length) == 0 && (remote[length] == '/' || !remote[length]))
		return error_set(error, ERR_USAGE, 0, "remote %s: lies in %s itself; choose a place outside", config->remote,
				 config->directory);
	return 0;
}

int setup_check_directory(const struct volume_config *config, struct error *error)
{
	int fd = open(config->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	struct stat st;

	if (fd < 0)
		return error_errno(error, errno, "%s", config->directory);
	if (fstatat(fd, ".snapshots", &st, AT_SYMLINK_NOFOLLOW) == 0)
		rc = error_set(error, ERR_USAGE, 0,
			       "%s/.snapshots: is there already, and would hide the volume's history; rename it",
			       config->directory);
	else if (errno != ENOENT)
		rc = error_errno(error, errno, "%s/.snapshots", config->directory);
	close(fd);
	return rc ? rc : check_apart(config, error);
}

static int same_directory(void *context, struct volume_config *other)
{
	const struct volume_config *config = context;
	char a[PATH_MAX], b[PATH_MAX];

	return realpath(config->directory, a) && realpath(other->directory, b) && strcmp(a, b) == 0;
}

int setup_check_name(const struct volume_config *config, struct error *error)
{
	struct stat st;
	char *base, *path;
	int rc;

	if (config->file && lstat(config->file, &st) == 0)
		return error_set(error, ERR_EXISTS, 0, "%s: there is a volume of that name; choose another --name",
				 config->file);
	base = state_dir();
	path = base ? io_printf("%s/%s", base, config->name) : NULL;
	rc = !path ? error_errno(error, ENOMEM, "%s", config->name) : 0;
	if (!rc && lstat(path, &st) == 0)
		rc = error_set(error, ERR_EXISTS, 0,
			       "state directory %s: there is one already; choose another --name, or remove it if its volume is gone",
			       path);
	free(path);
	free(base);
	if (rc)
		return rc;
	rc = config_each(same_directory, (void *)config, error);
	return rc <= 0 ? rc : error_set(error, ERR_EXISTS, 0, "%s: is a volume already", config->directory);
}

/* ---------------------------------------------------------------- keys */

char *setup_key_path(const struct volume_config *config, struct error *error)
{
	char *dir = config_dir(), *path = NULL;

	if (!dir)
		error_errno(error, ENOMEM, "%s", config->name);
	else if (io_mkdirs(dir, error) == 0 && !(path = io_printf("%s/%s.key", dir, config->name)))
		error_errno(error, ENOMEM, "%s", config->name);
	free(dir);
	return path;
}

int setup_write_key_file(const char *path, const struct buf *secret, struct error *error)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), rc = 0;
	char text[2 * CRYPT_KEY_BYTES + 2];

	if (fd < 0)
		return error_errno(error, errno, "%s", path);
	hex_encode(text, secret->data, CRYPT_KEY_BYTES);
	text[2 * CRYPT_KEY_BYTES] = '\n';
	if (secret->length != CRYPT_KEY_BYTES)
		rc = error_set(error, ERR_FAILED, 0, "%s: a key has %d bytes", path, CRYPT_KEY_BYTES);
	else if (fchmod(fd, 0600) < 0 || io_write(fd, text, 2 * CRYPT_KEY_BYTES + 1) < 0 || fsync(fd) < 0)
		rc = error_errno(error, errno, "%s", path);
	crypt_wipe(text, sizeof(text));
	close(fd);
	if (rc)
		unlink(path);
	return rc;
}

int setup_replace(char **target, const char *text, struct error *error)
{
	char *copy = strdup(text);

	if (!copy)
		return error_errno(error, ENOMEM, "config");
	free(*target);
	*target = copy;
	return 0;
}

int setup_remember_path(char **target, const char *path, struct error *error)
{
	char absolute[PATH_MAX];
	struct stat st;

	if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && realpath(path, absolute))
		return setup_replace(target, absolute, error);
	free(*target);
	*target = NULL;
	return 0;
}

int setup_add_slot(struct volume_texts *texts, const struct master *master, enum key_kind kind, const void *secret,
		   size_t length, struct error *error)
{
	struct volume_text *grown = reallocarray(texts->slots, texts->count + 1, sizeof(*grown)), *slot;

	if (!grown)
		return error_errno(error, ENOMEM, "key slot");
	texts->slots = grown;
	slot = &grown[texts->count++];
	memset(slot, 0, sizeof(*slot));
	slot_key_new(slot->key);
	return key_slot_write(master, kind, secret, length, &slot->bytes, error);
}

/* ---------------------------------------------------------------- remote */

bool setup_is_ours(struct store *store, const char *key, const struct buf *text)
{
	struct buf there = {0};
	bool ours = store_get(store, key, 0, text->length, &there, NULL) == 0 && there.length == text->length &&
		    memcmp(there.data, text->data, text->length) == 0;

	buf_free(&there);
	return ours;
}

int setup_put_text(struct store *store, const struct volume_config *config, const char *key, const struct buf *text,
		   struct error *error)
{
	struct store_body body = {.data = text->data, .fd = -1, .length = text->length, .has_sha256 = true};
	int rc;

	sha256(body.sha256, text->data, text->length);
	rc = store_put_new(store, key, &body, NULL, error);
	if (rc == ERR_UNSUPPORTED && config->unsafe_single_writer)
		rc = store_put(store, key, &body, NULL, error);
	if ((rc == ERR_EXISTS || rc == ERR_RETRY) && setup_is_ours(store, key, text))
		return 0;
	return rc;
}

/* ---------------------------------------------------------------- local side */

static int describe(struct db_conn *conn, const struct volume_descriptor *descriptor, const struct volume_texts *texts,
		    struct error *error)
{
	uint8_t no_hash[SHA256_BYTES] = {0};
	int rc = db_meta_set_blob(conn, "volume_id", descriptor->volume_id, CRYPT_ID_BYTES, error);

	if (!rc)
		rc = db_meta_set_int(conn, "encrypted", descriptor->suite != SUITE_NONE, error);
	if (!rc)
		rc = db_meta_set_int(conn, "head", 0, error);
	if (!rc)
		rc = db_meta_set_int(conn, "confirmed", 0, error);
	if (!rc)
		rc = db_meta_set_blob(conn, "head_hash", no_hash, sizeof(no_hash), error);
	if (!rc)
		rc = volume_text_save(conn, VOLUME_KEY, texts->descriptor.data, texts->descriptor.length, error);
	for (size_t i = 0; i < texts->count && !rc; i++)
		if (texts->slots[i].bytes.length)
			rc = volume_text_save(conn, texts->slots[i].key, texts->slots[i].bytes.data,
					      texts->slots[i].bytes.length, error);
	return rc;
}

int setup_describe(struct db *db, const struct volume_descriptor *descriptor, const struct volume_texts *texts,
		   struct error *error)
{
	struct db_conn *conn;
	int rc = db_begin(db, true, &conn, error);

	if (rc)
		return rc;
	rc = describe(conn, descriptor, texts, error);
	if (!rc)
		return db_commit(db, error);
	db_rollback(db);
	return rc;
}

/* ---------------------------------------------------------------- removal */

void setup_remove_state(const struct volume_config *config)
{
	char *base = state_dir(), *path = base ? io_printf("%s/%s", base, config->name) : NULL;
	int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;

	if (fd >= 0) {
		if (tree_clear(fd) < 0 || rmdir(path) < 0)
			log_warn("%s: can't remove it: %s", path, strerror(errno));
		close(fd);
	}
	free(path);
	free(base);
}
