/* checkpointer: writes a checkpoint of the catalogue when the log has grown enough (PROTOCOL Checkpoint, I18), in a thread of its own that otherwise sleeps.
 *
 * The checkpoint in force is meta base_*: records written from then on name it. Besides: log_bytes, the size of the confirmed records since; base_bytes, the size of the last checkpoint. */
#ifndef YESTER_CHECKPOINTER_H
#define YESTER_CHECKPOINTER_H

#include "crypt.h"
#include "store.h"
#include "volume.h"

struct checkpointer;

int checkpointer_start(struct volume *volume, struct store *store, const struct master *master, struct checkpointer **out,
		       struct error *error);
/* Head was confirmed: looks whether it is time. Any thread, doesn't block. */
void checkpointer_poke(struct checkpointer *checkpointer);
/* Until one that was begun, if any, is complete, at most so long. */
void checkpointer_wait(struct checkpointer *checkpointer, int64_t wait_ns);
/* Joins (store_cancel shortens what is in flight), frees. NULL is fine. */
void checkpointer_stop(struct checkpointer *checkpointer);

#endif
