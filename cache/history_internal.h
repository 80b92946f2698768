/* history_internal: between history.c and history_chunks.c. */
#ifndef YESTER_HISTORY_INTERNAL_H
#define YESTER_HISTORY_INTERNAL_H

#include "buf.h"
#include "history.h"

#include <pthread.h>
#include <stdbool.h>

#define AHEAD_BYTES (4 << 20) /* read ahead of a sequential reader */

/* The extents of one window of a file, constant once made. */
struct extent_window {
	int references; /* history_file.lock */
	int64_t from, to;
	struct extent_place *places;
	size_t count;
};

struct piece;

struct history_file {
	struct volume *volume;
	int64_t seq, ino, size; /* constant */
	bool copy_once;         /* constant */
	pthread_mutex_t lock;   /* all below; never held across SQLite, files or the network */
	pthread_cond_t loaded;  /* some piece is no longer PIECE_LOADING */
	int references;         /* the opener's, one for each job that reads ahead */
	bool closed;
	struct extent_window *window; /* the one used last */
	int64_t expected;             /* where a sequential reader goes on */
	int run;                      /* sequential reads so far */
	struct piece *pieces;
	size_t piece_count, piece_bytes;
	uint64_t tick;
	int live_fd;          /* -1: none */
	bool live_tried;
	int live_mismatches;  /* in a row */
};

/* A decoded chunk of an open file:
 *
 *   state     invariant                                  left by
 *   QUEUED    a job of the pool has it; no bytes         piece_claim (job starts, or a reader is faster), job of a closed file
 *   LOADING   one thread loads it, without the lock      piece_finish
 *   READY     bytes are verified and constant            eviction, when nobody holds it
 *   FAILED    error says why; no bytes                   the last holder: the next reader tries again
 */
enum piece_state { PIECE_QUEUED, PIECE_LOADING, PIECE_READY, PIECE_FAILED };
struct piece {
	struct piece *next;
	struct history_file *file;
	struct extent_place place; /* the extent it was wanted for first */
	enum piece_state state;
	int holders;
	uint64_t used;
	struct buf bytes;
	struct error error;
};

/* The chunk behind a place, loaded if need be; piece_release gives it back. */
int piece_hold(struct history_file *file, const struct extent_place *place, struct piece **out, struct error *error);
void piece_release(struct piece *piece);
/* Has the pool load the chunks of places [at, ...) that begin before `to`, as far as that is sensible now. */
void piece_read_ahead(struct history_file *file, const struct extent_window *window, size_t at, int64_t to);
/* Drops the caller's reference to the file; the lock must be held and is given back. The last one frees it. */
void history_unref_unlock(struct history_file *file);
/* The same for what history.c owns. */
void window_put_locked(struct extent_window *window);

#endif
