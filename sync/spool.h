/* spool: sealed objects on the local disk, on their way to the remote; later a cache of what was sent. Files in the volume's spool directory, rows in cache/spool_table.
 *
 * An object's file is written whole and fsynced before its row exists (PROTOCOL Seal), never changed afterwards (I14), and removed only after its row: so a row without
 * a whole file means damage, and a file without a row is left over from a crash and removed at the next start. (A file whose object is done may go before its row does.)
 *
 * A version may be larger than the spool: a pack that the remote acknowledges before its version exists leaves the spool at once and never gets a row. What the version needs of it
 * from then on, history included, is in the remote. Should the version come to nothing, or a crash come first, the pack is an orphan there: no record names it.
 * Any thread. */
#ifndef YESTER_SPOOL_H
#define YESTER_SPOOL_H

#include "buf.h"
#include "spool_table.h"
#include "store.h"
#include "volume.h"

#include <stdbool.h>

struct spool;

/* One object that is not done, from its writing until it is: first of the sealing that made it alone, then shared with upload, which counts references. */
struct spool_object {
	struct spool_object *next;  /* the sealing's list */
	struct spool_object *queue; /* upload's lock: its list */
	struct spool_row row;       /* upload's lock once it was offered: state */
	int references;             /* upload's lock once it was offered; 1 when new */
	bool registered; /* upload's lock: its row is in the database, or will be before anyone else gets the write lock */
	bool gone;       /* upload's lock: acknowledged before that: it has left the spool, and needs no row */
	bool offered;    /* its sealing's lock: upload knows it */
	bool queued, in_flight, dropped; /* upload's lock */
	/* Records only. */
	bool incomplete, take_over; /* incomplete: partial or lacking, never called safe */
	int64_t cut_ns;
	uint64_t files; /* inodes that the version captured */
};

int spool_open(struct volume *volume, struct spool **out, struct error *error);
void spool_free(struct spool *spool);

/* Writes and fsyncs one object (not the directory). Failpoints spool/pack-written, spool/pack-fsynced. ERR_NOSPACE also below the reserve (I13). */
int spool_write(struct spool *spool, enum spool_kind kind, int64_t seq, const char *key, const struct buf *bytes,
		const uint8_t hash[SHA256_BYTES], struct spool_object **out, struct error *error);
/* A fresh file to write a record into; spool_finish_record fsyncs it, closes fd in any case, and makes the object. */
int spool_begin_record(struct spool *spool, const char *key, int *fd, struct error *error);
int spool_finish_record(struct spool *spool, int fd, int64_t seq, const char *key, uint64_t length,
			const uint8_t hash[SHA256_BYTES], struct spool_object **out, struct error *error);
/* All files made so far are found after a power cut. */
int spool_sync(struct spool *spool, struct error *error);
/* Removes the file of an object without a row. */
void spool_discard(struct spool *spool, const struct spool_object *object);
void spool_object_free(struct spool_object *object);

/* Opens the object's file as a body for store_put: the caller closes body->fd. ERR_CORRUPT: absent or of another length. */
int spool_body(struct spool *spool, const struct spool_row *row, struct store_body *body, struct error *error);
/* The whole object, verified by its hash. ERR_CORRUPT. */
int spool_verify(struct spool *spool, const struct spool_row *row, struct error *error);
/* Replaces a damaged file by the bytes that the remote has. */
int spool_mend(struct spool *spool, const struct spool_row *row, const struct buf *bytes, struct error *error);
/* The file's removal, after its row's. */
void spool_unlink(struct spool *spool, const char *object);

/* Bytes of objects that are not done; and room for more (I13, spool_limit): false when cuts must wait, with the reason in *error. */
uint64_t spool_pending_bytes(struct spool *spool);
bool spool_has_room(struct spool *spool, struct error *error);
/* So many bytes would fit if all that is on its way, or kept as cache, had left. */
uint64_t spool_capacity(struct spool *spool);
/* Counts an object of the database as pending; it became done (acknowledged, confirmed); it is discarded. */
void spool_count_pending(struct spool *spool, uint64_t bytes);
void spool_count_done(struct spool *spool, uint64_t bytes);
void spool_count_gone(struct spool *spool, uint64_t bytes);
/* Deletes the oldest objects of confirmed versions until the cache is below its limit. (When the disk is nearly full all of them go, before anything else fails for want of space.) */
int spool_evict(struct spool *spool, struct error *error);

#endif
