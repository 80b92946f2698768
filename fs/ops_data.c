#include "ops_file.h"

#include "err.h"
#include "failpoint.h"
#include "handle.h"
#include "identity.h"
#include "inode.h"
#include "invalidate.h"
#include "io_mode.h"
#include "journal.h"
#include "pool.h"
#include "reply.h"
#include "snapdir.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Below this a copy is cheaper than a pipe and two splices. */
#define SPLICE_FROM 65536

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino)) {
		snapdir_read(req, ino, size, offset, fi);
		return;
	}
	struct handle *handle = handle_of(fi);
	/* splice(2) and sendfile(2) from a descriptor that is both passthrough and direct I/O go through the pages of our inode (fuse_splice_read() calls filemap_splice_read(), Linux 6.18), where nothing
	 * that is stored through a mapping of the backing file would ever show. Reads for these pages are told by the owner, which is that of a process for all others (fuse_send_read()). Programs take
	 * EINVAL as "not by this descriptor", and use read(2). */
	if (handle->uncacheable && fi->lock_owner == 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	int fd = handle->fd;
	if (size >= SPLICE_FROM) {
		struct fuse_bufvec data = FUSE_BUFVEC_INIT(size);
		data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		data.buf[0].fd = fd;
		data.buf[0].pos = offset;
		fuse_reply_data(req, &data, FUSE_BUF_SPLICE_MOVE);
		return;
	}
	char buffer[SPLICE_FROM];
	ssize_t count = pread(fd, buffer, size, offset);
	if (count < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)count);
}

/* ---------------------------------------------------------------- fsync and O_SYNC: answered from the pool */

struct sync_job {
	fuse_req_t req;
	struct fs *fs;
	struct handle *handle; /* stays open: the kernel waits for the answer before it releases */
	bool datasync;
	ssize_t written;       /* answer with this many bytes; -1: it is no write */
};

static void sync_job_run(void *arg)
{
	struct sync_job *job = arg;
	int fd = job->handle->fd;
	int rc = journal_wait_unsettled(job->fs->journal, job->handle->node); /* I9: before the data can be durable */
	if (rc == 0 && (job->datasync ? fdatasync(fd) : fsync(fd)) != 0)
		rc = -errno;
	if (rc < 0 || job->written < 0)
		reply_result(job->req, rc);
	else
		fuse_reply_write(job->req, (size_t)job->written);
	free(job);
}

static void sync_later(fuse_req_t req, struct fuse_file_info *fi, bool datasync, ssize_t written)
{
	struct fs *fs = fs_of(req);
	struct sync_job *job = malloc(sizeof(*job));
	if (!job) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*job = (struct sync_job){req, fs, handle_of(fi), datasync, written};
	if (pool_submit(fs->sync_pool, sync_job_run, job) != 0) {
		free(job);
		fuse_reply_err(req, EAGAIN);
	}
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino))
		fuse_reply_err(req, 0);
	else
		sync_later(req, fi, datasync, -1);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	op_fsync(req, ino, datasync, fi);
}

/* ---------------------------------------------------------------- write */

/* Bytes written, or -errno when none was. */
static ssize_t write_all(int fd, struct fuse_bufvec *data, size_t size, off_t offset)
{
	if (!(data->buf[0].flags & FUSE_BUF_IS_FD)) {
		const char *bytes = data->buf[0].mem;
		size_t done = 0;
		while (done < size) {
			ssize_t count = pwrite(fd, bytes + done, size - done, offset + (off_t)done);
			if (count < 0 && errno == EINTR)
				continue;
			if (count <= 0)
				return done ? (ssize_t)done : -errno;
			done += (size_t)count;
		}
		return (ssize_t)done;
	}
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(size);
	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
	out.buf[0].fd = fd;
	out.buf[0].pos = offset;
	return fuse_buf_copy(&out, data, 0);
}

static enum identity_fsetid fsetid_of_write(const struct fs *fs, const struct fuse_file_info *fi)
{
	bool lacks = false;

#if FUSE_KILLS_SUIDGID
	lacks = fi->kill_suidgid;
#endif
	/* Pages of a mapping that are written back: nobody's, and what is stored through a mapping takes no bits away anywhere. */
	return fi->writepage ? IDENTITY_HAS : identity_told(fs, lacks);
}

static void tell_cleared(struct fs *fs, fuse_ino_t ino, const struct identity *identity)
{
	if (identity->clears)
		invalidate_attributes(fs, ino);
}

/* Lock of the inode held. Where a write to a file that only grows begins: the kernel's idea of the end may be old, if it grew behind the mount. What a plain filesystem refuses before, but the kernel does not know
 * that of ours, is refused here: to map such a file for writing (do_mmap()), whose pages are of places that are not to change; to take O_APPEND off (setfl()), by the flags of the write. 0 or -errno. */
static int append_at(const struct handle *handle, const struct fuse_file_info *fi, off_t *offset)
{
	struct stat st;

	if (fi->writepage || !(fi->flags & O_APPEND))
		return -EPERM;
	if (fstat(handle->fd, &st) != 0)
		return -errno;
	*offset = st.st_size;
	return 0;
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct identity identity;
	struct mutation mutation;
	size_t size = fuse_buf_size(data);

	if (inode_is_snap(ino)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (fi->writepage)
		atomic_fetch_add_explicit(&fs->written_back, 1, memory_order_relaxed);
	struct handle *handle = handle_of(fi);
	ssize_t rc = mutation_begin(&mutation, fs->journal);
	if (rc == 0) {
		mutation_lock(&mutation, handle->node, NULL, NULL, NULL);
		rc = handle->append_only ? append_at(handle, fi, &offset) : 0;
		if (rc == 0) /* who appends behind the mount at this moment moves ours */
			rc = mutation_data(&mutation, handle->node, offset, handle->append_only ? -1 : (int64_t)size);
		if (rc == 0) {
			identity_enter_write(&identity, req, handle->fd, fsetid_of_write(fs, fi));
			rc = write_all(handle->fd, data, size, offset);
			identity_leave(&identity);
			tell_cleared(fs, ino, &identity);
		}
		mutation_end(&mutation);
	}
	if (rc < 0)
		reply_result(req, (int)rc);
	else if (fi->flags & (O_SYNC | O_DSYNC)) /* fi->flags of a write are those of this one write */
		sync_later(req, fi, !((fi->flags & O_SYNC) == O_SYNC), rc);
	else
		fuse_reply_write(req, (size_t)rc);
}

/* ---------------------------------------------------------------- fallocate */

/* One step, within the lock of the inode. The range recorded is that of the bytes that may change: for allocation only what lies beyond the end. */
static int fallocate_step(fuse_req_t req, struct handle *handle, int mode, off_t offset, off_t length)
{
	struct fs *fs = fs_of(req);
	struct identity identity;
	struct mutation mutation;
	struct stat st;

	int rc = mutation_begin(&mutation, fs->journal);
	if (rc < 0)
		return rc;
	mutation_lock(&mutation, handle->node, NULL, NULL, NULL);
	off_t from = offset, end = offset + length;
	if (fstat(handle->fd, &st) != 0)
		rc = -errno;
	else if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && from < st.st_size)
		from = st.st_size < end ? st.st_size : end;
	if (rc == 0)
		rc = from < end ? mutation_data(&mutation, handle->node, from, end - from)
				: mutation_attrs(&mutation, handle->node);
	if (rc == 0) {
		identity_enter_write(&identity, req, handle->fd, IDENTITY_ASK);
		while ((rc = fallocate(handle->fd, mode, offset, length) == 0 ? 0 : -errno) == -EINTR)
			;
		identity_leave(&identity);
		tell_cleared(fs, handle->node->nodeid, &identity);
	}
	mutation_end(&mutation);
	return rc;
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct stat st;
	int rc = 0;

	if (inode_is_snap(ino)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	struct handle *handle = handle_of(fi);
	off_t end = length > INT64_MAX - offset ? INT64_MAX : offset + length;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		/* I1: what destroys data goes in slices up to the end of the file; beyond it there is nothing to save. */
		off_t size = fstat(handle->fd, &st) == 0 ? st.st_size : 0;
		while (rc == 0 && end - offset > FS_SLICE_BYTES && offset < size) {
			off_t next = (offset / FS_SLICE_BYTES + 1) * FS_SLICE_BYTES;
			rc = fallocate_step(req, handle, mode, offset, next - offset);
			offset = next;
			LATCH("fs/slice");
		}
	}
	if (rc == 0)
		rc = fallocate_step(req, handle, mode, offset, end - offset);
	reply_result(req, rc);
}

/* ---------------------------------------------------------------- lseek, copy_file_range */

/* While a mapping is stored to, a hole of ours may be data of the kernel's: FUSE_LSEEK is sent without writing dirty pages back first (Linux 6.18, fuse_lseek()), so that a copy which
 * leaves out holes would lose them. The mapping keeps its file open, and RELEASE comes after the last page was written back (fuse_vma_close()). -1 and errno, as lseek(2). */
static off_t seek_without_holes(int fd, off_t offset, int whence)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -1;
	if (offset < 0 || offset >= st.st_size) {
		errno = ENXIO;
		return -1;
	}
	return whence == SEEK_DATA ? offset : st.st_size;
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	if (inode_is_snap(ino)) {
		snapdir_lseek(req, ino, offset, whence, fi);
		return;
	}
	struct handle *handle = handle_of(fi);
	bool hidden = io_mode_may_store(fs_of(req)->io, handle->node->nodeid);
	off_t at = hidden ? seek_without_holes(handle->fd, offset, whence)
			  : lseek(handle->fd, offset, whence); /* nothing else uses its position */
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t offset_out, struct fuse_file_info *fi_out, size_t length, int flags)
{
	struct fs *fs = fs_of(req);
	struct identity identity;
	struct mutation mutation;

	if (inode_is_snap(ino_in) || inode_is_snap(ino_out)) {
		fuse_reply_err(req, EXDEV); /* the kernel then copies by read and write */
		return;
	}
	struct handle *in = handle_of(fi_in), *out = handle_of(fi_out);
	if (length > FS_SLICE_BYTES)
		length = FS_SLICE_BYTES; /* I1; a short copy is right, the caller goes on */
	ssize_t rc = mutation_begin(&mutation, fs->journal);
	if (rc == 0) {
		mutation_lock(&mutation, out->node, NULL, NULL, NULL);
		rc = mutation_data(&mutation, out->node, offset_out, (int64_t)length);
		if (rc == 0) {
			identity_enter_write(&identity, req, out->fd, IDENTITY_ASK);
			rc = copy_file_range(in->fd, &offset_in, out->fd, &offset_out, length, (unsigned)flags);
			if (rc < 0)
				rc = -errno;
			identity_leave(&identity);
			tell_cleared(fs, ino_out, &identity);
		}
		mutation_end(&mutation);
	}
	if (rc < 0)
		reply_result(req, (int)rc);
	else
		fuse_reply_write(req, (size_t)rc);
}
