#include "json_field.h"

#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 2048

static const char *skip_blanks(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* Behind the string that begins at `at` (a quotation mark), or NULL. */
static const char *skip_string(const char *at)
{
	for (at++; *at && *at != '"'; at++)
		if (*at == '\\' && !*++at)
			return NULL;
	return *at ? at + 1 : NULL;
}

/* Behind any value, or NULL. Brackets are counted only: that the text is well-formed is for its writer. */
static const char *skip_value(const char *at)
{
	unsigned depth = 0;

	do {
		at = skip_blanks(at);
		if (*at == '"') {
			at = skip_string(at);
		} else if (*at == '{' || *at == '[') {
			depth++;
			at++;
		} else if (*at == '}' || *at == ']') {
			if (depth == 0)
				return NULL;
			depth--;
			at++;
		} else if (*at == ',' || *at == ':') {
			if (depth == 0)
				return NULL;
			at++;
		} else {
			size_t length = strcspn(at, ",:{}[]\" \t\r\n");

			at = length ? at + length : NULL;
		}
	} while (at && depth > 0);
	return at;
}

/* The value of a member of the object at `at`, or NULL. */
static const char *member(const char *at, const char *name, size_t length)
{
	at = skip_blanks(at);
	if (*at++ != '{')
		return NULL;
	for (;;) {
		const char *key = skip_blanks(at), *end;

		if (*key != '"' || !(end = skip_string(key)))
			return NULL;
		at = skip_blanks(end);
		if (*at++ != ':')
			return NULL;
		at = skip_blanks(at);
		if ((size_t)(end - key) == length + 2 && memcmp(key + 1, name, length) == 0)
			return at;
		at = skip_value(at);
		if (!at)
			return NULL;
		at = skip_blanks(at);
		if (*at++ != ',')
			return NULL;
	}
}

static const char *find(const char *json, const char *path)
{
	const char *at = json;

	while (at) {
		size_t length = strcspn(path, ".");

		at = member(at, path, length);
		if (!path[length])
			return at;
		path += length + 1;
	}
	return NULL;
}

/* One character from \uXXXX: those of our own writer are below U+0100 or control characters. */
static size_t put_unicode(const char *digits, char out[4])
{
	char four[5] = "";
	unsigned value;

	strncat(four, digits, 4);
	value = (unsigned)strtoul(four, NULL, 16);
	if (value < 0x80) {
		out[0] = value ? (char)value : ' ';
		return 1;
	}
	if (value < 0x800) {
		out[0] = (char)(0xc0 | value >> 6);
		out[1] = (char)(0x80 | (value & 0x3f));
		return 2;
	}
	out[0] = (char)(0xe0 | value >> 12);
	out[1] = (char)(0x80 | (value >> 6 & 0x3f));
	out[2] = (char)(0x80 | (value & 0x3f));
	return 3;
}

bool json_field_text(const char *json, const char *path, char *out, size_t room)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *at = find(json, path);
	char text[TEXT_BYTES];
	size_t used = 0;

	out[0] = '\0';
	if (!at || *at != '"')
		return false;
	for (at++; *at && *at != '"' && used + 4 < sizeof text; at++) {
		const char *letter;

		if (*at != '\\') {
			text[used++] = *at;
			continue;
		}
		at++;
		letter = *at ? strchr(from, *at) : NULL;
		if (*at == 'u' && strlen(at) >= 5) {
			used += put_unicode(at + 1, text + used);
			at += 4;
		} else if (letter) {
			text[used++] = to[letter - from];
		} else if (*at) {
			text[used++] = *at;
		} else {
			break;
		}
	}
	text[used] = '\0';
	escape_text(out, room, text);
	return true;
}

bool json_field_int(const char *json, const char *path, int64_t *out)
{
	const char *at = find(json, path);
	char *end;

	*out = 0;
	if (!at || (*at != '-' && (*at < '0' || *at > '9')))
		return false;
	errno = 0;
	*out = strtoll(at, &end, 10);
	return errno == 0 && end > at;
}

bool json_field_true(const char *json, const char *path)
{
	const char *at = find(json, path);

	return at && strncmp(at, "true", 4) == 0;
}
