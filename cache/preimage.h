/* preimage: bytes that an operation saved before it changed a frozen range (I4). They need not survive a crash (I6).
 *
 * The first PREIMAGE_MEMORY bytes stay in memory; what goes beyond is appended to an unlinked file in the state directory, as long as the filesystem has room above its
 * reserve (I13). When neither has room, the caller abandons the cut. Any thread. */
#ifndef YESTER_PREIMAGE_H
#define YESTER_PREIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PREIMAGE_MEMORY (INT64_C(32) << 20)

struct preimage_store;
struct preimage; /* one saved run of bytes */

struct preimage_store *preimage_store_new(const char *state_path);
void preimage_store_free(struct preimage_store *store);
/* Copies. NULL: no room, or out of memory. */
struct preimage *preimage_put(struct preimage_store *store, const void *data, size_t length);
/* Bytes [offset, offset + length) of it. false: the spilled file could not be read. */
bool preimage_get(struct preimage_store *store, const struct preimage *preimage, size_t offset, void *out, size_t length);
void preimage_free(struct preimage_store *store, struct preimage *preimage);
uint64_t preimage_bytes(struct preimage_store *store);

#endif
