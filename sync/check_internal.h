/* check_internal: between check.c (order of things, log), check_local.c (the local database against the log), check_packs.c (presence and content of packs)
 * and check_damage.c (what was found, and whom it concerns). */
#ifndef YESTER_CHECK_INTERNAL_H
#define YESTER_CHECK_INTERNAL_H

#include "recover.h"
#include "unlock.h"

#include <pthread.h>

struct damage {
	char object[RECORD_KEY_BYTES]; /* its key, or "local database" */
	char why[160];
	int64_t pack;    /* all its chunks are damaged; 0: those in chunks */
	int64_t *chunks; /* owned */
	size_t chunk_count;
};

struct checking {
	const struct volume_config *config;
	int percent; /* of the packs to read; 0: none */
	progress_fn *progress; /* NULL: none */
	void (*report)(void *context, const char *line);
	void *context;
	struct check_result *out; /* lock, while the pool runs */

	struct store *store;
	struct volume_descriptor descriptor;
	struct master *master;
	char *dir;             /* temporary, 0700 */
	struct db *work;       /* in dir: the catalogue as the remote has it, and tables check_* of our own */
	struct volume *local;  /* reader; NULL: nothing is known here of this volume */
	struct db *catalogue;  /* work, or the local one where the log is damaged; NULL: none */
	struct recover_head head;

	pthread_mutex_t lock;
	struct damage *damages; /* lock, while the pool runs */
	size_t damage_count;
};

/* Notes a damaged object. pack: all its chunks are concerned; 0: `count` chunks (copied). Thread-safe. 0 or ERR_NOMEM. */
int damage_add(struct checking *checking, const char *object, const char *why, int64_t pack, const int64_t *chunks,
	       size_t count, struct error *error);
/* Reports everything that was noted: a line for each object, then one for each file that it concerns. */
int damage_report(struct checking *checking, struct error *error);
void damage_free(struct checking *checking);

/* Compares what versions up to the smaller of both newest ones hold. before: newest confirmed version, read before the remote was. */
int check_local(struct checking *checking, int64_t before, struct error *error);

/* Every pack of the catalogue is there, in its size; percent > 0: that share of them is read, and every chunk in them opened. */
int check_packs(struct checking *checking, struct error *error);
/* check_packs' second part (check_read.c): reads the packs whose rows are given. */
int check_read(struct checking *checking, const struct pack_row *packs, size_t count, struct error *error);

#endif
