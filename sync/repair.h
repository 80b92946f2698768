/* repair: what makes the local versions and the log fit together again: a damaged spool (PROTOCOL Start), another writer's head (Take-over). Called by the pipeline thread while upload is paused and nothing is
 * being sealed. */
#ifndef YESTER_REPAIR_H
#define YESTER_REPAIR_H

#include "crypt.h"
#include "spool.h"
#include "store.h"
#include "volume.h"

#include <stdbool.h>

/* Takes back every version above seq, which was never confirmed: catalogue, spool rows and files, head. What they held is found again by the next rescan. foreign: numbers given in them may be given to others. */
int repair_rollback(struct volume *volume, struct spool *spool, int64_t seq, bool foreign, struct error *error);

/* Verifies what waits in the spool; rolls back from the first object that is damaged on, unless it is a record that was sent and that the remote has as it was. *rolled_back. As store_get when the
 * remote has to be asked and can't; ERR_FENCED. */
int repair_spool(struct volume *volume, struct store *store, struct spool *spool, bool *rolled_back, struct error *error);

/* Replays the log to its head, after discarding what is not confirmed. Errors as recover_follow. When it is done the local head is the log's, and what others changed counts as not captured.
 * asked: the user wants it (I17), which is kept in the database; else only a head that this directory wrote is taken over, and at another's ERR_FENCED says so after all that, noted as fenced. */
int repair_take_over(struct volume *volume, struct store *store, const struct master *master, struct spool *spool, bool asked,
		     struct error *error);

#endif
