/* volume_rest: what the database says of a volume that nobody has mounted: for `status`. It knows nothing of edits since the last unmount: only a rescan finds these. */
#ifndef YESTER_VOLUME_REST_H
#define YESTER_VOLUME_REST_H

#include "volume.h"

struct volume_rest {
	uint8_t volume_id[16];
	int64_t head, confirmed;        /* newest spooled and newest confirmed version; 0: none */
	int64_t confirmed_cut_ns;       /* cut time of the newest confirmed version that is neither partial nor lacking; 0: none */
	bool has_confirmed_hash;
	uint8_t confirmed_hash[32];     /* of log/confirmed, when it is known */
	uint64_t pending_files, pending_bytes; /* journaled, waiting in the backlog, or spooled and not confirmed */
	int64_t oldest_cut_ns;          /* of the oldest version that is not confirmed; 0: none */
	uint64_t backlog_files, backlog_bytes;
	uint64_t suspect_files;         /* suspect.h */
	uint64_t spool_bytes;           /* sealed and not confirmed */
	bool imported, fenced, must_take_over, uploads_held;
};

/* `volume` from volume_open or volume_open_reader. ERR_FAILED, ERR_CORRUPT, ... */
int volume_rest_read(struct volume *volume, struct volume_rest *out, struct error *error);

#endif
