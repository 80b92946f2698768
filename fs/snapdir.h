/* snapdir: `.snapshots` in every directory (DESIGN section 6): read-only, out of the catalogue, by identity of the directory. The operations of fs/ops_*.c come here for numbers with the top bit set;
 * what would change something has been refused with EROFS before.
 *
 *   snapdir.c    names, attributes, links     snap_list.c  reading directories
 *   snap_read.c  files and xattrs             snap_access.c  permissions of then
 *
 * Each function answers the request. File contents are read in fs->history_pool: they may come from the network. */
#ifndef YESTER_SNAPDIR_H
#define YESTER_SNAPDIR_H

#include "catalogue.h"
#include "fs.h"
#include "snap_node.h"

/* Seconds for which the kernel may keep what can't change: an inode of a version and its names. A version's own name is asked for each time: its permissions are the caller's matter (snap_access.h), and what other
 * forms than the canonical one lead to changes. */
#define SNAP_TIMEOUT 3600.0

/* `.snapshots` in live directory `parent`. */
void snapdir_lookup_root(fuse_req_t req, fuse_ino_t parent);
void snapdir_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void snapdir_forget(struct fs *fs, fuse_ino_t ino, uint64_t count);
void snapdir_getattr(fuse_req_t req, fuse_ino_t ino);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void snapdir_statx(fuse_req_t req, fuse_ino_t ino);
#endif
void snapdir_readlink(fuse_req_t req, fuse_ino_t ino);

void snapdir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void snapdir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi, bool plus);
void snapdir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

void snapdir_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void snapdir_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void snapdir_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void snapdir_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void snapdir_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void snapdir_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

/* --- for snap_list.c and snap_read.c. Return 0 or -errno. */
/* The catalogue's number of the live directory; -ENOENT when no version knows it. */
int snapdir_live_ino(struct db_conn *conn, const struct snap_node *root, int64_t *ino);
/* Node of an inode of a version found below `parent` (SNAP_INODE), with a reference. */
int snapdir_child(struct fs *fs, struct db_conn *conn, const struct snap_node *parent, int64_t ino,
		  struct snap_node **out);
/* Entry of a SNAP_INODE that is not a version's own directory. The reference becomes the kernel's lookup. */
void snapdir_entry(const struct snap_node *node, struct fuse_entry_param *entry);

#endif
