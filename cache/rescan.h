/* rescan: compares the backing tree with the catalogue and writes what differs into the backlog tables (PROTOCOL "Start",
 * I7, I8, I12; fault 23).
 *
 * For each entry: handle and stat against local_inode (captured stat, racy counts as different), name against the live name
 * row. What is different becomes backlog_inode / backlog_name; an absence counts only after the full walk. What the journal already holds
 * needs no backlog row: after a clean stop a partially changed file whose stat equals the one journaled stays partial; after an unclean stop it is
 * whole (I12). Unsettled inodes count as different if the boot id changed without a clean mark (I9).
 *
 * Operations go on meanwhile. What they change is in the journal; what they move about could hide from the walk: entries that the journal names and the walk
 * has not met are looked at afterwards. Directories gone from the disk take the names below them with them, each as an absence of its own.
 *
 * Backlog rows of inodes stay until they are captured (several rescans may pass before that), those of names are made anew each time. What was unreadable is tried again after each.
 *
 * The listener of behind.h hears of every inode that is met and of every name that goes to the backlog.
 *
 * Runs in a thread of the engine, on read connections, writing in small transactions. Metadata only: no file is opened for
 * reading. Memory: a bit for each known inode, 16 bytes for each directory, 15 for each directory not yet visited.
 *
 * Files: rescan.c the passes; rescan_entry.c one directory, one entry; rescan_rows.c what is kept meanwhile; backlog.c the backlog; backlog_rows.c single rows
 * of it; by_name.c what an inode's handle does not lead to. */
#ifndef YESTER_RESCAN_H
#define YESTER_RESCAN_H

#include "volume.h"

#include <stdatomic.h>

struct rescan_result {
	uint64_t seen;          /* entries walked */
	uint64_t changed;       /* backlog_inode rows */
	uint64_t changed_bytes; /* estimate: sizes of regular files among them */
	uint64_t names;         /* backlog_name rows, absences included */
	uint64_t absent;        /* names of the catalogue that are gone, and that no operation is known to have removed */
	uint64_t known;         /* live names of the catalogue before */
	uint64_t unreadable;    /* entries and directories that could not be looked at: what the catalogue has of them stays as it is */
	struct error unreadable_why; /* of the first, with its path below the root */
	uint64_t blind;         /* directories that the catalogue has and that this machine does not know (its database was lost, or another one wrote): what is absent in them shows in a scan after their capture */
};

/* Walks everything. clean, same_boot: how the last session ended. *stop: set from outside to give up (ERR_ABANDONED).
 * *progress: entries so far. The volume's journal may be NULL (nothing else then changes the tree). Not while another thread takes rows from the backlog. */
int rescan_run(struct volume *volume, bool clean, bool same_boot, atomic_bool *stop, _Atomic uint64_t *progress,
	       struct rescan_result *out, struct error *error);

/* --- The backlog. */
/* unreadable: rows of both kinds that the disk refused, and which are in none of the other numbers: they wait until backlog_try_unreadable. */
struct backlog_counts { uint64_t inodes, bytes, names, unreadable; };
int backlog_count(struct db_conn *conn, struct backlog_counts *out);
/* Moves all of it into the journal (journal_note_*): when it is small enough for an ordinary cut. Empties the tables once the journal is in the database, but for what is, or turns out to be,
 * unreadable: *unreadable says which the first was (code 0: none). */
int backlog_to_journal(struct volume *volume, struct error *unreadable, struct error *error);
/* What was unreadable is to be tried again. */
int backlog_try_unreadable(struct volume *volume, struct error *error);

#endif
