/* contact: is the remote the one that we know, and is our head its head? PROTOCOL Commit 7; faults 6, 22, 30, 31, 46, 55. */
#ifndef YESTER_CONTACT_H
#define YESTER_CONTACT_H

#include "db.h"
#include "digest.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

/* Compares the volume descriptor with our copy of it, looks for log records above `confirmed`, and compares the hash of log/confirmed. `attempted`: log/confirmed+1 may be there and be
 * our own (whoever PUTs it again finds out). Blocks on the network. 0; ERR_FENCED: another writer has added records; ERR_CORRUPT: the remote was emptied, rolled back or replaced;
 * else as store_get. */
int contact_check(struct store *store, struct db *db, int64_t confirmed, const uint8_t hash[SHA256_BYTES], bool attempted,
		  struct error *error);
/* What the remote has under that key. 0: exactly the bytes with that hash and length (then appended to *out, which may be NULL); ERR_ABSENT; ERR_EXISTS: other bytes; else as store_get. */
int contact_compare(struct store *store, const char *key, uint64_t length, const uint8_t hash[SHA256_BYTES], struct buf *out,
		    struct error *error);

#endif
