#include "ops_file.h"

#include "backing.h"
#include "handle.h"
#include "identity.h"
#include "inode.h"
#include "journal.h"
#include "ops_name.h"
#include "reply.h"
#include "snapdir.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Flags for the backing file. Not ours:
 *   O_APPEND           the kernel computes each offset, and pwrite(2) on such a descriptor ignores it
 *   O_DIRECT           our buffers are not aligned; O_SYNC, O_DSYNC: each write says it again (I9)
 *   O_CREAT, O_EXCL    its business; O_TRUNC: comes as a SETATTR (session.c)
 *   O_NONBLOCK         means nothing for files, but for leases */
static int backing_flags(int flags)
{
	return (flags & (O_ACCMODE | O_NOATIME)) | O_NOFOLLOW;
}

static int reopen(struct fs *fs, struct node *node, int flags)
{
	int fd = backing_reopen(fs->backing, node, flags);
	if (fd == -EPERM && flags & O_NOATIME)
		fd = backing_reopen(fs->backing, node, flags & ~O_NOATIME);
	return fd;
}

/* Turns node (the caller's reference) and descriptor into fi; -ENOMEM: both are still the caller's. */
static int open_handle(struct fs *fs, struct node *node, int fd, struct fuse_file_info *fi)
{
	struct handle *handle = handle_new(fs, node, fd);
	if (!handle)
		return -ENOMEM;
	fi->fh = (uintptr_t)handle;
	/* What changes through the mount changes the kernel's pages too; what changes behind it is noticed by size and mtime (FUSE_CAP_AUTO_INVAL_DATA). */
	fi->keep_cache = 1;
	return 0;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct place place;

	if (inode_is_snap(ino)) {
		snapdir_open(req, ino, fi);
		return;
	}
	int rc = (fi->flags & O_ACCMODE) != O_RDONLY ? place_get_own(fs, ino, &place) : place_get(fs, ino, &place);
	if (rc == 0) {
		int flags = backing_flags(fi->flags);
		int fd = !handles_have_room(fs)         ? -ENFILE
			 : inode_is_foreign(place.node) ? -EACCES
							: reopen(fs, place.node, flags);
		rc = fd < 0 ? fd : 0;
		if (rc == 0) {
			node_ref(fs->nodes, place.node);
			rc = open_handle(fs, place.node, fd, fi);
			if (rc < 0) {
				node_put(fs->nodes, place.node);
				close(fd);
			}
		}
	}
	place_put(fs, &place);
	if (rc < 0)
		reply_result(req, rc);
	else if (fuse_reply_open(req, fi) != 0)
		handle_close(fs, handle_of(fi));
}

static void create(fuse_req_t req, fuse_ino_t parent, const struct making *making, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct node *node;
	struct stat st;
	int fd;

	int rc = handles_have_room(fs) ? name_make(req, parent, making, &node, &st, &fd) : -ENFILE;
	/* Somebody made it behind the mount since the kernel looked: "stale" makes the kernel look again and open it in the ordinary way, permissions checked. */
	if (rc == -EEXIST && making->name && !(fi->flags & O_EXCL))
		rc = -ESTALE;
	if (rc == 0) {
		node_ref(fs->nodes, node);
		rc = open_handle(fs, node, fd, fi);
		if (rc < 0) { /* the file stays, as after a failed open(2) elsewhere */
			node_put(fs->nodes, node);
			node_put(fs->nodes, node);
			close(fd);
		}
	}
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	inode_entry(fs, node, &st, &entry);
	if (fuse_reply_create(req, &entry, fi) != 0) {
		inode_forget(fs, entry.ino, 1);
		handle_close(fs, handle_of(fi));
	}
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	create(req, parent,
	       &(struct making){.name = name,
				.mode = (mode & 07777) | S_IFREG,
				.open = true,
				.flags = backing_flags(fi->flags)},
	       fi);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	create(req, parent,
	       &(struct making){.mode = (mode & 07777) | S_IFREG,
				.open = true,
				.flags = (backing_flags(fi->flags) & ~O_NOFOLLOW) | (fi->flags & O_EXCL)},
	       fi);
}
#endif

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino))
		snapdir_release(req, ino, fi);
	else {
		handle_close(fs_of(req), handle_of(fi));
		fuse_reply_err(req, 0);
	}
}
