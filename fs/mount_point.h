/* mount_point: the place where a volume is mounted: what is there now, may we mount on it, and unmounting it. Paths are absolute, without links. */
#ifndef YESTER_MOUNT_POINT_H
#define YESTER_MOUNT_POINT_H

#include "config.h"
#include "err.h"

#include <stdbool.h>

struct mount_entry {
	int id;            /* with the device: says which mount it is as long as it is there, wherever it goes */
	char device[24];   /* "0:39" */
	char path[4096];
	char type[64];     /* "fuse.yester" */
	char source[4096];
};
/* The uppermost mount on exactly that path, from /proc/self/mountinfo. False: none. */
bool mount_point_find(const char *path, struct mount_entry *out);
/* The uppermost mount of the volume of `directory` on that path, whatever lies over it. ERR_ABSENT: none; any other error: that can't be told. */
int mount_point_find_volume(const char *path, const char *directory, struct mount_entry *out, struct error *error);
/* Where that mount is now: a directory above it may have got another name, or it was moved. Corrects `path`. ERR_ABSENT: it is gone;
 * ERR_BUSY: it is there, but the path leads to another mount, which lies over it; any other error: that can't be told. Any thread. */
int mount_point_follow(struct mount_entry *mount, struct error *error);
/* A yester is mounted there, alive or dead. */
bool mount_point_is_yester(const char *path);
/* The volume of that directory is mounted, there or elsewhere, as far as this mount namespace shows. */
bool mount_point_has_volume(const char *directory);
/* It is there, but its daemon is not (ENOTCONN). */
bool mount_point_is_dead(const char *path);

/* 0 when the volume's directory shows its plain files; a mount that is dead or whose daemon can't be reached would be taken for them: ERR_FAILED. For verbs that found no daemon. */
int mount_point_check_plain(const struct volume_config *config, struct error *error);

/* May `config` be mounted on `path` (in place when it is the directory itself)? Waits for a daemon that is ending (holder.h) and removes the dead mount of
 * an earlier one. ERR_BUSY (mounted already), ERR_USAGE
 * (not empty, nested), ERR_ABSENT, ERR_DENIED (/dev/fuse), ERR_UNSUPPORTED (no FUSE in the kernel). */
int mount_point_check(const struct volume_config *config, const char *path, struct error *error);

/* ERR_BUSY when it is in use, so that unmounting would fail; 0 when not, or when only trying can tell (not root). Leaves it mounted. */
int mount_point_check_idle(const char *path, struct error *error);

/* umount(2) as root, else fusermount3. `lazy`: also while in use, at once out of the tree. ERR_BUSY: in use. ERR_ABSENT: no such mount or path. Any thread; waits for write-back. */
int mount_point_unmount(const char *path, bool lazy, struct error *error);
/* That very mount, wherever it is now (corrects `path`). 0: it is gone, though perhaps by somebody else. ERR_BUSY: in use, or another mount lies over it, which is not touched. Any other error: it may be there. */
int mount_point_unmount_this(struct mount_entry *mount, bool lazy, struct error *error);

#endif
