#include "snapdir.h"

#include "backing.h"
#include "history.h"
#include "inode.h"
#include "ops_attr.h"
#include "pool.h"
#include "reply.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- files: all in the history pool */

struct history_job {
	fuse_req_t req;
	struct fs *fs;
	struct snap_node *node;    /* open: referenced */
	struct fuse_file_info fi;  /* open */
	struct history_file *file; /* read: stays open until the answer */
	size_t size;
	off_t offset;
};

static struct history_file *file_of(const struct fuse_file_info *fi)
{
	return (struct history_file *)(uintptr_t)fi->fh;
}

/* Takes over what `job` references. */
static void submit(const struct history_job *job, void (*run)(void *))
{
	struct history_job *copy = malloc(sizeof(*copy));
	if (copy) {
		*copy = *job;
		if (pool_submit(job->fs->history_pool, run, copy) == 0)
			return;
	}
	snap_node_put(job->fs->snaps, job->node, 1);
	fuse_reply_err(job->req, copy ? EAGAIN : ENOMEM);
	free(copy);
}

static void open_run(void *arg)
{
	struct history_job *job = arg;
	struct history_file *file;
	struct error error = {.code = ERR_FAILED};

	if (history_open(job->fs->volume, job->node->seq, job->node->ino, &file, &error) != 0)
		reply_error(job->req, "opening a file of a version", &error);
	else {
		job->fi.fh = (uintptr_t)file;
		job->fi.keep_cache = 1;
		if (fuse_reply_open(job->req, &job->fi) != 0)
			history_close(file);
	}
	snap_node_put(job->fs->snaps, job->node, 1);
	free(job);
}

void snapdir_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	if (!node) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	submit(&(struct history_job){.req = req, .fs = fs, .node = node, .fi = *fi}, open_run);
}

static void read_run(void *arg)
{
	struct history_job *job = arg;
	struct error error = {.code = ERR_FAILED};
	char *buffer = malloc(job->size);

	if (!buffer)
		fuse_reply_err(job->req, ENOMEM);
	else {
		int64_t count = history_read(job->file, buffer, job->size, job->offset, &error);
		if (count < 0)
			reply_error(job->req, "reading a file of a version", &error);
		else
			fuse_reply_buf(job->req, buffer, (size_t)count);
	}
	free(buffer);
	free(job);
}

void snapdir_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	submit(&(struct history_job){.req = req, .fs = fs_of(req), .file = file_of(fi), .size = size, .offset = offset},
	       read_run);
}

void snapdir_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	(void)ino;
	int64_t at = history_seek(file_of(fi), offset, whence);
	if (at < 0)
		fuse_reply_err(req, (int)-at);
	else
		fuse_reply_lseek(req, at);
}

void snapdir_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	history_close(file_of(fi));
	fuse_reply_err(req, 0);
}

/* ---------------------------------------------------------------- xattrs */

static int read_inode(struct fs *fs, const struct snap_node *node, struct inode_hold *out)
{
	struct db_conn *conn;
	struct error error;
	if (db_read_begin(volume_db(fs->volume), &conn, &error) != 0)
		return -reply_errno(error.code, error.sys_errno);
	int rc = catalogue_inode(conn, node->seq, node->ino, out);
	db_read_end(volume_db(fs->volume), conn);
	return -reply_errno(rc, 0);
}

struct wanted { const char *name; const void *value; size_t length; };

static int find_xattr(void *context, const char *name, const void *value, size_t length)
{
	struct wanted *wanted = context;
	if (strcmp(name, wanted->name) != 0)
		return 0;
	wanted->value = value;
	wanted->length = length;
	return 1;
}

static void get_stored(fuse_req_t req, const struct snap_node *node, const char *name, size_t size)
{
	struct inode_hold hold;
	struct wanted wanted = {.name = name};
	int rc = read_inode(fs_of(req), node, &hold);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	rc = hold.row.xattrs ? attrs_xattr_each(hold.row.xattrs, hold.row.xattrs_length, find_xattr, &wanted) : 0;
	if (rc < 0)
		fuse_reply_err(req, EIO);
	else if (rc == 0)
		fuse_reply_err(req, ENODATA);
	else
		xattr_reply(req, wanted.value, wanted.length, size);
	inode_hold_free(&hold);
}

void snapdir_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	char number[24];

	if (!node)
		fuse_reply_err(req, ESTALE);
	else if (node->kind == SNAP_INODE && strcmp(name, XATTR_OURS "version") == 0) {
		snprintf(number, sizeof(number), "%" PRId64, node->seq);
		xattr_reply(req, number, strlen(number), size);
	} else if (node->kind == SNAP_INODE && node->has_xattrs)
		get_stored(req, node, name, size);
	else
		fuse_reply_err(req, ENODATA);
	snap_node_put(fs->snaps, node, 1);
}

struct names { char *text; size_t used, room; };

static int add_name(void *context, const char *name, const void *value, size_t length)
{
	struct names *names = context;
	size_t one = strlen(name) + 1;
	(void)value;
	(void)length;
	if (names->used + one > names->room)
		return -ENOMEM; /* no room: the names alone were longer than all of the encoding */
	memcpy(names->text + names->used, name, one);
	names->used += one;
	return 0;
}

void snapdir_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	struct inode_hold hold = {.memory = NULL};
	struct names names = {NULL, 0, 0};

	int rc = !node ? -ESTALE : node->kind == SNAP_INODE && node->has_xattrs ? read_inode(fs, node, &hold) : 0;
	if (rc == 0 && hold.row.xattrs) {
		names.room = hold.row.xattrs_length;
		names.text = malloc(names.room);
		rc = names.text ? attrs_xattr_each(hold.row.xattrs, names.room, add_name, &names) : -ENOMEM;
		if (rc == -EINVAL)
			rc = -EIO;
	}
	snap_node_put(fs->snaps, node, 1);
	if (rc < 0)
		reply_result(req, rc);
	else
		xattr_reply(req, names.text, names.used ? xattr_visible(req, names.text, names.used) : 0, size);
	free(names.text);
	inode_hold_free(&hold);
}
