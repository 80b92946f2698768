#include "ops_dir.h"

#include "backing.h"
#include "handle.h"
#include "inode.h"
#include "reply.h"
#include "snap_node.h"
#include "snapdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES_BYTES 65536
/* Cookie of the end behind `.snapshots`, which comes last when it is shown: no filesystem's (ext4's end is INT64_MAX, btrfs' and XFS' are small). */
#define OFFSET_AFTER_SNAPSHOTS (INT64_MAX - 1)

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	if (inode_is_snap(ino)) {
		snapdir_opendir(req, ino, fi);
		return;
	}
	struct node *node = inode_get(fs, ino);
	struct handle *handle = NULL;
	int fd = !node			  ? -ESTALE
		 : !handles_have_room(fs) ? -ENFILE
		 : inode_is_foreign(node) ? -EACCES
					  : backing_reopen(fs->backing, node, O_RDONLY | O_DIRECTORY);
	struct stat st;
	if (fd >= 0 && fstat(fd, &st) == 0 && inode_is_lost(node, st.st_nlink)) {
		close(fd);
		fd = -ESTALE;
	}
	if (fd >= 0) {
		handle = handle_new(fs, node, fd);
		if (!handle) {
			close(fd);
			fd = -ENOMEM;
		}
	}
	if (fd < 0) {
		node_put(fs->nodes, node);
		reply_result(req, fd);
		return;
	}
	inode_note_names(fs, node, fd);
	fi->fh = (uintptr_t)handle;
	fi->keep_cache = fi->cache_readdir = 1; /* until its mtime or iversion change, which each own change sees to */
	if (fuse_reply_open(req, fi) != 0)
		handle_close(fs, handle);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino))
		snapdir_releasedir(req, ino, fi);
	else {
		handle_close(fs_of(req), handle_of(fi));
		fuse_reply_err(req, 0);
	}
}

/* The next entry from `handle->offset` on, without passing it; NULL at the end or on failure (*rc -errno). handle->lock must be held. */
static const struct dirent64 *peek(struct handle *handle, int *rc)
{
	if (handle->at >= handle->length) {
		long count = syscall(SYS_getdents64, handle->fd, handle->entries, ENTRIES_BYTES);
		*rc = count < 0 ? -errno : 0;
		if (count <= 0)
			return NULL;
		handle->at = 0;
		handle->length = (size_t)count;
	}
	return (const struct dirent64 *)(handle->entries + handle->at);
}

/* handle->lock must be held. */
static int seek_to(struct handle *handle, off_t offset)
{
	if (!handle->entries) {
		handle->entries = malloc(ENTRIES_BYTES);
		if (!handle->entries)
			return -ENOMEM;
	} else if (offset == handle->offset && offset != 0) /* 0 is rewinddir: read afresh */
		return 0;
	if (lseek(handle->fd, offset, SEEK_SET) < 0)
		return -errno;
	handle->at = handle->length = 0;
	handle->offset = offset;
	return 0;
}

struct listing {
	fuse_req_t req;
	char *buffer;
	size_t used, size;
	bool plus;
};

/* Entry with a lookup. False: no room. An entry that vanished meanwhile is left out. */
static bool add_plus(struct listing *listing, struct fs *fs, struct handle *dir, const struct dirent64 *d)
{
	struct fuse_entry_param entry;
	struct node *child;
	struct stat st;

	if (inode_child(fs, dir->fd, d->d_name, &child, &st) < 0) {
		/* It is still named, with what is known: the kernel asks again when somebody wants more. */
		entry = (struct fuse_entry_param){.attr = {.st_ino = d->d_ino, .st_mode = (mode_t)d->d_type << 12}};
		child = NULL;
	} else
		inode_entry(fs, child, &st, inode_entry_timeout(fs, dir->node), &entry);
	size_t need = fuse_add_direntry_plus(listing->req, listing->buffer + listing->used,
					     listing->size - listing->used, d->d_name, &entry, d->d_off);
	if (need > listing->size - listing->used) {
		if (child)
			inode_forget(fs, entry.ino, 1); /* the kernel has not seen it */
		return false;
	}
	listing->used += need;
	return true;
}

/* Without a lookup. */
static bool add_plain(struct listing *listing, const char *name, ino_t ino, mode_t type, off_t next)
{
	struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = type}};
	char *at = listing->buffer + listing->used;
	size_t room = listing->size - listing->used;
	size_t need = listing->plus ? fuse_add_direntry_plus(listing->req, at, room, name, &entry, next)
				    : fuse_add_direntry(listing->req, at, room, name, &entry.attr, next);
	if (need > room)
		return false;
	listing->used += need;
	return true;
}

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* handle->lock must be held. */
static int list(struct listing *listing, struct fs *fs, struct handle *handle, off_t offset)
{
	const struct dirent64 *d;
	bool room = true;
	struct stat st;

	if (offset == OFFSET_AFTER_SNAPSHOTS)
		return 0;
	int rc = seek_to(handle, offset);
	while (rc == 0 && room && (d = peek(handle, &rc))) {
		if (strcmp(d->d_name, FS_SNAPSHOTS) != 0)
			room = listing->plus && !is_dots(d->d_name)
				       ? add_plus(listing, fs, handle, d)
				       : add_plain(listing, d->d_name, d->d_ino, (mode_t)d->d_type << 12, d->d_off);
		if (room) {
			handle->at += d->d_reclen;
			handle->offset = d->d_off;
		}
	}
	if (rc == 0 && room && fs->snapdir_visible && handle->node->nodeid == FUSE_ROOT_ID && fstat(handle->fd, &st) == 0)
		add_plain(listing, FS_SNAPSHOTS, snap_root_st_ino(st.st_ino), S_IFDIR, OFFSET_AFTER_SNAPSHOTS);
	return listing->used ? 0 : rc;
}

static void list_and_reply(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
	struct handle *handle = handle_of(fi);
	struct listing listing = {.req = req, .buffer = malloc(size), .size = size, .plus = plus};

	if (!listing.buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&handle->lock);
	int rc = list(&listing, fs_of(req), handle, offset);
	pthread_mutex_unlock(&handle->lock);
	if (rc < 0)
		reply_result(req, rc);
	else
		fuse_reply_buf(req, listing.buffer, listing.used);
	free(listing.buffer);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino))
		snapdir_readdir(req, ino, size, offset, fi, false);
	else
		list_and_reply(req, size, offset, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino))
		snapdir_readdir(req, ino, size, offset, fi, true);
	else
		list_and_reply(req, size, offset, fi, true);
}
