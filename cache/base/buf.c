#include "buf.h"

#include "bytes.h"
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64

int buf_reserve(struct buf *buf, size_t more)
{
	size_t need, capacity = buf->capacity ? buf->capacity : FIRST_CAPACITY;
	uint8_t *data;

	if (__builtin_add_overflow(buf->length, more, &need) || need > PTRDIFF_MAX)
		return ERR_NOMEM;
	if (need <= buf->capacity)
		return 0;
	while (capacity < need)
		capacity = capacity > PTRDIFF_MAX / 2 ? need : capacity * 2;
	data = realloc(buf->data, capacity);
	if (!data)
		return ERR_NOMEM;
	buf->data = data;
	buf->capacity = capacity;
	return 0;
}

int buf_append(struct buf *buf, const void *data, size_t length)
{
	int rc = buf_reserve(buf, length);

	if (rc < 0)
		return rc;
	if (length > 0)
		memcpy(buf->data + buf->length, data, length);
	buf->length += length;
	return 0;
}

int buf_append_u8(struct buf *buf, uint8_t value)
{
	return buf_append(buf, &value, 1);
}

int buf_append_u16(struct buf *buf, uint16_t value)
{
	uint8_t bytes[2];

	put_u16(bytes, value);
	return buf_append(buf, bytes, sizeof bytes);
}

int buf_append_u32(struct buf *buf, uint32_t value)
{
	uint8_t bytes[4];

	put_u32(bytes, value);
	return buf_append(buf, bytes, sizeof bytes);
}

int buf_append_u64(struct buf *buf, uint64_t value)
{
	uint8_t bytes[8];

	put_u64(bytes, value);
	return buf_append(buf, bytes, sizeof bytes);
}

int buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int length, rc;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0)
		return ERR_NOMEM;
	rc = buf_reserve(buf, (size_t)length + 1);
	if (rc < 0)
		return rc;
	va_start(args, format);
	vsnprintf((char *)buf->data + buf->length, (size_t)length + 1, format, args);
	va_end(args);
	buf->length += (size_t)length;
	return 0;
}

void buf_clear(struct buf *buf)
{
	buf->length = 0;
}

void buf_free(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf){ 0 };
}

void buf_wipe(struct buf *buf)
{
	if (buf->data)
		explicit_bzero(buf->data, buf->capacity);
	buf_free(buf);
}
