/* writer: whose record is it? A writer id is new at each mount (I16). Its first half is random; the second is a keyed mark of that half, of the directory's identity and of the machine, which only a mount of
 * the same directory on the same machine can make again. So a machine that has lost all it knew can tell its own head from another's (I17), and nobody without the key learns anything from the id. */
#ifndef YESTER_WRITER_H
#define YESTER_WRITER_H

#include "crypt.h"
#include "volume.h"

#include <stdbool.h>

/* The volume's backing must be open. Any thread. */
void writer_new(const struct master *master, struct volume *volume, uint8_t out[CRYPT_ID_BYTES]);
/* Whether an earlier mount of this directory on this machine had that id. */
bool writer_is_ours(const struct master *master, struct volume *volume, const uint8_t id[CRYPT_ID_BYTES]);

#endif
