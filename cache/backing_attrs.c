#include "backing.h"

#include "backing_internal.h"
#include "buf.h"
#include "bytes.h"
#include "clock.h"
#include "failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define VIRTUAL_PREFIX "user.yester."
#define NAME_MAX_BYTES 255   /* XATTR_NAME_MAX */
#define VALUE_MAX_BYTES 65536 /* XATTR_SIZE_MAX */

#ifndef STATX_MNT_ID /* Linux 5.8 */
#define STATX_MNT_ID 0x1000
#endif

void attrs_free(struct attrs *attrs)
{
	free(attrs->xattrs);
	free(attrs->target);
	memset(attrs, 0, sizeof *attrs);
}

static struct timespec timespec_of(struct statx_timestamp time)
{
	return (struct timespec){ .tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec };
}

int stat_of_fd(int fd, struct stat *st, int64_t *btime_ns, uint64_t *mount_id)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &x) < 0)
		return -errno;
	*st = (struct stat){
		.st_dev = makedev(x.stx_dev_major, x.stx_dev_minor),
		.st_ino = x.stx_ino,
		.st_mode = x.stx_mode,
		.st_nlink = x.stx_nlink,
		.st_uid = x.stx_uid,
		.st_gid = x.stx_gid,
		.st_rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor),
		.st_size = (off_t)x.stx_size,
		.st_blksize = (blksize_t)x.stx_blksize,
		.st_blocks = (blkcnt_t)x.stx_blocks,
		.st_atim = timespec_of(x.stx_atime),
		.st_mtim = timespec_of(x.stx_mtime),
		.st_ctim = timespec_of(x.stx_ctime),
	};
	*btime_ns = x.stx_mask & STATX_BTIME ? timespec_ns(timespec_of(x.stx_btime)) : 0;
	/* In an older kernel this field is zero, and the caller's value stands. */
	if (mount_id && x.stx_mask & STATX_MNT_ID)
		*mount_id = x.stx_mnt_id;
	return 0;
}

bool backing_is_shortage(int number)
{
	return number == ENOMEM || number == EMFILE || number == ENFILE || number == ENOBUFS || number == EAGAIN;
}

/* There are none, or they are not for us: a version does without. What the disk does not give is another matter. */
static bool does_without(int number)
{
	return number == EOPNOTSUPP || number == ENOSYS || number == ENODATA || number == EPERM || number == EACCES;
}

/* The names of all xattrs, each with its NUL. 0 (empty when there are none or none may be read) or -errno. */
static int list_names(const char *path, struct buf *names)
{
	ssize_t length = listxattr(path, NULL, 0);

	while (length > 0) {
		if (buf_reserve(names, (size_t)length) < 0)
			return -ENOMEM;
		length = listxattr(path, (char *)names->data, names->capacity);
		if (length >= 0)
			break;
		if (errno == ERANGE) /* one came meanwhile */
			length = listxattr(path, NULL, 0);
	}
	if (length < 0)
		return does_without(errno) ? 0 : -errno;
	names->length = (size_t)length;
	return 0;
}

/* Appends one row, or nothing if the value may not be read or is gone. 0 or -errno. */
static int append_xattr(const char *path, const char *name, struct buf *out)
{
	size_t name_length = strlen(name), row = out->length, header = 2 + name_length + 4, room = 256;
	ssize_t length;

	for (;;) {
		if (buf_reserve(out, header + room) < 0)
			return -ENOMEM;
		length = getxattr(path, name, out->data + row + header, room);
		if (length >= 0)
			break;
		if (errno != ERANGE)
			return does_without(errno) ? 0 : -errno;
		length = getxattr(path, name, NULL, 0);
		/* It may shrink or grow meanwhile; it never needs more than the maximum. */
		room = length < 0 || (size_t)length < room ? VALUE_MAX_BYTES : (size_t)length;
	}
	put_u16(out->data + row, (uint16_t)name_length);
	memcpy(out->data + row + 2, name, name_length);
	put_u32(out->data + row + 2 + name_length, (uint32_t)length);
	out->length = row + header + (size_t)length;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that equal sets are equal bytes. */
static int read_xattrs(const char *path, struct buf *out)
{
	struct buf names = { 0 };
	const char **sorted = NULL;
	size_t count = 0;
	int rc = list_names(path, &names);

	if (rc < 0 || names.length == 0)
		goto out;
	names.data[names.length - 1] = '\0';
	sorted = malloc(names.length * sizeof *sorted / 2 + sizeof *sorted);
	if (!sorted) {
		rc = -ENOMEM;
		goto out;
	}
	for (const char *name = (const char *)names.data, *end = name + names.length; name < end; name += strlen(name) + 1)
		if (*name && strlen(name) <= NAME_MAX_BYTES && strncmp(name, VIRTUAL_PREFIX, strlen(VIRTUAL_PREFIX)) != 0)
			sorted[count++] = name;
	qsort(sorted, count, sizeof *sorted, compare_names);
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = append_xattr(path, sorted[i], out);
out:
	free(sorted);
	buf_free(&names);
	return rc;
}

static int read_target(int fd, struct attrs *out)
{
	char target[PATH_MAX + 1];
	ssize_t length = readlinkat(fd, "", target, sizeof target - 1);

	if (length < 0)
		return -errno;
	target[length] = '\0';
	out->target = malloc((size_t)length + 1);
	if (!out->target)
		return -ENOMEM;
	memcpy(out->target, target, (size_t)length + 1);
	out->target_length = (size_t)length;
	return 0;
}

int backing_attrs(struct backing *backing, int fd, struct attrs *out)
{
	char path[BACKING_PROC_PATH];
	struct buf xattrs = { 0 };
	int rc;

	(void)backing;
	memset(out, 0, sizeof *out);
	rc = -FAILPOINT_ERRNO_FD("backing/attrs", fd);
	if (rc == 0)
		rc = stat_of_fd(fd, &out->st, &out->btime_ns, NULL);
	if (rc == 0 && S_ISLNK(out->st.st_mode))
		rc = read_target(fd, out);
	backing_proc_path(path, fd);
	if (rc == 0)
		rc = read_xattrs(path, &xattrs);
	if (rc == 0 && xattrs.length > 0) {
		out->xattrs = xattrs.data;
		out->xattrs_length = xattrs.length;
		return 0;
	}
	buf_free(&xattrs);
	if (rc < 0)
		attrs_free(out);
	return rc;
}

int attrs_xattr_each(const void *xattrs, size_t length,
		     int (*fn)(void *context, const char *name, const void *value, size_t value_length), void *context)
{
	struct reader reader = { .at = xattrs, .end = (const uint8_t *)xattrs + length };
	char name[NAME_MAX_BYTES + 1];

	if (!xattrs)
		return length == 0 ? 0 : -EINVAL;
	while (reader.at < reader.end) {
		uint16_t name_length = reader_u16(&reader);
		const uint8_t *text = reader_bytes(&reader, name_length);
		uint32_t value_length = reader_u32(&reader);
		const uint8_t *value = reader_bytes(&reader, value_length);
		int rc;

		if (reader.bad || name_length == 0 || name_length > NAME_MAX_BYTES || value_length > VALUE_MAX_BYTES ||
		    memchr(text, '\0', name_length))
			return -EINVAL;
		memcpy(name, text, name_length);
		name[name_length] = '\0';
		rc = fn(context, name, value, value_length);
		if (rc != 0)
			return rc;
	}
	return 0;
}

uint64_t backing_free_above_reserve(int fd)
{
	const uint64_t minimum = UINT64_C(256) << 20;
	struct statvfs fs;
	uint64_t total, available, reserve;

	if (fstatvfs(fd, &fs) < 0)
		return 0;
	if (fs.f_blocks == 0)
		return UINT64_MAX; /* a tmpfs without limit says so */
	total = (uint64_t)fs.f_blocks * fs.f_frsize;
	available = (uint64_t)fs.f_bavail * fs.f_frsize;
	reserve = total / 20 > minimum ? total / 20 : minimum;
	if (reserve > total / 4)
		reserve = total / 4;
	return available > reserve ? available - reserve : 0;
}

int backing_syncfs(struct backing *backing)
{
	return syncfs(backing->root_fd) < 0 ? -errno : 0;
}
