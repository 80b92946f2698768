#include "backing.h"

#include "backing_internal.h"
#include "bytes.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#define FD_CACHE_MAX 4096

int backing_root_fd(const struct backing *backing)
{
	return backing->root_fd;
}

bool backing_has_handles(const struct backing *backing)
{
	return backing->handles;
}

size_t backing_identity(const struct backing *backing, uint8_t out[BACKING_IDENTITY_BYTES])
{
	memcpy(out, backing->identity, backing->identity_length);
	return backing->identity_length;
}

/* The directory beneath an automount trigger, through a private clone of the mount that it lies on. O_PATH or -1. */
static int open_beneath(struct backing *backing, const char *directory)
{
	char *path = realpath(directory, NULL), *copy = path ? strdup(path) : NULL;
	int fd = -1, saved;

	if (copy)
		backing->tree_fd = open_tree(AT_FDCWD, dirname(copy), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (backing->tree_fd >= 0)
		fd = openat(backing->tree_fd, basename(path), O_PATH | O_NOFOLLOW | O_CLOEXEC);
	saved = errno;
	free(copy);
	free(path);
	errno = saved;
	return fd;
}

static int open_directory(const char *directory, struct backing *backing, struct error *error)
{
	struct statfs fs;
	struct stat st;
	int from, saved, fd = open(directory, O_PATH | O_CLOEXEC);

	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == AUTOFS_SUPER_MAGIC) {
		close(fd);
		fd = open_beneath(backing, directory);
	}
	if (fd < 0)
		return error_errno(error, errno, "cannot open the directory %s", directory);
	/* Only root may clone; without, submounts show. */
	from = fd;
	if (backing->tree_fd < 0) {
		backing->tree_fd = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (backing->tree_fd >= 0)
			from = backing->tree_fd;
	}
	if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
		errno = ENOTDIR;
	else
		backing->root_fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	saved = errno;
	close(fd);
	if (backing->root_fd < 0)
		return error_errno(error, saved, "cannot open the directory %s", directory);
	if (fstat(backing->root_fd, &st) < 0)
		return error_errno(error, errno, "cannot open the directory %s", directory);
	backing->root_dev = st.st_dev;
	return 0;
}

/* Tries what the handles are for. */
static void probe_handles(struct backing *backing)
{
	int fd, mount_id;
	uint64_t id = 0;
	int64_t btime_ns;
	struct stat st, again;

	if (handle_of_fd(backing->root_fd, &backing->root_key, &mount_id) == 0) {
		backing->root_mount_id = mount_id;
		fd = open_by_key(backing->root_fd, &backing->root_key, O_PATH);
		if (fd >= 0) {
			backing->handles = fstat(fd, &again) == 0 && fstat(backing->root_fd, &st) == 0 &&
					   again.st_ino == st.st_ino && again.st_dev == st.st_dev;
			close(fd);
		}
	} else if (stat_of_fd(backing->root_fd, &st, &btime_ns, &id) == 0) {
		backing->root_mount_id = (int)id;
	}
}

static int make_identity(struct backing *backing)
{
	struct node_key key;
	struct stat st;
	size_t length = filesystem_id(backing->root_fd, backing->identity);
	int id, rc = 0;

	/* Reading a handle needs no right, so root and user see the same identity. */
	if (handle_of_fd(backing->root_fd, &key, &id) < 0)
		rc = identify_fd(backing, backing->root_fd, &key, &st);
	if (rc < 0)
		return rc;
	memcpy(backing->identity + length, key.bytes, key.length);
	backing->identity_length = length + key.length;
	return identify_fd(backing, backing->root_fd, &backing->root_key, &st);
}

int backing_open(const char *directory, struct backing **out, struct error *error)
{
	struct backing *backing = calloc(1, sizeof *backing);
	struct rlimit limit = { 0 };
	size_t capacity;
	int rc;

	*out = NULL;
	if (!backing)
		return error_errno(error, ENOMEM, "cannot open the directory %s", directory);
	backing->tree_fd = backing->root_fd = -1;
	getrlimit(RLIMIT_NOFILE, &limit);
	capacity = limit.rlim_cur / 4 < FD_CACHE_MAX ? limit.rlim_cur / 4 : FD_CACHE_MAX;
	backing->fds = fd_cache_new(capacity);
	if (!backing->fds) {
		rc = error_errno(error, ENOMEM, "cannot open the directory %s", directory);
		goto fail;
	}
	rc = open_directory(directory, backing, error);
	if (rc < 0)
		goto fail;
	probe_handles(backing);
	rc = make_identity(backing);
	if (rc < 0) {
		rc = error_errno(error, -rc, "cannot identify the directory %s", directory);
		goto fail;
	}
	*out = backing;
	return 0;
fail:
	backing_close(backing);
	return rc;
}

void backing_close(struct backing *backing)
{
	if (!backing)
		return;
	fd_cache_free(backing->fds);
	if (backing->root_fd >= 0)
		close(backing->root_fd);
	if (backing->tree_fd >= 0)
		close(backing->tree_fd);
	free(backing);
}

void backing_boot_id(uint8_t out[16])
{
	struct buf text = { 0 };
	char digits[33];
	size_t n = 0;

	if (io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, NULL) == 0)
		for (size_t i = 0; i < text.length && n < 32; i++)
			if (text.data[i] != '-' && text.data[i] != '\n')
				digits[n++] = (char)text.data[i];
	digits[n] = '\0';
	if (n != 32 || !hex_decode(out, 16, digits))
		io_random(out, 16);
	buf_free(&text);
}
