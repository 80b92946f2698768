/* json_field: reads single values out of a JSON object (RFC 8259), for the human side of `status`. Pure, thread-safe.
 * `path` names a member, or one of a member object ("requests.put"). */
#ifndef YESTER_JSON_FIELD_H
#define YESTER_JSON_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False: no such member, null, or another type; the output is then "" or 0. Text that does not fit is cut off; control characters and what is no
 * UTF-8 are escaped as for a terminal. */
bool json_field_text(const char *json, const char *path, char *out, size_t room);
bool json_field_int(const char *json, const char *path, int64_t *out);
/* False also when the member is false or absent. */
bool json_field_true(const char *json, const char *path);

#endif
