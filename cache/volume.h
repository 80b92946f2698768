/* volume: one mirrored directory on this machine: its state directory ($YESTER_STATE_DIR/NAME, 0700), the lock on it, the database, the backing tree, nodes, journal, chunk cache.
 * Opened by the mount daemon, and by verbs on an unmounted volume, under the same exclusive lock.
 *
 * Files: volume.c opening, closing, the parts; volume_state.c the state directory and its lock; volume_backing.c the backing tree; volume_rest.c (volume_rest.h) what an unmounted one says.
 *
 *   $STATE/NAME/lock          flock; holds the pid
 *   $STATE/NAME/volume.db     db.h
 *   $STATE/NAME/rebuild       there: the database was found damaged while it was in use
 *   $STATE/NAME/unsettled.log unsettled_log.h; overflow: unsettled.c
 *   $STATE/NAME/spool/        sealed objects, immutable (I14)
 *   $STATE/NAME/cache/        chunk cache
 *   $STATE/NAME/control.sock  of the daemon
 *
 * meta rows (integers unless said): volume_id (blob 16), encrypted (1: a downgrade is refused, fault 46), head, head_hash (blob 32: SHA-256 of log/head),
 * confirmed, confirmed_cut_ns (cut time of the newest confirmed version that is neither partial nor lacking), last_server_s, base_* (checkpoint in force), epoch, settled_epoch, durable (a counter: db.c), clean (1: I10), boot_id (blob 16), root_identity (blob),
 * imported (1: a version that is not partial exists), must_take_over (1: a fresh clone, or the user said so), rebuilt (1: the database was made anew, and no record of ours follows yet: taken over without a word if the head is ours), fenced (1), uploads_held (1: the loss of most of the tree waits for an answer).
 * Of sync: confirmed_hash (blob 32: SHA-256 of log/confirmed), server_told (versions up to this have their server time in the log), log_bytes (confirmed records since the base), base_bytes (size of
 * the last checkpoint), take_over_from (confirmed version before a take-over that has begun, -1: none). */
#ifndef YESTER_VOLUME_H
#define YESTER_VOLUME_H

#include "backing.h"
#include "chunk_cache.h"
#include "config.h"
#include "db.h"
#include "journal.h"
#include "node.h"
#include "remote.h"

#include <stdbool.h>

struct volume;

/* Makes the state directory and an empty database for config->name. ERR_EXISTS when there is one. Leaves it locked and open as volume_open does. */
int volume_create(const struct volume_config *config, struct volume **out, struct error *error);
/* Takes the lock (ERR_BUSY: "already mounted (process N)"), checks modes (0700), refuses a state directory that lies below the backing directory, opens the database. It is only
 * a cache (faults 20, 21): an absent one is made anew, empty, and a corrupt one, or one that was found damaged while it was in use, set aside as volume.db.damaged-TIME before that; the spool is emptied then, and the engine fills the database from the remote. */
int volume_open(const struct volume_config *config, struct volume **out, struct error *error);
/* Read-only beside a running daemon: no lock, no backing, database through readers only. */
int volume_open_reader(const struct volume_config *config, struct volume **out, struct error *error);
/* Opens the backing tree and compares its identity with meta root_identity (first time: records it). ERR_FAILED: "is not the directory it was at init". `adopt`: record the new identity instead. */
int volume_open_backing(struct volume *volume, bool adopt, struct error *error);
/* Starts journal (and its thread). Reads and resets the clean mark: *clean tells how the last session ended, *same_boot whether the kernel is still the same. */
int volume_start_journal(struct volume *volume, void (*wake)(void *), void *context, bool *clean, bool *same_boot,
			 struct error *error);
/* Stops the journal if started; mark_clean as journal_close, but not after an unclean session whose rescan has not come to its end. Closes everything, releases the lock. NULL is fine. */
void volume_close(struct volume *volume, bool mark_clean);

const struct volume_config *volume_config(const struct volume *volume);
const char *volume_state_path(const struct volume *volume);
int volume_state_fd(const struct volume *volume);
int volume_spool_fd(const struct volume *volume);
struct db *volume_db(struct volume *volume);
struct backing *volume_backing(struct volume *volume);     /* NULL before volume_open_backing */
struct node_table *volume_nodes(struct volume *volume);
struct journal *volume_journal(struct volume *volume);     /* NULL before volume_start_journal */
struct chunk_cache *volume_chunk_cache(struct volume *volume);
struct remote *volume_remote(struct volume *volume);       /* set by the engine */
/* NULL: takes it away, once nothing reads ahead with it any more; no history_read may be under way. */
void volume_set_remote(struct volume *volume, struct remote *remote);
/* Whether the database has turned out to be damaged (db_damaged). Then the next volume_open makes a new one: a file says so, durably and also after a kill (what was damaged may look whole the next time, or
 * where a check does not look); but not when it is a reader's, who does not hold the lock and may look at the database before this one. Cheap; volume_close asks as well. Any thread. */
bool volume_is_damaged(struct volume *volume);
/* A rescan came to its end: whatever the last session left is in the database. */
void volume_set_scanned(struct volume *volume);
/* O_RDONLY|O_NOATIME descriptor of the live file with that catalogue number, or -1: history reads unchanged chunks from it (I25). May wait for who holds a lease on it. */
int volume_open_live(struct volume *volume, int64_t ino);

/* Process that holds the lock of a volume's state directory, 0 if none. */
int volume_lock_holder(const struct volume_config *config);

#endif
