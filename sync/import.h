/* import: a tree that the catalogue does not know, or a large part of one, batch by batch (PROTOCOL Import): each batch of the backlog becomes an ordinary version that is flagged partial. So progress is durable,
 * memory and the work lost in a crash are bounded by a batch, and a clone made meanwhile gets what is there.
 *
 * Nothing is frozen: a file is stat'ed, read, and stat'ed again; one that changed meanwhile stays in the backlog for another round, and what operations change after it was read is in the journal. */
#ifndef YESTER_IMPORT_H
#define YESTER_IMPORT_H

#include "sealing.h"

struct import { int64_t after_name, after_inode; }; /* where the round stands */

/* The next batch. *more: the round is not at its end. ERR_ABANDONED when the engine stops. */
int import_batch(struct seal_env *env, struct import *import, bool *more, struct error *error);

#endif
