/* json: writes one JSON text (RFC 8259) into a buffer, without blanks. Not thread-safe.
 *
 * Each value takes the key that it has in its object, NULL in an array and at the top. Commas are its own business. Running out of
 * memory is remembered: write on, and ask json_finish once.
 *
 *	struct json json = { .out = &buf };
 *	json_begin_object(&json, NULL);
 *	json_string(&json, "state", "synced");
 *	json_end_object(&json);
 *	rc = json_finish(&json);
 */
#ifndef YESTER_JSON_H
#define YESTER_JSON_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEEPEST 32

struct json {
	struct buf *out;                  /* borrowed; appended to */
	int rc;                           /* 0 or ERR_NOMEM */
	unsigned depth;                   /* open objects and arrays */
	bool in_object[JSON_DEEPEST + 1]; /* whether the one at this depth is an object */
	bool has_items[JSON_DEEPEST + 1]; /* whether a comma is due */
};

/* Nesting deeper than JSON_DEEPEST, a key in an array, a value without one in an object, and an end without its begin abort: mistakes in our code. */
void json_begin_object(struct json *json, const char *key);
void json_end_object(struct json *json);
void json_begin_array(struct json *json, const char *key);
void json_end_array(struct json *json);

/* NULL text becomes null. A byte 0xXX that is no UTF-8 (a file name may be anything) becomes \u00XX, the character with that
 * number: readable, always valid JSON, but not to be told from a name that has this very character. */
void json_string(struct json *json, const char *key, const char *text);
void json_string_n(struct json *json, const char *key, const void *text, size_t length);
/* Readers that keep numbers as doubles (JavaScript) lose the low bits beyond 2^53. */
void json_int(struct json *json, const char *key, int64_t value);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

/* Everything is closed (else aborts). 0 or ERR_NOMEM (what is in the buffer is then cut off somewhere). */
int json_finish(struct json *json);

#endif
