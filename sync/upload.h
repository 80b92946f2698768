/* upload: brings spooled objects to the remote: packs in parallel, log records one after the other (PROTOCOL Commit 3-7).
 *
 * A worker takes the oldest pack that nobody works on; the log thread takes record N when every pack of versions up to N is acknowledged and N-1 is confirmed (I15). All threads sleep while there is nothing
 * to do. After ERR_RETRY all wait with full jitter, 1 s to 60 s, for ever; after a refusal (DENIED, FAILED) a minute.
 *
 *   state      meaning                                          left by
 *   paused     nothing is begun                                 upload_resume
 *   running    as above                                         upload_pause, fenced, lost
 *   fenced     another writer owns the log: nothing is begun    never (a take-over starts from paused)
 *   lost       as fenced, while taking over: replay the log     upload_pause
 */
#ifndef YESTER_UPLOAD_H
#define YESTER_UPLOAD_H

#include "spool.h"
#include "store.h"

#include <stdbool.h>

struct upload;

enum upload_trouble { UPLOAD_FINE, UPLOAD_OFFLINE, UPLOAD_REFUSED };

struct upload_status {
	int64_t confirmed, confirmed_cut_ns; /* cut time of the newest confirmed version that is neither partial nor lacking, 0: none */
	uint8_t confirmed_hash[SHA256_BYTES];
	int64_t oldest_cut_ns;               /* of the oldest record not confirmed, 0: none */
	uint64_t files;                      /* inodes in versions not confirmed */
	bool contact;                        /* the remote was seen to be the one we know (Commit 7) */
	bool fenced, lost, damaged;          /* damaged: an object in the spool is not what it was */
	enum upload_trouble trouble;
	uint64_t failures;                   /* in a row */
	uint64_t successes;                  /* objects sent since start */
	struct error error;                  /* of the last failure; code 0 after a success */
	int64_t error_ns;                    /* wall clock */
};

/* changed: called (from upload's threads, under no lock) when a version was confirmed or the state changed. Starts the threads, paused. */
int upload_start(struct volume *volume, struct store *store, struct spool *spool, void (*changed)(void *), void *context,
		 struct upload **out, struct error *error);
/* Ends what is in flight (store_cancel must have been called, or it is waited for), joins, frees. NULL is fine. */
void upload_stop(struct upload *upload);

/* Returns when nothing is in flight. Forgets `lost`, `damaged` and the waiting time. */
void upload_pause(struct upload *upload);
/* Forgets all objects and loads those that the database has. Paused only. */
int upload_reload(struct upload *upload, struct error *error);
/* contact: the caller has just compared the remote himself. taking_over: a lost race is not the end. */
void upload_resume(struct upload *upload, bool contact, bool taking_over);
void upload_hold(struct upload *upload, bool held);
/* Another writer owns the log, as the caller has found out and noted: from here on `fenced`, for that reason. */
void upload_fence(struct upload *upload, const struct error *error);
/* Tries at once what waits for its time. */
void upload_kick(struct upload *upload);

/* A pack of a version that is still being sealed may travel already. Once acknowledged it leaves the spool (spool.h). */
void upload_offer(struct upload *upload, struct spool_object *object);
/* Waits until something was sent since status.successes was `seen`, at most timeout_ns; may return earlier. */
void upload_await(struct upload *upload, uint64_t seen, int64_t timeout_ns);
/* The sealing's list is about to be committed: writes its rows in the I11 transaction, in the state they are in; what has left the spool has none, and is as good as acknowledged for ever. */
int upload_register(struct upload *upload, struct spool_object *list, struct db_conn *conn, struct error *error);
/* That transaction was committed: takes over the list. */
void upload_accept(struct upload *upload, struct spool_object *list);
/* The list's version comes to nothing: files go, also of what is in flight. Frees. */
void upload_discard(struct upload *upload, struct spool_object *list);

void upload_get_status(struct upload *upload, struct upload_status *out);

#endif
