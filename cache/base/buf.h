/* buf: a growable byte buffer. Zero-initialised is empty and valid. Not thread-safe. */
#ifndef YESTER_BUF_H
#define YESTER_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;   /* owned; NULL when nothing was ever reserved */
	size_t length;   /* bytes in use */
	size_t capacity; /* bytes allocated */
};

/* Makes room for `more` bytes beyond length. 0 or ERR_NOMEM (the buffer is unchanged). */
int buf_reserve(struct buf *buf, size_t more);
/* Appends. 0 or ERR_NOMEM. */
int buf_append(struct buf *buf, const void *data, size_t length);
int buf_append_u8(struct buf *buf, uint8_t value);
int buf_append_u16(struct buf *buf, uint16_t value); /* little-endian, as all our formats */
int buf_append_u32(struct buf *buf, uint32_t value);
int buf_append_u64(struct buf *buf, uint64_t value);
/* The text without its NUL, which nevertheless stands behind it until the next change. */
int buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Keeps the allocation, forgets the content. */
void buf_clear(struct buf *buf);
/* Frees and zeroes the struct. buf_wipe clears the bytes first (secrets; reserve what they need before
 * appending them: growth moves the bytes and leaves a copy behind). */
void buf_free(struct buf *buf);
void buf_wipe(struct buf *buf);

#endif
