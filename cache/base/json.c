#include "json.h"

#include "bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "yester: json: %s\n", what);
	abort();
}

static void put(struct json *json, const void *data, size_t length)
{
	if (json->rc == 0)
		json->rc = buf_append(json->out, data, length);
}

static void put_word(struct json *json, const char *word)
{
	put(json, word, strlen(word));
}

/* For control characters and for bytes that are no UTF-8; also for DEL and C1, which some terminals obey. */
static void put_escape(struct json *json, unsigned code)
{
	char escape[8];

	snprintf(escape, sizeof escape, "\\u%04x", code & 0xff);
	put(json, escape, 6);
}

static void put_character(struct json *json, const uint8_t *at, size_t step)
{
	if (*at == '"' || *at == '\\') {
		char escape[2] = { '\\', (char)*at };

		put(json, escape, 2);
	} else if (*at == '\n') {
		put(json, "\\n", 2);
	} else if (*at == '\t') {
		put(json, "\\t", 2);
	} else if (step == 0 || *at < 0x20 || *at == 0x7f) {
		put_escape(json, *at);
	} else if (step == 2 && at[0] == 0xc2 && at[1] < 0xa0) {
		put_escape(json, at[1]);
	} else {
		put(json, at, step);
	}
}

static void put_quoted(struct json *json, const void *text, size_t length)
{
	const uint8_t *at = text;

	put(json, "\"", 1);
	while (length > 0) {
		size_t step = utf8_length(at, length);

		put_character(json, at, step);
		step = step ? step : 1;
		at += step;
		length -= step;
	}
	put(json, "\"", 1);
}

/* What stands before every value. */
static void begin_value(struct json *json, const char *key)
{
	require(json->in_object[json->depth] == (key != NULL), key ? "a key outside of an object" : "a value without a key in an object");
	require(json->depth > 0 || !json->has_items[0], "two values at the top");
	if (json->has_items[json->depth])
		put(json, ",", 1);
	json->has_items[json->depth] = true;
	if (key) {
		put_quoted(json, key, strlen(key));
		put(json, ":", 1);
	}
}

static void begin(struct json *json, const char *key, bool object)
{
	begin_value(json, key);
	require(json->depth < JSON_DEEPEST, "nested too deeply");
	put(json, object ? "{" : "[", 1);
	json->depth++;
	json->in_object[json->depth] = object;
	json->has_items[json->depth] = false;
}

static void end(struct json *json, bool object)
{
	require(json->depth > 0 && json->in_object[json->depth] == object, "an end without its begin");
	put(json, object ? "}" : "]", 1);
	json->depth--;
}

void json_begin_object(struct json *json, const char *key)
{
	begin(json, key, true);
}

void json_end_object(struct json *json)
{
	end(json, true);
}

void json_begin_array(struct json *json, const char *key)
{
	begin(json, key, false);
}

void json_end_array(struct json *json)
{
	end(json, false);
}

void json_string(struct json *json, const char *key, const char *text)
{
	if (text)
		json_string_n(json, key, text, strlen(text));
	else
		json_null(json, key);
}

void json_string_n(struct json *json, const char *key, const void *text, size_t length)
{
	begin_value(json, key);
	put_quoted(json, text, length);
}

void json_int(struct json *json, const char *key, int64_t value)
{
	char digits[24];

	begin_value(json, key);
	snprintf(digits, sizeof digits, "%" PRId64, value);
	put_word(json, digits);
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
	char digits[24];

	begin_value(json, key);
	snprintf(digits, sizeof digits, "%" PRIu64, value);
	put_word(json, digits);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin_value(json, key);
	put_word(json, value ? "true" : "false");
}

void json_null(struct json *json, const char *key)
{
	begin_value(json, key);
	put_word(json, "null");
}

int json_finish(struct json *json)
{
	require(json->depth == 0 && json->has_items[0], "something is still open, or nothing was written");
	return json->rc;
}
