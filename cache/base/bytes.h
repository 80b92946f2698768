/* bytes: little-endian integers, hexadecimal, base32, safe text, and a bounded reader for hostile bytes.
 * All functions are pure; thread-safe. */
#ifndef YESTER_BYTES_H
#define YESTER_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint16_t get_u16(const void *p);
uint32_t get_u32(const void *p);
uint64_t get_u64(const void *p);
void put_u16(void *p, uint16_t value);
void put_u32(void *p, uint32_t value);
void put_u64(void *p, uint64_t value);

/* out has 2 * length + 1 bytes; lower case, NUL-terminated. */
void hex_encode(char *out, const void *data, size_t length);
/* Exactly `length` bytes from 2 * length lower- or upper-case digits; false on anything else. */
bool hex_decode(void *out, size_t length, const char *text);

/* RFC 4648 base32 without padding, upper case. Returns characters written, out has room for
 * (length * 8 + 4) / 5 + 1. */
size_t base32_encode(char *out, const void *data, size_t length);
/* Ignores '-' and blanks, accepts lower case. Exactly `length` bytes, padding bits zero, or false (out is then undefined). */
bool base32_decode(void *out, size_t length, const char *text);

/* Bytes of the well-formed UTF-8 character (RFC 3629) at the start of text, 0 when there is none or length is 0. */
size_t utf8_length(const void *text, size_t length);
/* Copies what a terminal and a log can show: control characters (C0, DEL, C1) and bytes that are no UTF-8 become \xNN.
 * Cuts between characters to fit `room` with its NUL. Returns the length written. out and text don't overlap. */
size_t escape_text(char *out, size_t room, const char *text);

/* A cursor over bytes that somebody else wrote: a read beyond the end sets `bad` and yields 0. */
struct reader {
	const uint8_t *at, *end;
	bool bad;
};
uint8_t reader_u8(struct reader *reader);
uint16_t reader_u16(struct reader *reader);
uint32_t reader_u32(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
/* Pointer into the bytes, or NULL (and bad). */
const uint8_t *reader_bytes(struct reader *reader, size_t length);

#endif
