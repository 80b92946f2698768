#include "snapdir.h"

#include "backing.h"
#include "clock.h"
#include "inode.h"
#include "node.h"
#include "reply.h"
#include "snap_access.h"
#include "when.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/sysmacros.h>

/* ---------------------------------------------------------------- catalogue to stat */

static void stat_of_row(const struct inode_row *row, int64_t seq, struct stat *st)
{
	*st = (struct stat){
		.st_ino = snap_st_ino(seq, row->ino),
		.st_mode = row->mode,
		.st_nlink = (nlink_t)row->nlink,
		.st_uid = row->uid,
		.st_gid = row->gid,
		.st_rdev = (dev_t)row->rdev,
		.st_size = row->size,
		.st_blksize = 4096,
		.st_blocks = (row->size + 511) / 512,
		.st_atim = ns_timespec(row->atime_ns),
		.st_mtim = ns_timespec(row->mtime_ns),
		.st_ctim = ns_timespec(row->ctime_ns),
	};
	inode_present(st);
}

int snapdir_live_ino(struct db_conn *conn, const struct snap_node *root, int64_t *ino)
{
	struct local_row row;
	int rc = catalogue_local_by_key(conn, root->live->key.bytes, root->live->key.length, &row);
	if (rc == 0)
		*ino = row.ino;
	if (rc == ERR_ABSENT && root->live->nodeid == FUSE_ROOT_ID) { /* a new database knows what the past was, and has not met its heirs yet */
		*ino = CATALOGUE_ROOT_INO;
		rc = 0;
	}
	return -reply_errno(rc, 0);
}

/* Inode of a version as a node, with the reference that makes it stay. */
static int node_of(struct fs *fs, struct db_conn *conn, int64_t seq, int64_t ino, uint64_t anchor, const char *name,
		   struct snap_node **out)
{
	struct inode_hold hold;
	int rc = catalogue_inode(conn, seq, ino, &hold);
	if (rc != 0)
		return -reply_errno(rc, 0);
	struct snap_node like = {
		.kind = SNAP_INODE,
		.anchor = S_ISDIR(hold.row.mode) ? anchor : 0,
		.seq = seq,
		.ino = ino,
		.has_xattrs = hold.row.xattrs != NULL,
	};
	stat_of_row(&hold.row, seq, &like.st);
	like.btime_ns = hold.row.btime_ns;
	inode_hold_free(&hold);
	*out = snap_node_get(fs->snaps, &like, name);
	return *out ? 0 : -ENOMEM;
}

int snapdir_child(struct fs *fs, struct db_conn *conn, const struct snap_node *parent, int64_t ino,
		  struct snap_node **out)
{
	uint64_t anchor = parent->name[0] ? parent->nodeid : parent->anchor;
	return node_of(fs, conn, parent->seq, ino, anchor, "", out);
}

void snapdir_entry(const struct snap_node *node, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = node->nodeid,
		.attr = node->st,
		.attr_timeout = SNAP_TIMEOUT,
		.entry_timeout = SNAP_TIMEOUT,
	};
}

/* ---------------------------------------------------------------- attributes */

/* `.snapshots` and its links change when a version is added. */
static int root_stat(struct fs *fs, const struct snap_node *root, struct stat *st)
{
	struct stat live;
	int fd = backing_fd_get(fs->backing, root->live);
	if (fd < 0)
		return fd;
	int rc = inode_stat(fd, &live);
	backing_fd_put(fs->backing, root->live, fd);
	if (rc < 0)
		return rc;
	*st = (struct stat){
		.st_ino = snap_root_st_ino(live.st_ino),
		.st_mode = S_IFDIR | 0755,
		.st_nlink = 2,
		.st_uid = fs->owner,
		.st_gid = fs->group,
		.st_blksize = 4096,
	};
	return 0;
}

static int newest_time(struct fs *fs, struct timespec *time)
{
	struct db_conn *conn;
	struct error error;
	struct version_row row;
	if (db_read_begin(volume_db(fs->volume), &conn, &error) != 0)
		return -reply_errno(error.code, error.sys_errno);
	int rc = catalogue_version_newest(conn, false, &row);
	db_read_end(volume_db(fs->volume), conn);
	*time = (struct timespec){.tv_sec = rc == 0 ? row.time_s : 0};
	return rc == ERR_ABSENT ? 0 : -reply_errno(rc, 0);
}

static void link_stat(struct fs *fs, const struct snap_node *link, struct stat *st)
{
	*st = (struct stat){
		.st_ino = snap_st_ino(-1, (int64_t)link->nodeid),
		.st_mode = S_IFLNK | 0777,
		.st_nlink = 1,
		.st_size = (off_t)strlen("2026-11-20T08-14-07Z"),
		.st_uid = fs->owner,
		.st_gid = fs->group,
		.st_blksize = 4096,
	};
}

static int stat_node(struct fs *fs, const struct snap_node *node, struct stat *st)
{
	if (node->kind == SNAP_INODE) {
		*st = node->st;
		return 0;
	}
	int rc = 0;
	if (node->kind == SNAP_ROOT)
		rc = root_stat(fs, node, st);
	else
		link_stat(fs, node, st);
	if (rc == 0)
		rc = newest_time(fs, &st->st_mtim);
	st->st_atim = st->st_ctim = st->st_mtim;
	return rc;
}

void snapdir_getattr(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	struct stat st;
	int rc = node ? stat_node(fs, node, &st) : -ESTALE;
	double timeout = node && node->kind == SNAP_INODE ? SNAP_TIMEOUT : 0;
	snap_node_put(fs->snaps, node, 1);
	if (rc < 0)
		reply_result(req, rc);
	else
		fuse_reply_attr(req, &st, timeout);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
static struct statx_timestamp statx_time(struct timespec ts)
{
	return (struct statx_timestamp){.tv_sec = ts.tv_sec, .tv_nsec = (uint32_t)ts.tv_nsec};
}

static void statx_of(const struct stat *st, int64_t btime_ns, struct statx *stx)
{
	*stx = (struct statx){
		.stx_mask = STATX_BASIC_STATS | (btime_ns ? STATX_BTIME : 0),
		.stx_blksize = (uint32_t)st->st_blksize,
		.stx_nlink = (uint32_t)st->st_nlink,
		.stx_uid = st->st_uid,
		.stx_gid = st->st_gid,
		.stx_mode = (uint16_t)st->st_mode,
		.stx_ino = st->st_ino,
		.stx_size = (uint64_t)st->st_size,
		.stx_blocks = (uint64_t)st->st_blocks,
		.stx_atime = statx_time(st->st_atim),
		.stx_btime = statx_time(ns_timespec(btime_ns)),
		.stx_ctime = statx_time(st->st_ctim),
		.stx_mtime = statx_time(st->st_mtim),
		.stx_rdev_major = major(st->st_rdev),
		.stx_rdev_minor = minor(st->st_rdev),
	};
}

void snapdir_statx(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	struct statx stx;
	struct stat st;
	int rc = node ? stat_node(fs, node, &st) : -ESTALE;
	bool constant = node && node->kind == SNAP_INODE;
	if (rc == 0)
		statx_of(&st, constant ? node->btime_ns : 0, &stx);
	snap_node_put(fs->snaps, node, 1);
	if (rc < 0)
		reply_result(req, rc);
	else
		fuse_reply_statx(req, 0, &stx, constant ? SNAP_TIMEOUT : 0);
}
#endif

void snapdir_forget(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	if (node)
		snap_node_put(fs->snaps, node, count + 1);
}

/* ---------------------------------------------------------------- names */

void snapdir_lookup_root(fuse_req_t req, fuse_ino_t parent)
{
	struct fs *fs = fs_of(req);
	struct node *live = inode_get(fs, parent);
	struct snap_node *root = NULL;
	struct fuse_entry_param entry = {.entry_timeout = KEEP_LONG}; /* each directory has one, and keeps it */
	int rc = 0;

	if (!live || live->type != S_IFDIR || inode_is_foreign(live))
		rc = -ENOENT;
	if (rc == 0) {
		root = snap_node_get(fs->snaps,
				     &(struct snap_node){.kind = SNAP_ROOT, .anchor = live->nodeid, .live = live}, "");
		rc = root ? stat_node(fs, root, &entry.attr) : -ENOMEM;
	}
	node_put(fs->nodes, live);
	if (rc < 0) {
		snap_node_put(fs->snaps, root, 1);
		reply_result(req, rc);
		return;
	}
	entry.ino = root->nodeid;
	reply_entry(req, &entry);
}

/* The version that a name means, if the directory was there. */
static int version_of_name(struct db_conn *conn, const struct snap_node *root, const char *name, enum when_kind *kind,
			   int64_t *ino, struct version_row *version)
{
	struct inode_hold hold;
	int64_t seconds;

	*kind = when_parse(name, clock_wall_ns() / NS_PER_S, &seconds);
	if (*kind == WHEN_BAD)
		return -ENOENT;
	int rc = *kind == WHEN_LATEST ? catalogue_version_newest(conn, false, version)
				      : catalogue_version_at(conn, seconds, version);
	if (rc != 0)
		return -reply_errno(rc, 0);
	rc = snapdir_live_ino(conn, root, ino);
	if (rc < 0)
		return rc;
	rc = catalogue_inode(conn, version->seq, *ino, &hold);
	if (rc == 0)
		inode_hold_free(&hold);
	return -reply_errno(rc, 0);
}

/* A name in `.snapshots`: a version's directory, or a symlink to it. */
static int lookup_version(fuse_req_t req, struct db_conn *conn, const struct snap_node *root, const char *name,
			  struct fuse_entry_param *entry)
{
	struct fs *fs = fs_of(req);
	struct version_row version;
	struct snap_node *node;
	enum when_kind kind;
	int64_t ino = 0;

	int rc = version_of_name(conn, root, name, &kind, &ino, &version);
	if (rc < 0)
		return rc;
	if (kind == WHEN_TIME) {
		rc = snap_access_ancestors(req, conn, version.seq, ino);
		if (rc == 0)
			rc = node_of(fs, conn, version.seq, ino, root->nodeid, name, &node);
		if (rc < 0)
			return rc;
		snapdir_entry(node, entry);
		entry->entry_timeout = 0;
		return 0;
	}
	node = snap_node_get(fs->snaps,
			     &(struct snap_node){
				     .kind = SNAP_LINK, .anchor = root->nodeid, .seq = version.seq, .live = root->live},
			     name);
	if (!node)
		return -ENOMEM;
	*entry = (struct fuse_entry_param){.ino = node->nodeid};
	link_stat(fs, node, &entry->attr);
	entry->attr.st_mtim.tv_sec = entry->attr.st_atim.tv_sec = entry->attr.st_ctim.tv_sec = version.time_s;
	return 0;
}

static int lookup_inside(struct fs *fs, struct db_conn *conn, const struct snap_node *dir, const char *name,
			 struct fuse_entry_param *entry)
{
	struct snap_node *node;
	int64_t ino;
	int rc = catalogue_lookup(conn, dir->seq, dir->ino, name, strlen(name), &ino);
	if (rc == ERR_ABSENT) { /* for good */
		*entry = (struct fuse_entry_param){.ino = 0, .entry_timeout = SNAP_TIMEOUT};
		return 0;
	}
	if (rc != 0)
		return -reply_errno(rc, 0);
	rc = snapdir_child(fs, conn, dir, ino, &node);
	if (rc == 0)
		snapdir_entry(node, entry);
	return rc == -ENOENT ? -EIO : rc; /* a name without its inode */
}

void snapdir_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct snap_node *dir = snap_node_by_id(fs->snaps, parent);
	struct fuse_entry_param entry;
	struct db_conn *conn;
	struct error error;
	int rc;

	if (!dir)
		rc = -ESTALE;
	else if (db_read_begin(volume_db(fs->volume), &conn, &error) != 0)
		rc = -reply_errno(error.code, error.sys_errno);
	else {
		rc = dir->kind == SNAP_ROOT ? lookup_version(req, conn, dir, name, &entry)
					    : lookup_inside(fs, conn, dir, name, &entry);
		db_read_end(volume_db(fs->volume), conn);
	}
	snap_node_put(fs->snaps, dir, 1);
	if (rc < 0)
		reply_result(req, rc);
	else
		reply_entry(req, &entry);
}

/* ---------------------------------------------------------------- links */

/* SNAP_LINK: the canonical name of what it meant when it was looked up, which is each time that somebody goes by it. */
static int link_target(struct db_conn *conn, const struct snap_node *link, char out[PATH_MAX])
{
	struct version_row version;
	int rc = catalogue_version_get(conn, link->seq, &version);
	if (rc == 0)
		when_name(out, version.time_s);
	return -reply_errno(rc, 0);
}

static int inode_target(struct db_conn *conn, const struct snap_node *node, char out[PATH_MAX])
{
	struct inode_hold hold;
	int rc = catalogue_inode(conn, node->seq, node->ino, &hold);
	if (rc != 0)
		return -reply_errno(rc, 0);
	size_t length = hold.row.target_length;
	if (!hold.row.target)
		rc = -EINVAL;
	else if (length >= PATH_MAX)
		rc = -EIO;
	else {
		memcpy(out, hold.row.target, length);
		out[length] = '\0';
	}
	inode_hold_free(&hold);
	return rc;
}

void snapdir_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct snap_node *node = snap_node_by_id(fs->snaps, ino);
	struct db_conn *conn;
	struct error error;
	char target[PATH_MAX];
	int rc;

	if (!node)
		rc = -ESTALE;
	else if (db_read_begin(volume_db(fs->volume), &conn, &error) != 0)
		rc = -reply_errno(error.code, error.sys_errno);
	else {
		rc = node->kind == SNAP_LINK ? link_target(conn, node, target) : inode_target(conn, node, target);
		db_read_end(volume_db(fs->volume), conn);
	}
	snap_node_put(fs->snaps, node, 1);
	if (rc < 0)
		reply_result(req, rc);
	else
		fuse_reply_readlink(req, target);
}
