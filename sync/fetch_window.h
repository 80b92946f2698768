/* fetch_window: sealed bytes of objects in the store, in ranges that grow as long as what they bring is wanted; for fetch.
 *
 * Files that were written together lie together in a pack, and whoever reads one often reads the next: a restore does. A request for each chunk would cost a round trip for each small file. So
 * there are streams: a read that misses shortly behind the end of what was asked for last in that pack (or in what was left out before it: several threads may read for one reader) continues that stream, with a range twice as long (128 KiB to 4 MiB) while at least
 * half of what it brings is read, and a shorter one otherwise or when one failed; any other read that misses asks for exactly its bytes, and is the beginning of a stream. A stream with ranges of 1 MiB and more
 * has the next ones asked for ahead of its readers, in parallel; one that came to the end of its pack goes on at the beginning of another.
 *
 *   state of a range  meaning                            left by
 *   queued            a thread of the pool will ask      that thread, or a reader that needs it and is faster
 *   flying            one thread asks the store          that thread
 *   landed            its bytes are constant             eviction (the longest unused), when nobody holds it
 *   failed            nobody finds it any more           the last who holds it: the next reader asks anew
 *
 * Memory: 32 MiB in 256 ranges, and what readers hold at the moment. Any thread. */
#ifndef YESTER_FETCH_WINDOW_H
#define YESTER_FETCH_WINDOW_H

#include "buf.h"
#include "crypt.h"
#include "store.h"

#include <stdbool.h>

struct windows;

/* Where a pack lies: object `key`, its bytes [from, to). */
struct window_place {
	const uint8_t *pack_id; /* CRYPT_ID_BYTES */
	const char *key;
	uint64_t from, to;
};

/* store must outlive it. NULL: out of memory. */
struct windows *windows_new(struct store *store);
/* Nobody may be in a call; waits for requests in flight. NULL is fine. */
void windows_free(struct windows *windows);
/* What a read gives; all zero before. */
struct window_bytes {
	const uint8_t *data;
	struct range *range; /* data lies in it; NULL: in own */
	struct buf own;
};
/* The object's bytes [offset, offset + length), which lie in the pack; to be given back with windows_release, also after a failure. Errors as store_get, ERR_NOMEM. What fails may be a neighbour: after
 * ERR_CORRUPT or ERR_ABSENT it makes sense to ask the store for these bytes alone. */
int windows_read(struct windows *windows, const struct window_place *place, uint64_t offset, size_t length, struct window_bytes *out,
		 struct error *error);
void windows_release(struct windows *windows, struct window_bytes *bytes);

#endif
