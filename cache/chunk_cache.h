/* chunk_cache: plaintext chunks lately fetched, on the local disk, bounded: $STATE/NAME/cache/<hh>/<id, 32 hex digits>, 0600 below 0700.
 *
 * Only ever a shortcut: files appear whole (temporary file, rename) but are not synced, so a power cut may leave anything in them; whoever reads verifies by
 * the chunk's id and calls chunk_cache_drop on what is wrong. Nothing here fails an operation: what can't be kept is not kept.
 *
 * Least recently used go first. The order survives in the files' mtimes, roughly. All functions are thread-safe and may wait for the disk. */
#ifndef YESTER_CHUNK_CACHE_H
#define YESTER_CHUNK_CACHE_H

#include "buf.h"
#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define CHUNK_ID_BYTES 16

struct chunk_cache;

/* `path`: the directory, made if it is absent (its parent is there). What it holds is looked at by the first get or put, not here. */
int chunk_cache_open(const char *path, uint64_t limit_bytes, struct chunk_cache **out, struct error *error);
/* NULL is fine. No call may be under way. */
void chunk_cache_close(struct chunk_cache *cache);
/* Appends the chunk's `length` bytes as they are on disk. ERR_ABSENT (also when the file has another length), ERR_NOMEM, ERR_FAILED; then nothing was appended. */
int chunk_cache_get(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES], size_t length, struct buf *out);
/* Keeps a copy, unless the chunk is there, is larger than an eighth of the limit, or the disk has no room for it above its reserve (backing_free_above_reserve). */
void chunk_cache_put(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES], const void *data, size_t length);
void chunk_cache_drop(struct chunk_cache *cache, const uint8_t id[CHUNK_ID_BYTES]);
/* Somebody needs the space more: at least so many bytes go, as far as there are so many. How many went. */
uint64_t chunk_cache_yield(struct chunk_cache *cache, uint64_t bytes);
/* Bytes on disk now, in whole blocks. */
uint64_t chunk_cache_bytes(struct chunk_cache *cache);

#endif
