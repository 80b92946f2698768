/* backing: safe access to the backing tree: through one descriptor opened before the mount, file handles, and *at() calls.
 * Nothing here ever resolves an absolute path below the mount (it would recurse into ourselves).
 *
 * As root the descriptor is a private clone of the mount without its submounts (open_tree(2) OPEN_TREE_CLONE): a filesystem
 * mounted inside the tree, or an automount trigger over it, is not crossed; what shows is the directory beneath. Without that right such
 * entries show, and backing_identify gives them a key of type NODE_KEY_FOREIGN: nothing below them is ours, a directory counts as empty.
 *
 * Where handles can't be used (no CAP_DAC_READ_SEARCH, or a filesystem without them) a key says which inode is meant, but not how to reach it: then
 * node->held_fd does, and for nodes that came from the database the resolver (backing_set_resolver).
 *
 * Files: backing.c opening and identity of the root; backing_filesystem.c which filesystem it is; backing_key.c keys of inodes; backing_reopen.c descriptors of nodes; backing_fd.c their cache;
 * backing_attrs.c stat, xattrs, link targets; backing_lease.c leases.
 *
 * All functions: any thread, unless said. Descriptors are O_CLOEXEC. */
#ifndef YESTER_BACKING_H
#define YESTER_BACKING_H

#include "err.h"
#include "node.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct backing;
struct statx;

/* What a rescan compares and a version records. */
struct attrs {
	struct stat st;
	int64_t btime_ns;        /* 0 when the filesystem has none */
	void *xattrs; size_t xattrs_length; /* catalogue_schema.h's encoding; NULL: none. Owned. */
	char *target; size_t target_length; /* symlinks; with a NUL behind it. Owned. */
};
/* Zero-initialised is fine, and what remains. */
void attrs_free(struct attrs *attrs);

#define BACKING_IDENTITY_BYTES 96
/* Also where an automount trigger covers the directory (as root). ERR_ABSENT, ERR_DENIED, ERR_FAILED (not a directory). */
int backing_open(const char *directory, struct backing **out, struct error *error);
/* NULL is fine. */
void backing_close(struct backing *backing);
int backing_root_fd(const struct backing *backing); /* O_RDONLY directory; stays ours */
bool backing_has_handles(const struct backing *backing);
/* Filesystem UUID (or the best substitute) and handle of the root: equal at each mount of the same directory. Returns the
 * bytes used. */
size_t backing_identity(const struct backing *backing, uint8_t out[BACKING_IDENTITY_BYTES]);
/* Does one name mean one entry only, or another by its case as well? */
enum backing_names { BACKING_EXACT, BACKING_BY_DIRECTORY /* ask backing_folds_case */, BACKING_UNKNOWN };
/* *local: the filesystem is one that only this machine changes. */
void backing_nature(const struct backing *backing, bool *local, enum backing_names *names);
/* Whether that directory (any descriptor but O_PATH) does; true when it can't be said. */
bool backing_folds_case(int fd);
/* Boot id of the running kernel, 16 bytes (random if it can't be read: another boot, to be safe). */
void backing_boot_id(uint8_t out[16]);

/* Opens `name` in directory dirfd as O_PATH|O_NOFOLLOW, gives its key and stat. "" is dirfd itself. fd_out NULL: closed
 * again. 0 or -errno. */
int backing_identify(struct backing *backing, int dirfd, const char *name, struct node_key *key, struct stat *st,
		     int *fd_out);
/* Finds an inode by a key without handle: a fresh O_PATH descriptor or -errno. Called under no lock of backing. */
typedef int backing_resolve_fn(void *context, const struct node_key *key);
/* NULL: none. Not while others use the backing. */
void backing_set_resolver(struct backing *backing, backing_resolve_fn *fn, void *context);

/* A descriptor of the node, O_PATH, from a bounded cache; give it back with backing_fd_put. Or -errno (-ESTALE: the inode is
 * gone). Not usable for reading and writing. */
int backing_fd_get(struct backing *backing, struct node *node);
void backing_fd_put(struct backing *backing, struct node *node, int fd);
/* When the kernel has forgotten the node: closes its descriptor, at once or when it is given back, also one that was held: it would keep the space of a
 * removed file in use for as long as the node is in the journal. Of nodes without handle only when nothing in the tree leads to the inode any more; their
 * descriptor is used by operations of the kernel that hold a lookup, and by others under node->lock (taken here). */
void backing_fd_drop(struct backing *backing, struct node *node);
/* The cached one by number: for node_table_on_free (`context` is the backing). */
void backing_fd_drop_id(void *context, uint64_t nodeid);
/* Descriptors in the cache, for tests. */
size_t backing_fd_count(struct backing *backing);
/* A descriptor of its own with open(2) flags (no O_CREAT; O_NOATIME where permitted). Or -errno (-EACCES: of another mount,
 * and not O_PATH). */
int backing_reopen(struct backing *backing, struct node *node, int flags);
int backing_reopen_key(struct backing *backing, const struct node_key *key, int flags);
/* Before the last name may go: the inode stays reachable until backing_fd_drop. 0 or -errno. */
int backing_hold(struct backing *backing, struct node *node);
/* Path "/proc/self/fd/N" of a descriptor, for calls without an O_PATH form (xattrs, chmod). They act on the inode itself,
 * symlinks included. */
#define BACKING_PROC_PATH 40
void backing_proc_path(char out[BACKING_PROC_PATH], int fd);

/* True for an errno that tells of this machine's memory or descriptors, and nothing of the file: it passes. */
bool backing_is_shortage(int number);
/* Stat, birth time, xattrs, link target of an O_PATH or other descriptor. 0 or -errno (out is then empty). Virtual names
 * (user.yester.*) are left out, and so are xattrs that we may not read. */
int backing_attrs(struct backing *backing, int fd, struct attrs *out);
/* Reverse of the xattr encoding: calls fn for each; -EINVAL when malformed (fn may have been called before); fn's first result that is not 0 stops. */
int attrs_xattr_each(const void *xattrs, size_t length,
		     int (*fn)(void *context, const char *name, const void *value, size_t value_length), void *context);

/* Whether a file is open for writing anywhere, or mapped so that it can be: takes a read lease (F_SETLEASE) on `fd`, open for reading only, and gives it back at once. 0: no; -EAGAIN: yes; or -errno.
 * Meanwhile an open of the file for writing waits, or fails with EWOULDBLOCK when it is to be non-blocking: the caller keeps our own away. SIGIO is ignored by the process from then on. */
int backing_lease(int fd);
/* Whether a regular file is open or mapped, be it for reading only, but for `fd` itself (O_PATH does not count): asked by a write lease (generic_setlease() looks at i_readcount, too, Linux 6.18 fs/locks.c).
 * Meanwhile each other open of it waits, or fails with EWOULDBLOCK, likewise. True when it can't be said. SIGIO as above. */
bool backing_is_in_use(int fd);
/* True when a lease tells the truth on this filesystem: tried with a file without a name. */
bool backing_leases_tell(struct backing *backing);
/* True when files can be opened with O_DIRECT: tried likewise. */
bool backing_has_direct_io(struct backing *backing);

/* I13: bytes free for us on the filesystem of that descriptor, above the reserve (the larger of 5 % and 256 MiB, but at most
 * a quarter of the filesystem; 0 when below). */
uint64_t backing_free_above_reserve(int fd);
/* 0 or -errno. */
int backing_syncfs(struct backing *backing);

#endif
