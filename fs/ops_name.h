/* ops_name: operations that change a name: mknod, mkdir, symlink, link, unlink, rmdir, rename; create and tmpfile share the making of an inode.
 *
 * The kernel holds the directory exclusively meanwhile, so that what a name stands for does not change between our looking it up and our
 * locking of the nodes. `.snapshots` is taken in every directory: it can't be made (EEXIST), nor removed or renamed (EROFS). */
#ifndef YESTER_OPS_NAME_H
#define YESTER_OPS_NAME_H

#include "fs.h"

#include <sys/stat.h>

/* What to make. `name` NULL: a file without a name (O_TMPFILE). */
struct making {
	const char *name, *target;
	mode_t mode; /* with the type */
	dev_t rdev;
	int flags;   /* of the open, for regular files that are opened at once */
	bool open;
};
struct made {
	struct node *node; /* referenced */
	struct stat st;
	double keep;       /* its name: inode_entry */
	int fd;            /* if making->open */
};
/* Makes it as the caller, in a mutation. 0 or -errno. */
int name_make(fuse_req_t req, fuse_ino_t parent, const struct making *making, struct made *made);

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned int flags);

#endif
