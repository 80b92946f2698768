/* volume_internal: what volume.c, volume_state.c and volume_backing.c share. */
#ifndef YESTER_VOLUME_INTERNAL_H
#define YESTER_VOLUME_INTERNAL_H

#include "volume.h"

#include <stdatomic.h>

struct volume {
	const struct volume_config *config; /* the caller's; outlives the volume */
	char *state_path;
	int state_fd, spool_fd, lock_fd;
	struct db *db;
	struct backing *backing;
	struct node_table *nodes;
	struct node *root; /* number 1; NULL before volume_open_backing */
	struct journal *journal;
	bool started_clean;  /* how the last session ended, as volume_start_journal found it */
	atomic_bool marked;  /* the file `rebuild` is there */
	atomic_bool scanned; /* a rescan of this session came to its end */
	struct chunk_cache *chunk_cache;
	struct remote *remote;
	const struct behind_listener *listener;
};

static inline int no_memory(struct error *error)
{
	return error_set(error, ERR_NOMEM, 0, "opening the volume: out of memory");
}

/* --- volume_state.c */
/* Nothing is opened yet. NULL: out of memory. volume_close gives it back. */
struct volume *volume_new(const struct volume_config *config);
/* What of the state directory is absent. */
int volume_make_state(const struct volume_config *config, struct error *error);
/* The state directory and the spool in it, after a look at modes and place. */
int volume_open_state(struct volume *volume, struct error *error);
/* ERR_BUSY: another process has it. */
int volume_take_lock(struct volume *volume, struct error *error);
/* ERR_CORRUPT: volume_is_damaged was there. */
int volume_find_mark(struct volume *volume, struct error *error);
/* Renames a damaged database. ERR_CORRUPT when that is done. */
int volume_set_aside(struct volume *volume, struct error *error);

#endif
