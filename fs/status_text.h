/* status_text: `status` for people, out of what status_json.h wrote. */
#ifndef YESTER_STATUS_TEXT_H
#define YESTER_STATUS_TEXT_H

#include "buf.h"

#include <stdbool.h>
#include <stdint.h>

/* Appends some lines. now_s: for "12 s ago". 0 or ERR_NOMEM. */
int status_text(const char *json, int64_t now_s, bool color, struct buf *out);

#endif
