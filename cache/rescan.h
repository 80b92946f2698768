/* rescan: compares the backing tree with the catalogue and writes what differs into the backlog tables (PROTOCOL "Start", I7, I8, I12; fault 23).
 *
 * For each entry: handle and stat against local_inode (captured stat, racy counts as different), name against the live name row. What
 * is different becomes backlog_inode / backlog_name; an absence counts only after the full walk, and only if no operation touched the name meanwhile (the journal has it then).
 * What the journal already holds as changed since needs no backlog row: after a clean stop a partially changed file whose stat equals the one journaled stays partial; after
 * an unclean stop it is whole (I12). Unsettled inodes count as different if the boot id changed without a clean mark (I9).
 *
 * Runs in a thread of the engine, on read connections, writing in small transactions. Metadata only: no file is opened for reading. */
#ifndef YESTER_RESCAN_H
#define YESTER_RESCAN_H

#include "volume.h"

#include <stdatomic.h>

struct rescan_result {
	uint64_t seen;          /* entries walked */
	uint64_t changed;       /* backlog_inode rows */
	uint64_t changed_bytes; /* estimate: sizes of regular files among them */
	uint64_t names;         /* backlog_name rows */
	uint64_t absent;        /* names of the catalogue that are gone */
	uint64_t known;         /* live names of the catalogue before */
};

/* Walks everything. clean, same_boot: how the last session ended. *stop: set from outside to give up (ERR_ABANDONED). *progress: entries so far. */
int rescan_run(struct volume *volume, bool clean, bool same_boot, atomic_bool *stop, _Atomic uint64_t *progress,
	       struct rescan_result *out, struct error *error);

/* The backlog. */
int backlog_counts(struct db_conn *conn, uint64_t *inodes, uint64_t *bytes, uint64_t *names);
/* Moves all of it into the journal (journal_note_*): when it is small enough for an ordinary cut. Empties the tables. */
int backlog_to_journal(struct volume *volume, struct error *error);

#endif
