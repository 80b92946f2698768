/* chunker: where new content is cut into chunks. FastCDC (Xia et al., USENIX ATC 2016, normalised chunking level 2) over a gear table of 256 random
 * 64-bit words expanded from a key (HKDF of the master: chunk sizes leak content otherwise, ePrint 2025/532). */
#ifndef YESTER_CHUNKER_H
#define YESTER_CHUNKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunker; /* read-only after creation: any thread */
/* key: 32 bytes. Sizes are powers of two, min < average < max. NULL: out of memory. */
struct chunker *chunker_new(const uint8_t key[32], uint32_t min, uint32_t average, uint32_t max);
void chunker_free(struct chunker *chunker);
uint32_t chunker_max(const struct chunker *chunker);
/* Length of the first chunk of data[0..length). At least 1 when length > 0. If the end of data is not the end of the content, give at least chunker_max bytes. */
uint32_t chunker_next(const struct chunker *chunker, const void *data, size_t length);
/* True when all bytes are zero (word-wise; length may be anything). */
bool bytes_all_zero(const void *data, size_t length);

#endif
