/* journal: what changed since the last cut, and the cut itself. PROTOCOL "Mutation", "Journal thread", "Cut".
 *
 * --- State of one inode's changes (struct dirt, one per inode and epoch)
 *
 *   state     where                     meaning                                           who moves it on
 *   dirty     node->dirt, epoch = now   recorded since the last cut                       journal_cut: a pointer swap, no inode is touched
 *   frozen    node->dirt, epoch < now,  belongs to the present cut; its bytes and         first toucher (operation or sealer) moves it to node->frozen
 *             or node->frozen           attributes of the cut are still only on disk
 *   saved     node->frozen              an operation saved what it was about to change    operation, under node->lock (I4)
 *   read      node->frozen              the sealer has its own copy                       frozen_* below, under node->lock (I5)
 *   gone                                spooled: cut_commit; abandoned: cut_abandon merges it back to dirty (I6)
 *
 * At most one cut exists at a time, so an inode has at most one dirty and one frozen part.
 *
 * --- Locks, in the order in which they may be taken
 *   0 suspects' guard (suspect.h), then locks of fs/io_mode.h; of these only the former is held when 1 is taken
 *   1 cut lock, read side (mutation_begin .. mutation_end); its write side is taken only by journal_cut, with a deadline, holding nothing
 *   2 node->lock of up to four nodes, by ascending address (mutation_lock); of a node that the kernel has not heard of yet: any time
 *   3 journal shard locks (lists of dirt), node table shards, descriptor cache: leaves, nothing is taken inside
 * No SQLite call and no network happen under any of them (I1).
 *
 * --- Epochs. The number of cuts taken, kept across mounts. epoch in which a row was recorded decides what a cut took (rows <= its epoch). */
#ifndef YESTER_JOURNAL_H
#define YESTER_JOURNAL_H

#include "backing.h"
#include "db.h"
#include "extent_map.h"
#include "node.h"

#include <stdbool.h>
#include <stdint.h>

struct journal;
struct dirty_name;

/* ---------------------------------------------------------------- recording: fs, one mutation per FUSE request that changes something */

struct mutation { /* on the stack of the operation; all fields private */
	struct journal *journal;
	int stripe;
	struct node *locked[4];
	int locked_count;
	struct node *name_dir[2];
	struct dirty_name *name[2];
	int name_count;
	struct dirt *spare; /* for mutation_adopt */
};

/* Takes the read side of the cut lock and reserves memory (I1). 0 or -ENOMEM. May wait while a cut swaps (microseconds). */
int mutation_begin(struct mutation *mutation, struct journal *journal);
/* Locks the nodes in address order; NULLs and repetitions are fine. Once per mutation, before the calls below. */
void mutation_lock(struct mutation *mutation, struct node *a, struct node *b, struct node *c, struct node *d);

/* Before the operation, for each locked node that it will change; each saves what is frozen (I4) and records (I2). 0 or -ENOMEM.
 * Recorded as attempted: they stay recorded if the operation fails. */
int mutation_attrs(struct mutation *mutation, struct node *node);
/* Bytes [offset, offset + length) (length < 0: to the end and beyond, for truncation) and attributes. */
int mutation_data(struct mutation *mutation, struct node *node, int64_t offset, int64_t length);
/* The node loses a name: attributes, and a descriptor is kept if its frozen bytes are still on disk only; also held for the kernel if it has lookups. */
int mutation_unname(struct mutation *mutation, struct node *node);
/* The name will change: reserves; also mutation_attrs(dir). At most two per mutation; the first reserved is slot 0. */
int mutation_name(struct mutation *mutation, struct node *dir, const char *name);

/* After the operation succeeded: the name's new value (NULL: absent). Never called for an operation that failed. Can't fail. */
void mutation_set_name(struct mutation *mutation, int slot, struct node *child);
/* A node that the operation created (not locked by this mutation): records it as new. Can't fail. */
void mutation_adopt(struct mutation *mutation, struct node *child);
/* Unlocks, drops what was reserved and not used, leaves the cut lock. */
void mutation_end(struct mutation *mutation);

/* I9: returns when the inode, if it has changes that are not captured, is durably in the unsettled set; then the caller fsyncs the backing file. Blocks
 * for a database commit: worker threads only. 0 or -EIO. */
int journal_wait_unsettled(struct journal *journal, struct node *node);

/* True when the inode has, or may have (suspect.h), changes that are not in a spooled version. */
bool journal_node_pending(struct journal *journal, struct node *node);

/* ---------------------------------------------------------------- the cut and its sealing: sync's pipeline thread and its sealers */

struct cut;
struct frozen; /* one inode of a cut (a struct dirt) */

/* Ends the version: swaps the dirty set for an empty one (I1, I3). ERR_ABSENT: nothing is dirty. ERR_TIMEOUT: operations did not let go in time; try again. One cut at a time. */
int journal_cut(struct journal *journal, int64_t wait_ns, struct cut **out);
int64_t cut_epoch(const struct cut *cut);
int64_t cut_time_ns(const struct cut *cut); /* wall clock at the swap */
size_t cut_count(const struct cut *cut);
struct frozen *cut_item(struct cut *cut, size_t index);
/* True once there was no room for what an operation had to save (I6): the sealer gives up and calls cut_abandon. */
bool cut_is_abandoned(const struct cut *cut);
/* Merges everything back into the dirty set. Frees the cut. */
void cut_abandon(struct cut *cut);
/* In the I11 transaction: removes the journal rows of this cut; its inodes are unsettled from now on, if they were not (I10). */
int cut_forget_rows(struct cut *cut, struct db_conn *conn, struct error *error);
/* After the I11 transaction committed. Frees the cut and all saved bytes. */
void cut_commit(struct cut *cut);

const struct node_key *frozen_key(const struct frozen *frozen);
mode_t frozen_type(const struct frozen *frozen);
/* Names changed in this directory, with their values at the cut (I3); child NULL: absent. Stops at fn's first non-zero result and returns it. */
int frozen_names(const struct frozen *frozen,
		 int (*fn)(void *context, const char *name, const struct node_key *child, mode_t type), void *context);
/* Attributes as of the cut: the saved ones, or read now and marked as read. `out` is the caller's copy. ERR_ABSENT: no name was left of it at the cut, or its handle opens nothing: it was
 * removed behind our back, or the disk does not give it (by_name.h). ERR_DENIED: unreadable. ERR_ABANDONED. */
int frozen_attrs(struct frozen *frozen, struct attrs *out);
/* The errno with which the tree's disk refused to give this inode's attributes or bytes, to us or to an operation that had to save them; 0: none so far. Nobody knows them as
 * of the cut any more. Neither the cut nor the operation fails for that. */
int frozen_unreadable(struct frozen *frozen);
/* The whole file changed (new, or not known in parts). */
bool frozen_whole(const struct frozen *frozen);
/* Somebody else has changed it behind the mount, after the last operation: its ctime says so, which is no later than the end of an operation (but of the same tick of the kernel's clock, it may be; and a filesystem whose clock is another machine's may say so wrongly).
 * Which bytes, nobody knows. `attrs` are those of frozen_attrs. */
bool frozen_changed_behind(const struct frozen *frozen, const struct attrs *attrs);
/* Changed ranges at the cut; constant while the cut lives. */
const struct extent_map *frozen_extents(const struct frozen *frozen);
/* Next byte of data at or after offset and before `end` (end: none, all hole), as of the cut; what is skipped counts as read. Needs frozen_attrs before. */
int64_t frozen_next_data(struct frozen *frozen, int64_t offset, int64_t end);
/* Where the data at offset ends on disk now, at most `end`: a hint, as what an operation has changed since the cut is saved elsewhere. `end` when it is not known, offset when it has become a hole. */
int64_t frozen_next_hole(struct frozen *frozen, int64_t offset, int64_t end);
/* The bytes [offset, offset + length) as of the cut, into the private buffer (I5); beyond the size at the cut: zeros. Only ranges in frozen_extents are as of the cut. 0, ERR_ABANDONED, ERR_ABSENT, ERR_FAILED
 * (sys_errno in error). */
int frozen_read(struct frozen *frozen, void *data, size_t length, int64_t offset, struct error *error);
/* Bytes outside frozen_extents, for re-sealing of dense regions: 0 only if nobody changed them since the cut; ERR_BUSY otherwise. */
int frozen_read_unchanged(struct frozen *frozen, void *data, size_t length, int64_t offset, struct error *error);
/* The sealer needs nothing more of it: closes its descriptor, frees saved bytes. */
void frozen_done(struct frozen *frozen);

/* ---------------------------------------------------------------- life */

struct journal_counts {
	uint64_t dirty_inodes, dirty_names;
	int64_t dirty_bytes;      /* estimate */
	int64_t first_change_ns;  /* monotonic clock, of the oldest uncut change; 0: none */
	int64_t frozen_bytes;     /* estimate of what the sealer has not yet read of the present cut */
	int64_t frozen_first_ns;  /* monotonic clock, of the cut's oldest change; 0: there is no cut */
	uint64_t preimage_bytes;
	uint64_t abandoned;       /* cuts abandoned since start */
	uint64_t unsettled;       /* rows, at most; 0: none */
	uint64_t suspects;        /* inodes that may change unseen (suspect.h) */
};

/* Dirty inodes and names together: of so many a version is made without waiting for its time, because they are in memory, about 300 bytes each, and as much again while
 * they are sealed. */
#define JOURNAL_MANY 65536

/* Loads journaled rows (PROTOCOL Start), starts the journal thread. `state_path`: state directory, for spilled preimages and the overflow mark.
 * `clean`: how the last session ended; not clean: what was journaled in parts is whole now (I12).
 * `wake` is called when the first change after a cut is recorded, and now and then when there are many: by any thread, with node locks held: it may take a leaf
 * mutex, no more. */
int journal_open(struct db *db, struct backing *backing, struct node_table *nodes, const char *state_path, bool clean,
		 void (*wake)(void *), void *wake_context, struct journal **out, struct error *error);
/* Writes what is still in memory. mark_clean: with the stat of each inode and after a syncfs, so that nothing is unsettled any more (I10), and marks the volume clean, if no inode is suspect. Joins the thread, frees, also
 * after a failure. No mutation may be in progress. */
int journal_close(struct journal *journal, bool mark_clean, struct error *error);
void journal_get_counts(struct journal *journal, struct journal_counts *out);
/* All dirt of this process is in the database after return. */
int journal_flush(struct journal *journal, struct error *error);
/* I10: called about once a minute and at unmount: rows whose newest epoch is <= spooled_epoch leave the unsettled set after a syncfs. */
int journal_settle(struct journal *journal, int64_t spooled_epoch, struct error *error);

/* Records found by a rescan, through the same path as an operation (mutations without an operation). whole: all bytes.
 * A name is recorded as it is on disk now: what was seen of it (child) may be old, and counts only when the disk does not tell. */
int journal_note_inode(struct journal *journal, const struct node_key *key, mode_t type, bool whole);
int journal_note_name(struct journal *journal, const struct node_key *dir, const char *name,
		      const struct node_key *child, mode_t child_type);

#endif
