/* inode: node numbers of the kernel, and nodes of the cache. Numbers with the top bit set belong to `.snapshots` (snap_node.h). Any thread.
 * Functions that can fail return 0 or -errno. */
#ifndef YESTER_INODE_H
#define YESTER_INODE_H

#include "fs.h"
#include "node.h"

static inline bool inode_is_snap(fuse_ino_t ino)
{
	return ino >> 63;
}

/* The live node with a reference (node_put), or NULL: a number that we never gave, which no kernel sends. */
struct node *inode_get(struct fs *fs, fuse_ino_t ino);

/* A live node and an O_PATH descriptor of it, for the time of one operation. */
struct place { struct node *node; int fd; };
/* For reading; numbers of `.snapshots` have been told apart before (-EROFS). */
int place_get(struct fs *fs, fuse_ino_t ino, struct place *out);
/* For changing: -EROFS also for inodes of another mount inside the tree, which is not ours (backing_identify). */
int place_get_own(struct fs *fs, fuse_ino_t ino, struct place *out);
void place_put(struct fs *fs, struct place *place);

static inline bool inode_is_foreign(const struct node *node)
{
	return node_key_type(&node->key) == NODE_KEY_FOREIGN;
}

/* How long the kernel may keep what it was told; invalidate.h says what corrects it before that. */
#define KEEP_LONG 86400.0 /* a day: as good as for ever, but it heals what nothing finds */
#define KEEP_SHORT 1.0
#define KEEP_ATTRIBUTES 60.0 /* at most (invalidate.h, Races) */

/* Flags of a node. */
enum {
	INODE_EXACT = 1,  /* a directory in which each name means itself only */
	INODE_FOLDED = 2, /* a directory in which a name may mean another, or come to be with another (case) */
	INODE_UNNAMED = 4, /* lost a name through the mount, or never had one: that it has none is no surprise */
	INODE_MAY_BE_MAPPED = 8, /* was open for reading in passthrough, or for both: there may be a mapping of the file that outlived it (io_mode.h). A mapping keeps the inode, and so the node */
	INODE_LINKABLE = 16, /* made without a name (O_TMPFILE): it can be given one while it has none, once only (I_LINKABLE, Linux 6.18 vfs_link()); no other inode that has lost its last one can */
};

/* Notes what the kernel is about to be told of the node, and says for how long it may keep that. Files that were changed lately are still being allocated: their attributes are kept for as long as the file has been
 * still, at least for some seconds. */
double inode_told(struct fs *fs, struct node *node, const struct stat *st);
/* For node_tell: of st_ctime, which every change of an inode changes. Never 0. */
uint32_t inode_stamp(const struct stat *st);
/* How long names in that directory may be kept, present or absent. */
double inode_entry_timeout(struct fs *fs, const struct node *dir);
/* Whether the kernel came to that inode, which it did by a name, although it has none any more (`links`, now): removed or replaced behind the mount. */
bool inode_is_lost(const struct node *node, uint64_t links);
/* Finds out whether the directory folds case, if that is not known. `fd`: a descriptor of it, O_PATH or not; -1: none at hand, then it stays unknown and names are kept for a short time. */
void inode_note_names(struct fs *fs, struct node *dir, int fd);

/* Name in directory to node, with a reference, and its stat (st may be NULL). */
int inode_child(struct fs *fs, int dirfd, const char *name, struct node **out, struct stat *st);
/* Fills *entry from the node and its stat, and turns the caller's reference into a lookup of the kernel. `keep`: as inode_entry_timeout of its directory. */
void inode_entry(struct fs *fs, struct node *node, const struct stat *st, double keep, struct fuse_entry_param *entry);
/* What we tell of a stat of the backing tree. */
void inode_present(struct stat *st);
int inode_stat(int fd, struct stat *st);
void inode_forget(struct fs *fs, fuse_ino_t ino, uint64_t count);

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
#endif
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_statfs(fuse_req_t req, fuse_ino_t ino);

#endif
