#include "ops_attr.h"

#include "backing.h"
#include "handle.h"
#include "identity.h"
#include "inode.h"
#include "invalidate.h"
#include "journal.h"
#include "reply.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define SET_TIMES                                                                                                      \
	(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)

/* *mode: that of the request, of which the set-id bits are taken that chown(2) takes from the caller. */
static int set_owner(fuse_req_t req, int fd, const struct stat *st, int to_set, mode_t *mode)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1;
	struct identity identity;
	struct stat after;

	identity_enter_write(&identity, req, fd, IDENTITY_ASK); /* chown(2) takes them from everybody, but for set-group-id that does not go with execution */
	int rc = fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
	identity_leave(&identity);
	if (rc == 0)
		rc = inode_stat(fd, &after);
	if (rc == 0)
		*mode &= after.st_mode | ~(mode_t)(S_ISUID | S_ISGID);
	return rc;
}

static int set_mode(const char *path, mode_t mode)
{
	return chmod(path, mode & 07777) == 0 ? 0 : -errno;
}

static int set_size(fuse_req_t req, int path_fd, const char *path, const struct handle *handle, off_t size, int to_set)
{
	struct identity identity;
	int rc;

	/* The kernel's name for that bit is FATTR_KILL_SUIDGID: whoever truncates has no CAP_FSETID. */
	identity_enter_write(&identity, req, path_fd, identity_told(fs_of(req), to_set & FUSE_SET_ATTR_KILL_SUID));
	do
		rc = (handle ? ftruncate(handle->fd, size) : truncate(path, size)) == 0 ? 0 : -errno;
	while (rc == -EINTR);
	identity_leave(&identity);
	return rc;
}

static int set_times(int fd, const struct stat *st, int to_set)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		times[0] = st->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		times[1] = st->st_mtim;
	return utimensat(fd, "", times, AT_EMPTY_PATH) == 0 ? 0 : -errno;
}

/* A request that sets nothing is what FUSE_HANDLE_KILLPRIV_V2 leaves of chown(2) to the same owner by -1 and -1, which takes set-id bits away, and of the removal of these bits before a write (fuse_setattr() of
 * Linux 6.18 strips ATTR_KILL_SUID and ATTR_KILL_SGID). In both it is right to take them, if the caller may: of others than the owner the first is refused elsewhere, and the write that comes after the second does it.
 * Not told apart: root writes to a file that has both capabilities and set-id bits, which he loses by it. */
static bool takes_bits(fuse_req_t req, int fd, int to_set)
{
	struct stat st;

	return to_set == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       (st.st_mode & (S_ISUID | S_ISGID)) && identity_owns(req, st.st_uid);
}

/* Owner before mode: the kernel sends both when chown(2) is to clear bits, and leaves one of them to us. Times last: truncation sets them. */
static int set_all(fuse_req_t req, const struct place *place, const struct stat *st, int to_set,
		   const struct handle *handle)
{
	char path[BACKING_PROC_PATH];
	mode_t mode = st->st_mode;
	int rc = 0;

	backing_proc_path(path, place->fd);
	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) || takes_bits(req, place->fd, to_set))
		rc = set_owner(req, place->fd, st, to_set, &mode);
	if (rc == 0 && to_set & FUSE_SET_ATTR_MODE)
		rc = set_mode(path, mode);
	if (rc == 0 && to_set & FUSE_SET_ATTR_SIZE)
		rc = set_size(req, place->fd, path, handle, st->st_size, to_set);
	if (rc == 0 && to_set & SET_TIMES)
		rc = set_times(place->fd, st, to_set);
	return rc;
}

/* In the mutation. */
static int record(struct mutation *mutation, const struct place *place, const struct stat *st, int to_set)
{
	struct stat now;
	if (!(to_set & FUSE_SET_ATTR_SIZE))
		return mutation_attrs(mutation, place->node);
	int rc = inode_stat(place->fd, &now);
	if (rc < 0)
		return rc;
	return mutation_data(mutation, place->node, now.st_size < st->st_size ? now.st_size : st->st_size, -1);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct mutation mutation;
	struct place place;
	struct stat after;
	double keep = 0;

	int rc = place_get_own(fs, ino, &place);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	rc = mutation_begin(&mutation, fs->journal);
	if (rc == 0) {
		mutation_lock(&mutation, place.node, NULL, NULL, NULL);
		rc = record(&mutation, &place, st, to_set);
		if (rc == 0)
			rc = set_all(req, &place, st, to_set, fi ? handle_of(fi) : NULL);
		mutation_end(&mutation);
	}
	if (rc == 0)
		rc = inode_stat(place.fd, &after);
	if (rc == 0)
		keep = inode_told(fs, place.node, &after);
	place_put(fs, &place);
	if (rc < 0) {
		invalidate_attributes(fs, ino); /* some of it may be done */
		reply_result(req, rc);
	} else
		fuse_reply_attr(req, &after, keep);
}
