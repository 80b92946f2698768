/* remote: how cache/ and fs/ get bytes that are only in the remote (implemented by sync/fetch.c, wired by fs/main.c through the volume). */
#ifndef YESTER_REMOTE_H
#define YESTER_REMOTE_H

#include "buf.h"
#include "delta.h"
#include "err.h"

struct remote;
struct remote_ops {
	/* Appends the verified plaintext (chunk->length bytes) of one chunk to out: from the spool if the pack is still there, else from the
	 * store. Waits for the network. Concurrent calls for one chunk make one request, and one for chunks that lie together in a pack. ERR_CORRUPT names the object; ERR_RETRY, ERR_DENIED, ERR_FAILED as store.h. */
	int (*fetch_chunk)(struct remote *, const struct chunk_row *, const struct pack_row *, struct buf *out,
			   struct error *);
	/* 0 when data is exactly that chunk (the keyed hash: only sync holds the key). */
	int (*verify_chunk)(struct remote *, const uint8_t id[16], const void *data, size_t length);
};
struct remote { const struct remote_ops *ops; };

#endif
