#include "bytes.h"

#include <string.h>

uint16_t get_u16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t get_u32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t get_u64(const void *p)
{
	const uint8_t *b = p;

	return get_u32(b) | (uint64_t)get_u32(b + 4) << 32;
}

void put_u16(void *p, uint16_t value)
{
	uint8_t *b = p;

	b[0] = (uint8_t)value;
	b[1] = (uint8_t)(value >> 8);
}

void put_u32(void *p, uint32_t value)
{
	uint8_t *b = p;

	put_u16(b, (uint16_t)value);
	put_u16(b + 2, (uint16_t)(value >> 16));
}

void put_u64(void *p, uint64_t value)
{
	uint8_t *b = p;

	put_u32(b, (uint32_t)value);
	put_u32(b + 4, (uint32_t)(value >> 32));
}

void hex_encode(char *out, const void *data, size_t length)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *in = data;

	for (size_t i = 0; i < length; i++) {
		*out++ = digits[in[i] >> 4];
		*out++ = digits[in[i] & 15];
	}
	*out = '\0';
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool hex_decode(void *out, size_t length, const char *text)
{
	uint8_t *to = out;

	for (size_t i = 0; i < length; i++) {
		/* The terminating NUL has no value, so a short text ends here. */
		int high = hex_value(text[2 * i]);
		int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);

		if (low < 0)
			return false;
		to[i] = (uint8_t)(high << 4 | low);
	}
	return text[2 * length] == '\0';
}

size_t base32_encode(char *out, const void *data, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	const uint8_t *in = data;
	uint32_t bits = 0;
	unsigned held = 0;
	size_t written = 0;

	for (size_t i = 0; i < length; i++) {
		bits = bits << 8 | in[i];
		held += 8;
		while (held >= 5) {
			held -= 5;
			out[written++] = digits[bits >> held & 31];
		}
	}
	if (held > 0)
		out[written++] = digits[bits << (5 - held) & 31];
	out[written] = '\0';
	return written;
}

static int base32_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a';
	if (c >= '2' && c <= '7')
		return c - '2' + 26;
	return -1;
}

bool base32_decode(void *out, size_t length, const char *text)
{
	uint8_t *to = out;
	uint32_t bits = 0;
	unsigned held = 0;
	size_t digits = 0, done = 0;

	for (; *text; text++) {
		int value;

		if (*text == '-' || *text == ' ' || *text == '\t' || *text == '\r' || *text == '\n')
			continue;
		value = base32_value(*text);
		if (value < 0)
			return false;
		digits++;
		bits = bits << 5 | (uint32_t)value;
		held += 5;
		if (held >= 8) {
			held -= 8;
			if (done == length)
				return false;
			to[done++] = (uint8_t)(bits >> held);
		}
	}
	/* One spelling for one value: no surplus digit, and the bits that pad the last one are zero. */
	return done == length && digits == (length * 8 + 4) / 5 && (bits & ((1u << held) - 1)) == 0;
}

size_t utf8_length(const void *text, size_t length)
{
	const uint8_t *b = text;
	size_t need;

	if (length == 0)
		return 0;
	if (b[0] < 0x80)
		return 1;
	if (b[0] >= 0xc2 && b[0] <= 0xdf)
		need = 2;
	else if (b[0] >= 0xe0 && b[0] <= 0xef)
		need = 3;
	else if (b[0] >= 0xf0 && b[0] <= 0xf4)
		need = 4;
	else
		return 0;
	if (length < need)
		return 0;
	for (size_t i = 1; i < need; i++)
		if ((b[i] & 0xc0) != 0x80)
			return 0;
	/* RFC 3629, table 3-7 of Unicode: no overlong form, no surrogate, nothing above U+10FFFF. */
	if ((b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xed && b[1] > 0x9f) || (b[0] == 0xf0 && b[1] < 0x90) ||
	    (b[0] == 0xf4 && b[1] > 0x8f))
		return 0;
	return need;
}

size_t escape_text(char *out, size_t room, const char *text)
{
	size_t left = strlen(text), written = 0;

	if (room == 0)
		return 0;
	while (left > 0) {
		size_t step = utf8_length(text, left);
		uint8_t first = (uint8_t)text[0];
		/* C1 controls are U+0080 to U+009F; some terminals obey them. */
		bool control = first < 0x20 || first == 0x7f || (step == 2 && first == 0xc2 && (uint8_t)text[1] < 0xa0);

		if (step == 0 || control) {
			if (written + 4 >= room)
				break;
			out[written++] = '\\';
			out[written++] = 'x';
			hex_encode(out + written, text, 1);
			written += 2;
			step = 1;
		} else {
			if (written + step >= room)
				break;
			memcpy(out + written, text, step);
			written += step;
		}
		text += step;
		left -= step;
	}
	out[written] = '\0';
	return written;
}

const uint8_t *reader_bytes(struct reader *reader, size_t length)
{
	const uint8_t *at = reader->at;

	if (reader->bad || (size_t)(reader->end - at) < length) {
		reader->bad = true;
		return NULL;
	}
	reader->at += length;
	return at;
}

uint8_t reader_u8(struct reader *reader)
{
	const uint8_t *p = reader_bytes(reader, 1);

	return p ? *p : 0;
}

uint16_t reader_u16(struct reader *reader)
{
	const uint8_t *p = reader_bytes(reader, 2);

	return p ? get_u16(p) : 0;
}

uint32_t reader_u32(struct reader *reader)
{
	const uint8_t *p = reader_bytes(reader, 4);

	return p ? get_u32(p) : 0;
}

uint64_t reader_u64(struct reader *reader)
{
	const uint8_t *p = reader_bytes(reader, 8);

	return p ? get_u64(p) : 0;
}
