#include "extract_internal.h"

#include "backing.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

struct setting {
	char path[BACKING_PROC_PATH];
	bool *lacking;
};

/* What another filesystem, or one without our rights, answers. */
static bool refusal(int sys_errno)
{
	return sys_errno == EPERM || sys_errno == EACCES || sys_errno == ENOTSUP || sys_errno == EINVAL || sys_errno == E2BIG ||
	       sys_errno == ERANGE;
}

static int set_one(void *context, const char *name, const void *value, size_t length)
{
	struct setting *setting = context;

	if (setxattr(setting->path, name, value, length, 0) == 0)
		return 0;
	/* No room for this one: ext4 says ENOSPC when an inode's xattrs are full; the disk itself is found full soon enough. */
	if (!refusal(errno) && errno != ENOSPC)
		return -errno;
	*setting->lacking = true;
	return 0;
}

/* What a new inode got from a default ACL of the directory that all this is restored into. */
static void drop_inherited(const char *path)
{
	if (listxattr(path, NULL, 0) > 0) {
		removexattr(path, "system.posix_acl_access");
		removexattr(path, "system.posix_acl_default");
	}
}

/* True when the inode belongs to whom the version says. */
static bool set_owner(const struct extract *x, int fd, const struct inode_row *row, int *rc)
{
	struct stat st;

	*rc = 0;
	if (fstat(fd, &st) < 0) {
		*rc = -errno;
		return false;
	}
	if (st.st_uid == row->uid && st.st_gid == row->gid)
		return true;
	/* A user may give a file of his to a group of his. */
	if (!x->root && st.st_uid != row->uid)
		return false;
	if (fchownat(fd, "", row->uid, row->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	if (!refusal(errno))
		*rc = -errno;
	return false;
}

/* Fault 41: set-id bits only if the owner is the one they were given for, and never by a user. A directory's set-gid bit grants nothing. */
static mode_t allowed_mode(const struct extract *x, const struct inode_row *row, bool owner)
{
	mode_t mode = row->mode & 07777;

	if (x->root && owner)
		return mode;
	return mode & (mode_t)~(S_ISDIR(row->mode) ? S_ISUID : S_ISUID | S_ISGID);
}

/* The order: chown clears set-id bits and file capabilities, an ACL changes the mode, everything changes ctime, and times come last. */
int extract_attrs(const struct extract *x, int fd, const struct inode_row *row, bool *lacking)
{
	struct timespec times[2] = { ns_timespec(row->atime_ns), ns_timespec(row->mtime_ns) };
	struct setting setting = { .lacking = lacking };
	mode_t mode;
	bool owner;
	int rc;

	backing_proc_path(setting.path, fd);
	owner = set_owner(x, fd, row, &rc);
	if (rc < 0)
		return rc;
	mode = allowed_mode(x, row, owner);
	if (!owner || mode != (row->mode & 07777))
		*lacking = true;
	drop_inherited(setting.path);
	rc = attrs_xattr_each(row->xattrs, row->xattrs_length, set_one, &setting);
	if (rc < 0)
		return rc;
	if (!S_ISLNK(row->mode) && chmod(setting.path, mode) < 0)
		return -errno;
	if (utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

int extract_set_attrs(struct extract *x, const struct entry *entry, int fd, const struct inode_row *row)
{
	bool lacking = false;
	int rc = extract_attrs(x, fd, row, &lacking);

	if (rc < 0)
		return extract_fail_errno(x, entry, -rc);
	if (lacking)
		atomic_fetch_add(&x->skipped, 1);
	return 0;
}
