/* io_mode: how the kernel does the I/O of each inode that is open. One mode per inode at a time, counted here; the table holds what is open now, nothing else.
 *
 *   mode         the kernel                                                                       we see
 *   cached       keeps pages of our inode; every open shares them                                 each write, and each page that is written back
 *   passthrough  reads and maps the backing file itself; an open that can write, or reads past    each write with its exact range; a shared writable
 *                the page cache (O_DIRECT), is direct I/O                                         mapping not: such an open is *risky*
 *   direct       keeps no pages, sends each read and write                                        both; only for a suspect inode (suspect.h), which is
 *                                                                                                 never cached, where the kernel gives us no passthrough
 *
 * Direct is not the whole truth: mappings, sendfile(2) and splice(2) go through pages that the kernel keeps nevertheless, and do not show what is stored through a mapping from an earlier mount after that. Both are reads
 * without an owner (op_read), so that to refuse them would be SIGBUS for who maps.
 *
 * State of an inode in the table:
 *
 *   state        invariant                                    left by
 *   absent       no open of ours, none in the kernel          io_mode_enter: the first open chooses the mode (choose() in io_mode.c says how)
 *   open         opens > 0; the mode does not change;         io_mode_leave: the last one closes the backing id; absent again
 *                backing id > 0 exactly in passthrough:
 *                one per inode, shared by all its opens
 *   held         no open that can write; those that come      io_mode_resume
 *                wait (suspect.h: the lease)
 *
 * Why it never meets a kernel that has the other mode open, which would refuse the open with EIO (Linux 6.18 fs/fuse/iomode.c): the kernel's count is never greater than ours.
 *   A open     1 we count; 2 we answer; 3 fuse_finish_open() -> fuse_file_io_open(): the kernel counts
 *   B release  1 fuse_file_put() -> fuse_file_io_release(): the kernel's count goes down; 2 it sends RELEASE; 3 we count down
 *   C an answer that was not taken: the kernel had dropped the request, or refused the flags and sends RELEASE: B
 * While our count is above the kernel's (B 2), opens go on in the same mode with the same backing id, which is still open: also fine.
 *
 * Pages of our inode stay in the kernel when the last cached open is gone, and get stale while it is in passthrough. So before the first cached open is answered the kernel is made to drop them, unless the inode is
 * *warm*: closed in cached mode and not opened otherwise since. Not by an answer without keep_cache: the kernel would drop them when others have been answered and write already, and pages
 * that it drops between filling them and sending WRITE (fuse_fill_write_pages) are read again with their old bytes. That, and whether it was opened for reading and writing (which costs a database commit in
 * passthrough, so that it is cached next time), is remembered for the few thousand inodes that were opened and closed last; forgetting it is harmless.
 *
 * Passthrough also leaves mappings for reading behind, of the backing file, which live longer than their descriptors. Nothing escapes by them, but beside the kernel's pages of our inode they would not show what is stored
 * there through another mapping. So an inode that was read so is not cached again before nobody has its file in use: it is passed through. The same goes for mappings for writing of a file that was removed, which
 * is not suspect any more (suspect_check.c).
 *
 * Any thread. Locks: one per shard; before it suspects' guard (`hold`), under it what io_mode_backing takes: suspects' lock, a leaf (`suspect`), and the node's (`look`), which an operation on that inode may have for as
 * long as it takes. Under none of these is a shard's lock taken. Of the kernel nothing is asked that does I/O. */
#ifndef YESTER_IO_MODE_H
#define YESTER_IO_MODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct node;

enum io_mode { IO_CACHED, IO_PASSTHROUGH, IO_DIRECT };

/* How the table talks to the kernel (passthrough.h); the unit test has its own. */
struct io_mode_backing {
	/* Registers the file that `fd` (O_PATH) refers to: a number above 0, or -errno. Under the shard's lock. */
	int (*open)(void *context, int fd);
	void (*close)(void *context, int id);
	/* Makes it forget all pages of the inode, which nobody has open. Likewise. */
	void (*drop)(void *context, uint64_t nodeid);
	/* There may be a mapping of the file that we can't see. Asked at the first open, under the shard's lock: an answer from before might miss a mapping by opens that came and went meanwhile. Quick. */
	bool (*suspect)(void *context, const struct node *node);
	/* No open of the node is counted, and the caller has no descriptor of its file: if nobody has it in use but a sealer, whatever may have been left (in_use) is gone, and is forgotten. Under the shard's lock. */
	void (*look)(void *context, const struct node *node);
	/* Whether an earlier open of the node in passthrough, not for writing only, may have left a mapping: it had one, and somebody has the file open or mapped now, but for `fd` of the io_open. Likewise. (Another open of ours that has
	 * its descriptor and is not counted yet, or a sealer, is somebody, too; so `look` comes first, which knows better.) */
	bool (*in_use)(void *context, const struct node *node, int fd);
	void *context;
};

/* One open, on its way to the answer. */
struct io_open {
	/* in */
	const struct node *node; /* for io_mode_backing.suspect */
	uint64_t nodeid;
	int path_fd;    /* O_PATH, of the inode */
	int fd;         /* of this open */
	int flags;      /* of open(2) */
	bool filled;    /* the file has content */
	bool plain;     /* not to be passed through, unless it is already: made by O_TMPFILE and without a name yet, so that a suspect inode without one has lost it for good; or no handle leads to it after a restart; or it may only grow */
	bool fresh;     /* just made: the kernel has no pages */
	/* out */
	enum io_mode mode;
	int backing_id; /* in passthrough */
	bool direct, parallel, keep_cache; /* as in struct fuse_file_info */
	bool risky;     /* may store through a shared mapping that nobody sees: the inode must be suspect before this is answered */
};

struct io_table;
/* NULL: out of memory. */
struct io_table *io_table_new(const struct io_mode_backing *backing);
/* After the session; what is still open is forgotten. NULL is fine. */
void io_table_free(struct io_table *table);
/* May be called once requests arrive: from here on first opens may choose passthrough (or not). */
void io_table_allow(struct io_table *table, bool passthrough);

/* Before the file is opened below for an open of that node with these flags, unless it is made: its own descriptor would be in the way of `look`. */
void io_mode_look(struct io_table *table, const struct node *node, uint64_t nodeid, int flags);
/* Before an open is answered. 0, or -ENOMEM: not counted. Waits while the inode is held, if it can write. */
int io_mode_enter(struct io_table *table, struct io_open *open);
/* At RELEASE, or when the answer was not taken. `flags` as at io_mode_enter. True: it was the last that could write. */
bool io_mode_leave(struct io_table *table, uint64_t nodeid, int flags);

/* True when pages of our inode that the kernel keeps may be newer than the file, because a mapping is stored to: it is cached, and open for reading and writing (or was until RELEASE: a mapping keeps its file open). */
bool io_mode_may_store(struct io_table *table, uint64_t nodeid);

/* True: no open of the inode can write, and none will be counted until io_mode_resume, to be called very soon. False: one can. One holder of an inode at a time. */
bool io_mode_hold(struct io_table *table, uint64_t nodeid);
void io_mode_resume(struct io_table *table, uint64_t nodeid);

/* Inodes in the table, for tests. */
size_t io_table_count(struct io_table *table);

#endif
