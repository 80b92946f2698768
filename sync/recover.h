/* recover: the catalogue from the bucket (PROTOCOL "Clone"), and the volume's objects when it is made.
 *
 * Files: recover.c the key, and the catalogue from nothing; recover_follow.c from a known head; recover_apply.c records applied; recover_log.c the log as a list and as a stream. */
#ifndef YESTER_RECOVER_H
#define YESTER_RECOVER_H

#include "crypt.h"
#include "db.h"
#include "engine.h"
#include "key.h"
#include "record.h"
#include "store.h"

/* Reads `volume` and the key slots, unlocks with what `unlock` names (may be NULL), else with what config names. The texts are given back as rows for
 * remote_object through `keep` (NULL: not wanted; 0 or enum err). unlock.h has the parts of it.
 * ERR_ABSENT "no yester volume here", ERR_KEY (wrong or missing secret), ERR_UNSUPPORTED, ERR_CORRUPT. */
int recover_unlock(struct store *store, const struct unlock *unlock, const struct volume_config *config,
		   int (*keep)(void *context, const char *key, const void *bytes, size_t length), void *context,
		   struct volume_descriptor *descriptor, struct master **out, struct error *error);

/* The newest record: number, SHA-256 of its bytes, header, and the checkpoint that it names. empty: the log has no record, all else is zero. intruder: the first record that breaks I17 (0: none): a writer
 * follows another without having taken over. That is for `check` to tell; what it says is authentic and in its place, so that it is no reason to keep the user from his files. */
struct recover_head { int64_t seq; uint8_t hash[SHA256_BYTES]; struct record_header header; struct record_base base; bool empty; int64_t intruder; };

/* Loads the newest state into an empty catalogue: newest record -> base -> records S+1..head, contiguous and chained, fetched several at a time. A 404 inside means start over (the
 * database is emptied again). Sets meta head, confirmed, head_hash, base_*, confirmed_cut_ns, imported. The database is consistent at each
 * moment: what a kill interrupts, recover_follow can finish. ERR_CORRUPT names the object. */
int recover_catalogue(struct store *store, const struct master *master, struct db *db, const char *tmp_dir,
		      progress_fn *progress, void *context, struct recover_head *out, struct error *error);
/* Applies the records that another writer (or an earlier life of this volume) added after meta head: take-over, and start-up when the local copy is older. Refuses (ERR_CORRUPT) if log/head's
 * bytes do not hash to head_hash, or if it and all after it are gone. ERR_FENCED: local unconfirmed versions are in the way (roll back first). ERR_ABSENT:
 * the records in between were deleted behind a newer checkpoint: recover_catalogue has to begin anew. */
int recover_follow(struct store *store, const struct master *master, struct db *db, const char *tmp_dir,
		   struct recover_head *out, struct error *error);
/* Forgets every version and what was captured of the live tree (spool rows stay); head = confirmed = 0. */
int recover_empty(struct db *db, struct error *error);

/* meta base_seq, base_rand, base_hash, base_log_hash, in the caller's transaction. Loading: seq 0 when there is none; enum err when they can't be read. */
int recover_save_base(struct db_conn *conn, const struct record_base *base, struct error *error);
int recover_load_base(struct db_conn *conn, struct record_base *out, struct error *error);

/* Fetches the checkpoint, verifies its hash and opens it: the catalogue image in a fresh unlinked file. ERR_ABSENT, ERR_CORRUPT: the message names it. */
int checkpoint_fetch(struct store *store, const struct master *master, const struct record_base *base,
		     const char *tmp_dir, int *image_fd, uint64_t *image_length, struct error *error);

#endif
