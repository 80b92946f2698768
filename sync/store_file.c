/* store_file: a store in a directory. Key a/b/c is the file a/b/c.
 *
 * An object appears whole or not at all: it is written as a temporary file in the root, made durable, and then linked
 * (create-if-absent, atomic) or renamed (replace). Names that begin with a dot are never keys, so temporary files are not
 * listed; each is locked with flock while its writer lives, and those that nobody locks are removed at open. */
#include "store_file_internal.h"

#include "clock.h"
#include "config.h"
#include "interrupt.h"
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define STALE_S 3600

bool store_file_cancelled(struct store_file *files)
{
	return __atomic_load_n(&files->cancelled, __ATOMIC_RELAXED) || interrupt_asked();
}

int store_file_check(struct store_file *files, struct error *error)
{
	struct stat st;

	if (store_file_cancelled(files))
		return error_set(error, ERR_ABANDONED, 0, "%s: cancelled", files->store.url);
	if (stat(files->root, &st) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return error_set(error, ERR_FAILED, errno,
					 "%s: the store directory is gone; bring it back (is its disk mounted?)", files->store.url);
		return store_file_errno(files, errno, "", error);
	}
	if (st.st_dev != files->device || st.st_ino != files->inode)
		return error_set(error, ERR_FAILED, 0,
				 "%s: the store directory is gone, and another one stands in its place; bring it back (is its disk "
				 "mounted?), then mount the volume again",
				 files->store.url);
	return 0;
}

int store_file_errno(struct store_file *files, int sys_errno, const char *key, struct error *error)
{
	const char *slash = *key ? "/" : "";
	int code;

	switch (sys_errno) {
	case ENOSPC:
	case EDQUOT:
		/* Not ERR_NOSPACE: that is about the disk that the user works on. */
		return error_set(error, ERR_RETRY, sys_errno, "%s%s%s: no space left in the store; make room there",
				 files->store.url, slash, key);
	case ETIMEDOUT:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case ENETDOWN:
	case ENETUNREACH:
	case ENOTCONN:
	case ECONNRESET:
	case EAGAIN:
	case EBUSY:
	case ESTALE:
	case EMFILE:
	case ENFILE:
		code = ERR_RETRY;
		break;
	case EROFS:
		code = ERR_DENIED;
		break;
	default:
		code = error_code_of_errno(sys_errno);
		/* What these two mean for a key is said by the callers; here they would be taken for an answer about it. */
		if (code == ERR_ABSENT || code == ERR_EXISTS)
			code = ERR_FAILED;
	}
	error_errno(error, sys_errno, "%s%s%s", files->store.url, slash, key);
	if (error)
		error->code = code;
	return code;
}

/* ---- directories */

/* Directory entries must be as durable as the files below them. Which directories this process has seen synced, so that a
 * PUT does not sync the same parents each time; one made anew is synced whatever stands here. */
static bool known_durable(struct store_file *files, const char *directory)
{
	bool found = false;

	pthread_mutex_lock(&files->lock);
	for (size_t i = 0; !found && i < files->durable_count; i++)
		found = strcmp(files->durable[i], directory) == 0;
	pthread_mutex_unlock(&files->lock);
	return found;
}

static void note_durable(struct store_file *files, const char *directory)
{
	char *copy = strdup(directory);

	pthread_mutex_lock(&files->lock);
	if (copy && files->durable_count < STORE_FILE_DURABLE_MAX) {
		files->durable[files->durable_count++] = copy; /* twice after a race: harmless */
		copy = NULL;
	}
	pthread_mutex_unlock(&files->lock);
	free(copy);
}

/* Makes one directory durable in its parent. 0 or -1 with errno. */
static int make_directory(struct store_file *files, int parent, const char *path, const char *name)
{
	bool made = mkdirat(parent, name, 0700) == 0;

	if (!made && errno != EEXIST)
		return -1;
	if (!made && known_durable(files, path))
		return 0;
	if (io_fsync_dir(parent) < 0)
		return -1;
	note_durable(files, path);
	return 0;
}

int store_file_directory(struct store_file *files, const char *key, bool create, const char **base)
{
	int at = fcntl(files->root_fd, F_DUPFD_CLOEXEC, 0);
	char path[STORE_FILE_KEY_MAX];
	const char *slash;

	*base = key;
	while (at >= 0 && (slash = strchr(*base, '/'))) {
		char name[STORE_FILE_KEY_MAX];
		int next = -1, saved;

		snprintf(name, sizeof name, "%.*s", (int)(slash - *base), *base);
		snprintf(path, sizeof path, "%.*s", (int)(slash - key), key);
		if (!create || make_directory(files, at, path, name) == 0)
			next = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		saved = errno;
		close(at);
		errno = saved;
		at = next;
		*base = slash + 1;
	}
	return at;
}

/* ---- get, delete */

static int file_get(struct store *store, const char *key, uint64_t offset, uint64_t length, struct buf *out,
		    struct error *error)
{
	struct store_file *files = (struct store_file *)store;
	const char *base;
	struct stat st;
	ssize_t n;
	int fd = -1, directory, rc = store_file_check(files, error);

	if (rc < 0)
		return rc;
	store_count(&store->counts.get, 1);
	directory = store_file_directory(files, key, false, &base);
	if (directory >= 0)
		fd = openat(directory, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			rc = error_set(error, ERR_ABSENT, errno, "%s/%s: no such object", store->url, key);
		else
			rc = store_file_errno(files, errno, key, error);
		goto out;
	}
	if (fstat(fd, &st) < 0) {
		rc = store_file_errno(files, errno, key, error);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = error_set(error, ERR_ABSENT, 0, "%s/%s: no such object: not a regular file", store->url, key);
		goto out;
	}
	if (length == STORE_WHOLE && offset <= (uint64_t)st.st_size)
		length = (uint64_t)st.st_size - offset;
	if (length == 0 && offset == 0)
		goto out;
	if (offset >= (uint64_t)st.st_size || length > (uint64_t)st.st_size - offset) {
		rc = error_set(error, ERR_CORRUPT, 0, "%s/%s: the object has only %lld bytes", store->url, key,
			       (long long)st.st_size);
		goto out;
	}
	if (length > STORE_GET_MAX) {
		rc = error_set(error, ERR_FAILED, 0, "%s/%s: the object is too large", store->url, key);
		goto out;
	}
	rc = buf_reserve(out, length);
	if (rc < 0) {
		rc = error_set(error, rc, ENOMEM, "%s/%s: out of memory", store->url, key);
		goto out;
	}
	n = io_pread(fd, out->data + out->length, length, (int64_t)offset);
	if (n < 0) {
		rc = store_file_errno(files, errno, key, error);
	} else if ((uint64_t)n < length) {
		rc = error_set(error, ERR_RETRY, 0, "%s/%s: the file shrank while it was read", store->url, key);
	} else {
		out->length += length;
		store_count(&store->counts.bytes_down, length);
	}
out:
	if (fd >= 0)
		close(fd);
	if (directory >= 0)
		close(directory);
	return rc;
}

static int file_delete(struct store *store, const char *key, struct error *error)
{
	struct store_file *files = (struct store_file *)store;
	const char *base;
	int directory, rc = store_file_check(files, error);

	if (rc < 0)
		return rc;
	store_count(&store->counts.delete_, 1);
	directory = store_file_directory(files, key, false, &base);
	/* Not synced: an object that comes back after a power cut is an orphan like any other, found by the next listing. */
	if ((directory < 0 || unlinkat(directory, base, 0) < 0) && errno != ENOENT && errno != ENOTDIR)
		rc = store_file_errno(files, errno, key, error);
	if (directory >= 0)
		close(directory);
	return rc;
}

/* ---- open, close */

/* Removes temporary files whose writer is dead: older than an hour by the clock, and not locked. */
static void remove_stale(struct store_file *files)
{
	int64_t now_s = clock_wall_ns() / NS_PER_S;
	int at = openat(files->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = at < 0 ? NULL : fdopendir(at);
	struct dirent *entry;

	if (!dir) {
		if (at >= 0)
			close(at);
		return;
	}
	while ((entry = readdir(dir))) {
		struct stat st;
		int fd;

		if (strncmp(entry->d_name, STORE_FILE_TEMPORARY, strlen(STORE_FILE_TEMPORARY)) != 0)
			continue;
		fd = openat(files->root_fd, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_mtime < now_s - STALE_S &&
		    (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK))
			unlinkat(files->root_fd, entry->d_name, 0);
		close(fd);
	}
	closedir(dir);
}

static void file_cancel(struct store *store)
{
	__atomic_store_n(&((struct store_file *)store)->cancelled, true, __ATOMIC_RELAXED);
}

static void file_close(struct store *store)
{
	struct store_file *files = (struct store_file *)store;

	if (files->root_fd >= 0)
		close(files->root_fd);
	for (size_t i = 0; i < files->durable_count; i++)
		free(files->durable[i]);
	pthread_mutex_destroy(&files->lock);
	free(files->root);
	free(files);
}

static const struct store_ops file_ops = {
	.get = file_get,
	.put = store_file_put,
	.list = store_file_list,
	.delete_ = file_delete,
	.cancel = file_cancel,
	.close = file_close,
};

static int make_root(struct store_file *files, struct error *error)
{
	const char *slash = strrchr(files->root, '/');
	char *parent;
	int fd;

	if (mkdir(files->root, 0700) < 0) {
		if (errno == EEXIST)
			return 0;
		if (errno == ENOENT)
			return error_set(error, ERR_ABSENT, ENOENT,
					 "%s: the directory above it does not exist; create it (is its disk mounted?)",
					 files->store.url);
		return error_errno(error, errno, "%s: cannot make the store directory", files->store.url);
	}
	parent = slash == files->root ? strdup("/") : strndup(files->root, (size_t)(slash - files->root));
	fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	free(parent);
	if (fd < 0 || io_fsync_dir(fd) < 0) {
		int saved = errno;

		if (fd >= 0)
			close(fd);
		return error_errno(error, saved, "%s: cannot make the store directory durably", files->store.url);
	}
	close(fd);
	return 0;
}

static int open_root(struct store_file *files, struct error *error)
{
	struct stat st;

	files->root_fd = open(files->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (files->root_fd < 0 && errno == ENOENT)
		return error_set(error, ERR_ABSENT, ENOENT, "%s: there is no such directory (is its disk mounted?)",
				 files->store.url);
	if (files->root_fd < 0 || fstat(files->root_fd, &st) < 0)
		return error_errno(error, errno, "%s: cannot open the store directory", files->store.url);
	files->device = st.st_dev;
	files->inode = st.st_ino;
	return 0;
}

int store_file_open(const struct volume_config *config, bool create, struct store **out, struct error *error)
{
	const char *path = config->remote + strlen("file://");
	struct store_file *files;
	size_t length;
	int rc = 0;

	if (path[0] != '/')
		return error_set(error, ERR_USAGE, 0, "remote %s: the path must be absolute; write file:///PATH", config->remote);
	files = calloc(1, sizeof *files);
	if (!files)
		return error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", config->remote);
	files->store.ops = &file_ops;
	files->root_fd = -1;
	pthread_mutex_init(&files->lock, NULL);
	snprintf(files->store.url, sizeof files->store.url, "%s", config->remote);
	files->root = strdup(path);
	if (!files->root) {
		rc = error_set(error, ERR_NOMEM, ENOMEM, "%s: out of memory", config->remote);
		goto out;
	}
	for (length = strlen(files->root); length > 1 && files->root[length - 1] == '/'; length--)
		files->root[length - 1] = '\0';
	if (create)
		rc = make_root(files, error);
	if (rc == 0)
		rc = open_root(files, error);
	if (rc == 0)
		remove_stale(files);
out:
	if (rc == 0)
		*out = &files->store;
	else
		file_close(&files->store);
	return rc;
}
