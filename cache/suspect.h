/* suspect: inodes that may change unseen, through a shared writable mapping of the backing file itself (fs/io_mode.h, a *risky* open).
 *
 * Such a mapping outlives the descriptor that it was made with, this process, and the mount; it holds the backing file open for writing, and nothing else shows that it is there: after the first store to
 * a page, further ones change no timestamp. So the set is kept in the database, and an inode leaves it only on proof.
 *
 *   state      meaning                                                    row   left by
 *   (absent)   every change reaches us, or shows in its timestamps        -     suspect_add
 *   suspect    there may be such a mapping                                yes   suspect_check: quiet, when the filesystem grants a lease
 *   quiet      there was none any more, and all of its content is         yes   suspect_add: suspect again; cut_forget_rows of a cut that has it: removing
 *              in the journal since (dirt of `epoch` or later)
 *   removing   the transaction that makes its version exist (I11)         yes   suspect_end: committed: absent, unless added meanwhile; failed: quiet
 *              removes the row
 *
 * The proof: fcntl(F_SETLEASE, F_RDLCK) on a read-only descriptor is refused with EAGAIN while the inode is open for writing anywhere, and a writable mapping holds it open
 * (generic_setlease() asks inode_is_open_for_write(), Linux 6.18 fs/locks.c). Not on every filesystem: overlayfs maps the file of a layer, and grants the lease meanwhile (seen on 6.18). So backing_leases_tell
 * tries it with a file of its own; where it does not tell, fs uses no passthrough, and nothing becomes suspect.
 * While the lease is held, our own opens for writing would wait for it to be given back, or fail: the guard keeps them away for these microseconds.
 *
 * A suspect inode is journaled whole each time that suspect_check is due, so that what was stored gets into a version; not more often than that reading it takes a tenth of the time. Content
 * that did not change makes no version.
 * I24, I10: while there are any, the volume is not synced, and is not marked clean. After a start all rows are suspect, and journaled.
 *
 * Files: suspect.c the set and its rows; suspect_check.c the proof.
 *
 * Threads: suspect_add, suspect_is, suspect_poke, suspect_in_use: any; suspect_check, suspect_due: the pipeline's, with no cut under way. The lock is a leaf; no database call under it. */
#ifndef YESTER_SUSPECT_H
#define YESTER_SUSPECT_H

#include "journal.h"

/* The inode is suspect, durably, when this returns 0. Blocks for a database commit if it is not yet: worker threads only. -ENOMEM, or -EIO: the database refuses, and the inode may not be suspect. */
int suspect_add(struct journal *journal, struct node *node);
/* The same if that takes no commit, because it is suspect already; false: nothing is done. Quick. */
bool suspect_again(struct journal *journal, const struct node *node);
/* Quick. */
bool suspect_is(struct journal *journal, const struct node *node);
/* The last open that can write is gone: a good time for suspect_check. Quick. */
void suspect_poke(struct journal *journal, const struct node *node);

/* Whether somebody has the file open or mapped, be it for reading only (backing_is_in_use), but for the descriptor by which the present cut is read. The caller has none of its own. True when it
 * can't be said. Quick; takes node->lock. */
bool suspect_in_use(struct journal *journal, struct node *node);

/* hold: true when no open of ours can write to the inode; none is answered until resume. NULL (and before): there are no opens. Returns when no check uses the former one any more. */
struct suspect_guard {
	bool (*hold)(void *context, const struct node *node);
	void (*resume)(void *context, const struct node *node);
	void *context;
};
void suspect_set_guard(struct journal *journal, const struct suspect_guard *guard);

/* Monotonic; INT64_MAX: never (none is suspect, or all are in the journal already). */
int64_t suspect_due(struct journal *journal);
/* Those that are due, or all: looks whether they can be quiet, and journals them whole. 0 or enum err. */
int suspect_check(struct journal *journal, bool all, struct error *error);

/* When the database refused a row, a mark in the state directory stands for all that it did not take: the rescan of the next start then asks for each regular file (suspect_look: 0, -ENOMEM, -EIO),
 * takes its content for unknown, and says when it is through. */
bool suspect_overflowed(struct journal *journal);
/* The same mark, when the database with all rows is gone and a new one is about to be made in that state directory: mappings outlive it. 0, or -1 with errno. */
int suspect_forgotten(int state_fd);
int suspect_look(struct journal *journal, const struct node_key *key);
int suspect_looked(struct journal *journal, struct error *error);

#endif
