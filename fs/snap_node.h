/* snap_node: inodes below `.snapshots` as the kernel knows them. They change nothing and hold nothing of the network: what they are stands in the catalogue.
 *
 *   kind        is                                   found by
 *   SNAP_ROOT   a `.snapshots` directory             the live directory
 *   SNAP_LINK   `latest`, `3d-ago`: a symlink        its SNAP_ROOT, its name, and the version that it leads to
 *   SNAP_INODE  an inode of a version                version, number and, for directories, the anchor
 *
 * The kernel keeps what an inode of a symlink says for ever: another target is another inode.
 *
 * The anchor of a directory is the SNAP_ROOT's number for the one that a version's name leads to (with that name), and the number of that one for all below. So a
 * directory that is reached on two ways (`d/.snapshots/V/e` and `d/e/.snapshots/V`, two names of one version) is two inodes of the kernel, which allows a directory
 * one place only and would move it to and fro under the processes in it. st_ino is the same nevertheless.
 *
 * Numbers have the top bit set, ascend, and are never used again. A node lives as long as it has references: lookups of the kernel and operations in progress.
 * All functions: any thread. */
#ifndef YESTER_SNAP_NODE_H
#define YESTER_SNAP_NODE_H

#include "fs.h"

#include <stdint.h>
#include <sys/stat.h>

enum snap_kind { SNAP_ROOT, SNAP_LINK, SNAP_INODE };

struct snap_node { /* constant, but for the first three */
	struct snap_node *next_by_id, *next_by_key; /* table's lock, as references */
	uint64_t references;
	uint64_t nodeid;
	enum snap_kind kind;
	uint64_t anchor;
	int64_t seq, ino;
	struct node *live; /* SNAP_ROOT: the directory, referenced */
	struct stat st;    /* SNAP_INODE */
	int64_t btime_ns;  /* SNAP_INODE; 0: not known */
	bool has_xattrs;
	char name[];       /* "" but for SNAP_LINK and a version's own directory */
};

struct snap_table *snap_table_new(struct fs *fs);
/* References of a kernel that is gone are dropped. NULL is fine. */
void snap_table_free(struct snap_table *table);

/* Node like `like` (kind, anchor, seq, ino, live, st, has_xattrs) with that name, made if need be, with one more reference; NULL: out of memory. */
struct snap_node *snap_node_get(struct snap_table *table, const struct snap_node *like, const char *name);
/* With one more reference; NULL: a number that no kernel sends. */
struct snap_node *snap_node_by_id(struct snap_table *table, fuse_ino_t nodeid);
void snap_node_put(struct snap_table *table, struct snap_node *node, uint64_t count);
uint64_t snap_table_count(struct snap_table *table);

/* st_ino of inode `ino` in version seq: stable across remounts, not a live one's. */
static inline ino_t snap_st_ino(int64_t seq, int64_t ino)
{
	return UINT64_C(1) << 63 | ((uint64_t)seq & 0x7ffffff) << 36 | ((uint64_t)ino & ((UINT64_C(1) << 36) - 1));
}

/* That of `.snapshots` in the live directory with that st_ino: version 0 is none. */
static inline ino_t snap_root_st_ino(ino_t live)
{
	return snap_st_ino(0, (int64_t)live);
}

#endif
