#include "ops_file.h"

#include "backing.h"
#include "failpoint.h"
#include "handle.h"
#include "identity.h"
#include "inode.h"
#include "invalidate.h"
#include "io_mode.h"
#include "journal.h"
#include "ops_name.h"
#include "pool.h"
#include "reply.h"
#include "snapdir.h"
#include "suspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Flags for the backing file. Not ours:
 *   O_APPEND           the kernel computes each offset, and pwrite(2) on such a descriptor ignores it; but see open_file
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

/* A file that may only grow (chattr +a) opens in no other way for writing (may_open()). */
static int open_file(struct fs *fs, struct node *node, int flags, bool *append_only)
{
	int fd = reopen(fs, node, backing_flags(flags));

	*append_only = fd == -EPERM && flags & O_APPEND && (flags & O_ACCMODE) != O_RDONLY;
	return *append_only ? reopen(fs, node, backing_flags(flags) | O_APPEND) : fd;
}

/* ---------------------------------------------------------------- answering an open */

struct opening {
	fuse_req_t req;
	struct fs *fs;
	struct fuse_file_info fi;
	bool created;
	struct fuse_entry_param entry; /* if created */
	struct io_open io;
};

/* How the kernel is to do its I/O (io_mode.h). */
static void fill(struct fuse_file_info *fi, const struct io_open *io)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	fi->backing_id = io->backing_id;
	fi->parallel_direct_writes = io->parallel;
#endif
	fi->direct_io = io->direct;
	/* What changes through the mount changes the kernel's pages too; for what changes behind it see invalidate.h. */
	fi->keep_cache = io->keep_cache;
}

static void answer(struct opening *opening)
{
	struct fs *fs = opening->fs;
	struct handle *handle = handle_of(&opening->fi);
	int rc = opening->created ? fuse_reply_create(opening->req, &opening->entry, &opening->fi)
				  : fuse_reply_open(opening->req, &opening->fi);

	if (rc == 0)
		return;
	if (opening->created)
		inode_forget(fs, opening->entry.ino, 1);
	handle_close(fs, handle);
}

/* In the pool: the inode must be suspect, durably, before anybody can map it (suspect.h). */
static void answer_risky(void *arg)
{
	struct opening *opening = arg;
	struct fs *fs = opening->fs;
	struct handle *handle = handle_of(&opening->fi);
	int rc = suspect_add(fs->journal, handle->node);

	if (rc == 0) {
		/* Its attributes are not kept from now on (inode_told), and those that are kept already must go. */
		opening->entry.attr_timeout = 0;
		invalidate_attributes(fs, handle->node->nodeid);
		answer(opening);
	} else {
		if (opening->created)
			inode_forget(fs, opening->entry.ino, 1);
		handle_close(fs, handle);
		reply_result(opening->req, rc);
	}
	free(opening);
}

/* Answers the request in any case. */
static void answer_later(const struct opening *opening)
{
	struct opening *job = malloc(sizeof(*job));

	if (!job) {
		fuse_req_t req = opening->req;
		if (opening->created)
			inode_forget(opening->fs, opening->entry.ino, 1);
		handle_close(opening->fs, handle_of(&opening->fi));
		reply_result(req, -ENOMEM);
		return;
	}
	*job = *opening;
	if (pool_submit(opening->fs->sync_pool, answer_risky, job) != 0)
		answer_risky(job);
}

/* Never passed through (io_open.plain): `suspect` would lose it while it has no name, but it may get one; or a restart would not find it again, as it has no handle; or it may only grow (chattr +a), and stores through a
 * mapping of the file itself are not ours to refuse. */
static bool is_plain(const struct node *node, const struct statx *stx)
{
	return (stx->stx_nlink == 0 && atomic_load(&node->flags) & INODE_LINKABLE) || node_key_type(&node->key) < 0 || stx->stx_attributes & STATX_ATTR_APPEND;
}

/* Turns node (the caller's reference) and descriptor into a handle that is counted; -errno: both are still the caller's. `path_fd`: O_PATH, of the node. */
static int open_handle(struct opening *opening, struct node *node, int path_fd, int fd, bool nameless)
{
	struct fs *fs = opening->fs;
	struct handle *handle = handle_new(fs, node, fd);
	struct io_open *io = &opening->io;
	struct statx stx;

	if (!handle)
		return -ENOMEM;
	int rc = statx(fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &stx) != 0 ? -errno : 0;
	if (rc == 0 && inode_is_lost(node, stx.stx_nlink))
		rc = -ESTALE; /* "stale": the kernel looks for what the name means now */
	if (nameless)
		atomic_fetch_or(&node->flags, INODE_LINKABLE);
	if (rc == 0) {
		*io = (struct io_open){.node = node, .nodeid = node->nodeid, .path_fd = path_fd, .fd = fd, .flags = opening->fi.flags,
				       .filled = stx.stx_size > 0, .plain = is_plain(node, &stx), .fresh = opening->created};
		rc = io_mode_enter(fs->io, io);
	}
	if (rc < 0) {
		handle_free(fs, handle);
		return rc;
	}
	handle->flags = io->flags;
	handle->counted = true;
	handle->uncacheable = io->mode == IO_PASSTHROUGH;
	if (io->mode == IO_PASSTHROUGH && (io->flags & O_ACCMODE) != O_WRONLY)
		atomic_fetch_or(&node->flags, INODE_MAY_BE_MAPPED);
	opening->fi.fh = (uintptr_t)handle;
	fill(&opening->fi, io);
	return 0;
}

/* ---------------------------------------------------------------- open, create */

static int open_place(struct opening *opening, struct place *place)
{
	struct fs *fs = opening->fs;

	if (!handles_have_room(fs))
		return -ENFILE;
	if (inode_is_foreign(place->node))
		return -EACCES;
	bool append_only;
	io_mode_look(fs->io, place->node, place->node->nodeid, opening->fi.flags);
	int fd = open_file(fs, place->node, opening->fi.flags, &append_only);
	if (fd < 0)
		return fd;
	if ((opening->fi.flags & O_ACCMODE) == O_RDWR)
		LATCH("fs/opened-below");
	node_ref(fs->nodes, place->node);
	int rc = open_handle(opening, place->node, place->fd, fd, false);
	if (rc < 0) {
		node_put(fs->nodes, place->node);
		close(fd);
		return rc;
	}
	struct handle *handle = handle_of(&opening->fi);
	handle->append_only = append_only;
	/* It is open since before it was made one that may only grow, and so passed through. What a plain filesystem says of the mapping we must say of the open. */
	if (append_only && opening->io.risky) {
		handle_close(fs, handle);
		return -EACCES;
	}
	return 0;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct opening opening = {.req = req, .fs = fs, .fi = *fi};
	struct place place;

	if (inode_is_snap(ino)) {
		snapdir_open(req, ino, fi);
		return;
	}
	int rc = (fi->flags & O_ACCMODE) != O_RDONLY ? place_get_own(fs, ino, &place) : place_get(fs, ino, &place);
	if (rc == 0)
		rc = open_place(&opening, &place);
	place_put(fs, &place);
	if (rc < 0)
		reply_result(req, rc);
	else if (opening.io.risky && !suspect_again(fs->journal, handle_of(&opening.fi)->node))
		answer_later(&opening);
	else
		answer(&opening);
}

static int open_made(struct opening *opening, struct node *node, int fd, bool nameless)
{
	struct fs *fs = opening->fs;
	int path_fd = backing_fd_get(fs->backing, node);

	if (path_fd < 0)
		return path_fd;
	node_ref(fs->nodes, node);
	int rc = open_handle(opening, node, path_fd, fd, nameless);
	if (rc < 0)
		node_put(fs->nodes, node);
	backing_fd_put(fs->backing, node, path_fd);
	return rc;
}

static void create(fuse_req_t req, fuse_ino_t parent, const struct making *making, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct opening opening = {.req = req, .fs = fs, .fi = *fi, .created = true};
	struct made made;

	/* Somebody made it behind the mount since the kernel looked: name_make's "stale" makes the kernel look again and open it in the ordinary way, permissions checked. */
	int rc = handles_have_room(fs) ? name_make(req, parent, making, &made) : -ENFILE;
	if (rc == 0) {
		rc = open_made(&opening, made.node, made.fd, !making->name);
		if (rc < 0) { /* the file stays, as after a failed open(2) elsewhere */
			node_put(fs->nodes, made.node);
			close(made.fd);
		}
	}
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	inode_entry(fs, made.node, &made.st, made.keep, &opening.entry);
	if (opening.io.risky)
		answer_later(&opening);
	else
		answer(&opening);
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
