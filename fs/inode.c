#include "inode.h"

#include "backing.h"
#include "clock.h"
#include "invalidate.h"
#include "reply.h"
#include "snapdir.h"
#include "suspect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* stdio and cp write in pieces of st_blksize: larger ones cost fewer requests. */
#define PRESENTED_BLKSIZE 65536
/* Attributes of a file that changes are kept so long all the same. */
#define KEEP_CHANGED 10.0
/* Another change may carry the same timestamp: the kernel's tick is 10 ms at most. */
#define GRANULARITY_NS (20 * NS_PER_S / 1000)

struct node *inode_get(struct fs *fs, fuse_ino_t ino)
{
	return node_by_id(fs->nodes, ino);
}

int place_get(struct fs *fs, fuse_ino_t ino, struct place *out)
{
	*out = (struct place){.fd = -1};
	if (inode_is_snap(ino))
		return -EROFS;
	struct node *node = inode_get(fs, ino);
	if (!node)
		return -ESTALE;
	int fd = backing_fd_get(fs->backing, node);
	if (fd < 0) {
		node_put(fs->nodes, node);
		return fd;
	}
	*out = (struct place){.node = node, .fd = fd};
	return 0;
}

int place_get_own(struct fs *fs, fuse_ino_t ino, struct place *out)
{
	int rc = place_get(fs, ino, out);
	if (rc == 0 && inode_is_foreign(out->node)) {
		place_put(fs, out);
		return -EROFS;
	}
	return rc;
}

void place_put(struct fs *fs, struct place *place)
{
	if (!place->node)
		return;
	backing_fd_put(fs->backing, place->node, place->fd);
	node_put(fs->nodes, place->node);
	*place = (struct place){.fd = -1};
}

int inode_child(struct fs *fs, int dirfd, const char *name, struct node **out, struct stat *st)
{
	struct node_key key;
	struct stat found;
	int fd = -1;
	bool need_fd = !backing_has_handles(fs->backing);

	*out = NULL;
	int rc = backing_identify(fs->backing, dirfd, name, &key, &found, need_fd ? &fd : NULL);
	if (rc < 0)
		return rc;
	*out = node_get(fs->nodes, &key, found.st_mode, fd);
	if (fd >= 0)
		close(fd);
	if (!*out)
		return -ENOMEM;
	if (st)
		*st = found;
	return 0;
}

void inode_present(struct stat *st)
{
	if (S_ISREG(st->st_mode))
		st->st_blksize = PRESENTED_BLKSIZE;
}

int inode_stat(int fd, struct stat *st)
{
	if (fstatat(fd, "", st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	inode_present(st);
	return 0;
}

uint32_t inode_stamp(const struct stat *st)
{
	/* The multiplier of Fibonacci hashing: all bits of the time count in the upper ones. */
	uint32_t stamp = (uint32_t)((uint64_t)timespec_ns(st->st_ctim) * UINT64_C(0x9e3779b97f4a7c15) >> 40);

	return stamp ? stamp : 1;
}

double inode_told(struct fs *fs, struct node *node, const struct stat *st)
{
	int64_t ctime_ns = timespec_ns(st->st_ctim), still_ns = clock_wall_ns() - ctime_ns;
	double still = (double)still_ns / (double)NS_PER_S;

	node_tell(fs->nodes, node, still_ns > GRANULARITY_NS ? inode_stamp(st) : 0);
	if (S_ISREG(st->st_mode) && suspect_is(fs->journal, node)) /* stores change it, and nobody hears of them */
		return 0;
	if (!fs->alone || inode_is_foreign(node))
		return KEEP_SHORT;
	if (!S_ISREG(st->st_mode) || still > KEEP_ATTRIBUTES)
		return KEEP_ATTRIBUTES;
	return still > KEEP_CHANGED ? still : KEEP_CHANGED;
}

double inode_entry_timeout(struct fs *fs, const struct node *dir)
{
	return fs->alone && atomic_load(&fs->can_expire) && atomic_load(&dir->flags) & INODE_EXACT ? KEEP_LONG : KEEP_SHORT;
}

bool inode_is_lost(const struct node *node, uint64_t links)
{
	return links == 0 && !(atomic_load(&node->flags) & INODE_UNNAMED);
}

void inode_note_names(struct fs *fs, struct node *dir, int fd)
{
	uint8_t flag = INODE_EXACT;

	if (atomic_load(&dir->flags) & (INODE_EXACT | INODE_FOLDED) || fd < 0)
		return;
	if (fs->names == BACKING_UNKNOWN)
		flag = INODE_FOLDED;
	if (fs->names == BACKING_BY_DIRECTORY) {
		int readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (readable < 0 || backing_folds_case(readable))
			flag = INODE_FOLDED;
		if (readable >= 0)
			close(readable);
	}
	atomic_fetch_or(&dir->flags, flag);
}

/* A scan is going on, and may have passed the inode between our stat and our lookup, without seeing that the kernel is about to know it (invalidate.h). */
static void look_again(struct fs *fs, struct node *node, struct fuse_entry_param *entry)
{
	struct stat st;
	int fd = backing_fd_get(fs->backing, node);

	if (fd < 0)
		return; /* gone: the next request says so */
	if (inode_stat(fd, &st) == 0) {
		entry->attr = st;
		entry->attr_timeout = inode_told(fs, node, &st);
	}
	backing_fd_put(fs->backing, node, fd);
}

void inode_entry(struct fs *fs, struct node *node, const struct stat *st, double keep, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = node->nodeid,
		.generation = 0, /* numbers are never used again */
		.attr = *st,
		.attr_timeout = inode_told(fs, node, st),
		.entry_timeout = inode_is_foreign(node) ? KEEP_SHORT : keep,
	};
	inode_present(&entry->attr);
	node_lookup_add(fs->nodes, node);
	/* The lookup keeps the node from here on. */
	if (invalidate_is_watching(fs))
		look_again(fs, node, entry);
}

void inode_forget(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
	if (inode_is_snap(ino)) {
		snapdir_forget(fs, ino, count);
		return;
	}
	struct node *node = inode_get(fs, ino);
	if (node && node_lookup_forget(fs->nodes, ino, count))
		backing_fd_drop(fs->backing, node);
	node_put(fs->nodes, node);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	if (inode_is_snap(parent)) {
		snapdir_lookup(req, parent, name);
		return;
	}
	if (strcmp(name, FS_SNAPSHOTS) == 0) {
		snapdir_lookup_root(req, parent);
		return;
	}

	struct place dir;
	struct node *child = NULL;
	struct fuse_entry_param entry;
	struct stat st;
	double keep = 0;
	int rc = place_get(fs, parent, &dir);
	if (rc == 0) { /* a directory of another mount counts as empty */
		inode_note_names(fs, dir.node, inode_is_foreign(dir.node) ? -1 : dir.fd);
		keep = inode_entry_timeout(fs, dir.node);
		rc = inode_is_foreign(dir.node) ? -ENOENT : inode_child(fs, dir.fd, name, &child, &st);
	}
	place_put(fs, &dir);
	if (rc == 0)
		inode_entry(fs, child, &st, keep, &entry);
	else if (rc == -ENOENT && keep == KEEP_LONG) /* kept too: number 0 means that there is none */
		entry = (struct fuse_entry_param){.entry_timeout = keep};
	else {
		reply_result(req, rc);
		return;
	}
	reply_entry(req, &entry);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	inode_forget(fs_of(req), ino, count);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		inode_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	(void)fi; /* the node's own descriptor does as well, and is there for files that are unlinked but open (backing_hold) */
	if (inode_is_snap(ino)) {
		snapdir_getattr(req, ino);
		return;
	}

	struct place place;
	struct stat st;
	double keep = 0;
	int rc = place_get(fs, ino, &place);
	if (rc == 0)
		rc = inode_stat(place.fd, &st);
	if (rc == 0)
		keep = inode_told(fs, place.node, &st);
	place_put(fs, &place);
	if (rc < 0)
		reply_result(req, rc);
	else
		fuse_reply_attr(req, &st, keep);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
/* What getattr can't say: the birth time. The kernel asks for it only when its caller does. */
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	(void)fi;
	if (inode_is_snap(ino)) {
		snapdir_statx(req, ino);
		return;
	}

	struct place place;
	struct statx stx;
	double keep = 0;
	int rc = place_get(fs, ino, &place);
	if (rc == 0 && statx(place.fd, "", AT_EMPTY_PATH | (flags & AT_STATX_SYNC_TYPE),
			     ((unsigned int)mask & (STATX_BASIC_STATS | STATX_BTIME)) | STATX_BASIC_STATS, &stx) != 0)
		rc = -errno;
	if (rc == 0)
		keep = inode_told(fs, place.node,
				  &(struct stat){.st_mode = stx.stx_mode,
						 .st_ctim = {stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec}});
	place_put(fs, &place);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	if (S_ISREG(stx.stx_mode))
		stx.stx_blksize = PRESENTED_BLKSIZE;
	fuse_reply_statx(req, 0, &stx, keep);
}
#endif

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	if (inode_is_snap(ino)) {
		snapdir_readlink(req, ino);
		return;
	}

	char target[PATH_MAX + 1];
	ssize_t length = 0;
	struct place place;
	int rc = place_get(fs, ino, &place);
	if (rc == 0) {
		length = readlinkat(place.fd, "", target, sizeof(target));
		rc = length < 0 ? -errno : (size_t)length >= sizeof(target) ? -ENAMETOOLONG : 0;
	}
	place_put(fs, &place);
	if (rc < 0) {
		reply_result(req, rc);
		return;
	}
	target[length] = '\0';
	fuse_reply_readlink(req, target);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	(void)ino; /* a version takes its space in the remote: what is below .snapshots shows the volume's numbers too */
	if (fstatvfs(backing_root_fd(fs_of(req)->backing), &st) != 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}
