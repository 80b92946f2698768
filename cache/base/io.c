#include "io.h"

#include "bytes.h"
#include "failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* -1 with errno set when the failpoint says so. */
static int pretend(int fake_errno)
{
	if (fake_errno == 0)
		return 0;
	errno = fake_errno;
	return -1;
}

ssize_t io_pread(int fd, void *data, size_t length, int64_t offset)
{
	uint8_t *to = data;
	size_t done = 0;

	if (pretend(FAILPOINT_ERRNO_FD("io/pread", fd)) < 0)
		return -1;
	while (done < length) {
		ssize_t n = pread(fd, to + done, length - done, offset + (int64_t)done);

		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return -1;
	}
	return (ssize_t)done;
}

int io_pwrite(int fd, const void *data, size_t length, int64_t offset)
{
	const uint8_t *from = data;

	if (pretend(FAILPOINT_ERRNO("io/pwrite")) < 0)
		return -1;
	while (length > 0) {
		ssize_t n = pwrite(fd, from, length, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		from += n;
		offset += n;
		length -= (size_t)n;
	}
	return 0;
}

int io_write(int fd, const void *data, size_t length)
{
	const uint8_t *from = data;

	if (pretend(FAILPOINT_ERRNO("io/write")) < 0)
		return -1;
	while (length > 0) {
		ssize_t n = write(fd, from, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		from += n;
		length -= (size_t)n;
	}
	return 0;
}

static int mkdir_one(const char *path, struct error *error)
{
	struct stat st;
	int saved;

	if (mkdir(path, 0700) == 0)
		return 0;
	/* Not only EEXIST: on a read-only or forbidden parent mkdir may complain of that although the directory is there. */
	saved = errno;
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : error_errno(error, ENOTDIR, "cannot create the directory %s", path);
	return error_errno(error, saved, "cannot create the directory %s", path);
}

int io_mkdirs(const char *path, struct error *error)
{
	char *copy = strdup(path);
	int rc = 0;

	if (!copy)
		return error_errno(error, ENOMEM, "cannot create the directory %s", path);
	for (char *p = copy; rc == 0 && *p; p++) {
		if (*p != '/' || p == copy || p[-1] == '/')
			continue;
		*p = '\0';
		rc = mkdir_one(copy, error);
		*p = '/';
	}
	if (rc == 0)
		rc = mkdir_one(copy, error);
	free(copy);
	return rc;
}

int io_read_file(int dirfd, const char *name, size_t limit, struct buf *out, struct error *error)
{
	struct stat st;
	ssize_t n;
	int rc;
	/* O_NONBLOCK: a FIFO in the place of the file must not hang us. */
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = error_errno(error, errno, "cannot read %s", name);
		goto out;
	}
	if (limit > PTRDIFF_MAX - 1)
		limit = PTRDIFF_MAX - 1;
	if (!S_ISREG(st.st_mode)) {
		rc = error_set(error, ERR_FAILED, 0, "cannot read %s: it is not a regular file", name);
		goto out;
	}
	buf_clear(out);
	/* One byte more than it says, to see that it ends there; a growing file is read on. */
	do {
		size_t want = st.st_size > (off_t)out->length ? (size_t)st.st_size - out->length + 1 : 4096;

		if (out->length > limit || want > limit - out->length + 1)
			want = limit - out->length + 1;
		rc = buf_reserve(out, want);
		if (rc < 0) {
			rc = error_errno(error, ENOMEM, "cannot read %s", name);
			goto out;
		}
		n = io_pread(fd, out->data + out->length, want, (int64_t)out->length);
		if (n < 0) {
			rc = error_errno(error, errno, "cannot read %s", name);
			goto out;
		}
		out->length += (size_t)n;
	} while (n > 0 && out->length <= limit);
	if (out->length > limit)
		rc = error_set(error, ERR_CORRUPT, 0, "cannot read %s: it is larger than %zu bytes", name, limit);
out:
	if (fd >= 0)
		close(fd);
	return rc;
}

/* The directory that holds `name`; *base points into name. */
static int open_parent(int dirfd, const char *name, const char **base)
{
	const char *slash = strrchr(name, '/');
	char *parent;
	int fd;

	*base = slash ? slash + 1 : name;
	if (!slash)
		return openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	parent = slash == name ? strdup("/") : strndup(name, (size_t)(slash - name));
	if (!parent)
		return -1; /* errno is ENOMEM */
	fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(parent);
	return fd;
}

/* Creates `temporary` in parent with the content, durably. 0 or -1; removes it on failure. */
static int write_temporary(int parent, const char *temporary, const void *data, size_t length, mode_t mode)
{
	int saved, fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -1;
	/* fchmod: the umask must not decide. */
	if (io_write(fd, data, length) == 0 && fchmod(fd, mode) == 0 && pretend(FAILPOINT_ERRNO("io/replace-fsync")) == 0 &&
	    fsync(fd) == 0) {
		if (close(fd) == 0)
			return 0;
		fd = -1;
	}
	saved = errno;
	if (fd >= 0)
		close(fd);
	unlinkat(parent, temporary, 0);
	errno = saved;
	return -1;
}

/* rename(2) that refuses to replace; by link(2) where the filesystem doesn't know that. 0 or -1. */
static int rename_new(int parent, const char *from, const char *to)
{
	if (renameat2(parent, from, parent, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	if (linkat(parent, from, parent, to, 0) < 0)
		return -1;
	unlinkat(parent, from, 0);
	return 0;
}

static int put_file(int dirfd, const char *name, const void *data, size_t length, mode_t mode, bool only_new,
		    struct error *error)
{
	char temporary[32] = ".new-";
	uint8_t random[8];
	const char *base;
	int rc = 0, parent = open_parent(dirfd, name, &base);

	if (parent < 0)
		return error_errno(error, errno, "cannot write %s", name);
	io_random(random, sizeof random);
	hex_encode(temporary + 5, random, sizeof random);
	if (write_temporary(parent, temporary, data, length, mode) < 0) {
		rc = error_errno(error, errno, "cannot write %s", name);
		goto out;
	}
	FAILPOINT("io/replace-before-rename");
	if (pretend(FAILPOINT_ERRNO("io/replace-rename")) < 0 ||
	    (only_new ? rename_new(parent, temporary, base) : renameat(parent, temporary, parent, base)) < 0) {
		rc = error_errno(error, errno, "cannot write %s", name);
		unlinkat(parent, temporary, 0);
		goto out;
	}
	FAILPOINT("io/replace-after-rename");
	if (io_fsync_dir(parent) < 0)
		rc = error_errno(error, errno, "cannot write %s durably", name);
out:
	close(parent);
	return rc;
}

int io_replace_file(int dirfd, const char *name, const void *data, size_t length, mode_t mode, struct error *error)
{
	return put_file(dirfd, name, data, length, mode, false, error);
}

int io_create_file(int dirfd, const char *name, const void *data, size_t length, mode_t mode, struct error *error)
{
	return put_file(dirfd, name, data, length, mode, true, error);
}

int io_fsync_dir(int dirfd)
{
	int rc = pretend(FAILPOINT_ERRNO("io/fsync-dir"));

	if (rc < 0)
		return rc;
	do
		rc = fsync(dirfd);
	while (rc < 0 && errno == EINTR);
	return rc;
}

char *io_printf(const char *format, ...)
{
	va_list args;
	char *text;
	int rc;

	va_start(args, format);
	rc = vasprintf(&text, format, args);
	va_end(args);
	return rc < 0 ? NULL : text;
}

void io_random(void *out, size_t length)
{
	uint8_t *to = out;

	while (length > 0) {
		ssize_t n = getrandom(to, length, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			fprintf(stderr, "yester: the kernel gives no random bytes\n");
			abort();
		}
		to += n;
		length -= (size_t)n;
	}
}
