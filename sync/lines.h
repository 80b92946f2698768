/* lines: strict reader of the small text objects of a volume (key.h): lines of `name value`, in a fixed order. Internal to descriptor.c and key.c. */
#ifndef YESTER_LINES_H
#define YESTER_LINES_H

#include "key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINES_MAX_NAMES 16

struct lines {
	char text[KEY_TEXT_MAX_BYTES + 1];   /* names and values, NUL-terminated in place */
	const char *values[LINES_MAX_NAMES]; /* as the names given; NULL: absent */
	bool unknown;                        /* there was a line with a name that is not among them */
};

/* Splits. `names`: in the order wanted, ended by NULL; a '?' in front: the line may be absent. False: malformed, a line missing, twice, or out
 * of order; values of the lines before that are set nevertheless, so that a caller can look at the format number. */
bool lines_read(struct lines *lines, const char *const *names, const void *text, size_t length);
/* Canonical decimal. */
bool lines_number(const char *value, uint64_t *number);
/* Exactly `length` bytes in lower-case hex. */
bool lines_hex(const char *value, void *out, size_t length);

#endif
