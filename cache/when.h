/* when: points in time as people write them, always UTC. Pure, thread-safe. Used by `--at`, `.snapshots` and messages.
 *
 *   2026-11-20T08-14-07Z   canonical name of a version (UTC, no colons)
 *   2026-11-20T08:14:07Z, 2026-11-20 08:14:07, 2026-11-20T08:14   (Z may stand or not, T or a blank; a missing part means its end: the last second of that minute)
 *   2026-11-20             end of that UTC day
 *   @GMT-2026.11.20-08.14.07   Samba
 *   @1763626447            seconds since 1970
 *   10s-ago 10m-ago 2h-ago 3d-ago 1w-ago, now, latest
 */
#ifndef YESTER_WHEN_H
#define YESTER_WHEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum when_kind { WHEN_BAD, WHEN_TIME, WHEN_RELATIVE, WHEN_LATEST };

/* What `text` says; *seconds, set for two kinds only (WHEN_TIME, WHEN_RELATIVE: now_s minus the distance) is the second at or before which the version is wanted. Impossible dates
 * (month 13, 30 February, hour 24) are WHEN_BAD. Years 1970 to 9999. */
enum when_kind when_parse(const char *text, int64_t now_s, int64_t *seconds);
/* True when text is the canonical name form exactly; then *seconds is set. */
bool when_is_canonical(const char *text, int64_t *seconds);
#define WHEN_NAME_BYTES 40
/* Canonical name, NUL-terminated; clamped to the years 1970 to 9999. */
void when_name(char out[WHEN_NAME_BYTES], int64_t seconds);

#endif
