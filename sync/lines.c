#include "lines.h"

#include "bytes.h"

#include <string.h>

static bool copy_text(struct lines *lines, const void *text, size_t length)
{
	const char *bytes = text;

	memset(lines, 0, sizeof(*lines));
	if (length == 0 || length > KEY_TEXT_MAX_BYTES || bytes[length - 1] != '\n')
		return false;
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != '\n' && (bytes[i] < 0x20 || bytes[i] > 0x7e))
			return false;
	memcpy(lines->text, bytes, length);
	return true;
}

/* Cuts the line at *at into name and value, and moves on. */
static bool split(char **at, const char **name, const char **value)
{
	char *end = strchr(*at, '\n'), *blank;

	*end = '\0';
	blank = strchr(*at, ' ');
	if (!blank || blank == *at || blank[1] == '\0' || blank[1] == ' ' || end[-1] == ' ')
		return false;
	*blank = '\0';
	*name = *at;
	*value = blank + 1;
	*at = end + 1;
	return true;
}

static bool is_optional(const char *name)
{
	return name[0] == '?';
}

static const char *bare(const char *name)
{
	return name + is_optional(name);
}

bool lines_read(struct lines *lines, const char *const *names, const void *text, size_t length)
{
	const char *name, *value;
	char *at = lines->text;
	size_t next = 0, i;

	if (!copy_text(lines, text, length))
		return false;
	while (*at) {
		/* Nothing comes after the last line: a descriptor's mac covers what is before it. */
		if (!names[next] || !split(&at, &name, &value))
			return false;
		for (i = 0; names[i] && strcmp(bare(names[i]), name) != 0; i++)
			;
		if (!names[i]) {
			lines->unknown = true;
			continue;
		}
		for (; next < i; next++)
			if (!is_optional(names[next]))
				return false;
		if (i < next)
			return false;
		lines->values[next++] = value;
	}
	for (; names[next]; next++)
		if (!is_optional(names[next]))
			return false;
	return true;
}

bool lines_number(const char *value, uint64_t *number)
{
	uint64_t result = 0;

	if (value[0] == '\0' || (value[0] == '0' && value[1] != '\0'))
		return false;
	for (; *value; value++) {
		if (*value < '0' || *value > '9' || __builtin_mul_overflow(result, 10, &result) ||
		    __builtin_add_overflow(result, (uint64_t)(*value - '0'), &result))
			return false;
	}
	*number = result;
	return true;
}

bool lines_hex(const char *value, void *out, size_t length)
{
	return strlen(value) == 2 * length && strspn(value, "0123456789abcdef") == 2 * length &&
	       hex_decode(out, length, value);
}
