/* log: one line an event, to stderr in the foreground, to syslog in the daemon (journald reads both).
 * Lower layers return errors; the edge logs them once, with object, attempt and action. Never keys,
 * credentials, plaintext or file contents. Control characters are escaped. Callable from any thread; errno survives.
 * Before log_open: ident "yester", up to LOG_LEVEL_INFO, stderr. */
#ifndef YESTER_LOG_H
#define YESTER_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_NONE = -1, LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `ident` is kept, not copied. to_syslog: syslog(3) instead of stderr. Call before threads start. */
void log_open(const char *ident, enum log_level highest, bool to_syslog);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
