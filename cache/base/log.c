#include "log.h"

#include "bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* Set by log_open before threads start, read-only afterwards. */
static const char *log_ident = "yester";
static enum log_level log_highest = LOG_LEVEL_INFO;
static bool log_syslog;

void log_open(const char *ident, enum log_level highest, bool to_syslog)
{
	log_ident = ident;
	log_highest = highest;
	log_syslog = to_syslog;
	if (to_syslog)
		openlog(ident, LOG_PID, LOG_DAEMON);
}

/* One write(2) a line, so that lines of several threads and processes don't mix. */
static void emit_stderr(enum log_level level, const char *text)
{
	static const char *const words[] = { "", "warning: ", "", "debug: " };
	char line[4300];
	int length = snprintf(line, sizeof line, "%s: %s%s\n", log_ident, words[level], text);

	if (length < 0)
		return;
	if ((size_t)length >= sizeof line) {
		length = sizeof line - 1;
		line[length - 1] = '\n';
	}
	while (write(STDERR_FILENO, line, (size_t)length) < 0 && errno == EINTR)
		;
}

static void emit(enum log_level level, const char *format, va_list args)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	int saved = errno;
	char raw[4096], text[4096];

	if (level > log_highest)
		return;
	if (vsnprintf(raw, sizeof raw, format, args) < 0)
		return;
	escape_text(text, sizeof text, raw);
	if (log_syslog)
		syslog(priorities[level], "%s", text);
	else
		emit_stderr(level, text);
	errno = saved;
}

#define DEFINE_LOG(function, level) \
	void function(const char *format, ...) \
	{ \
		va_list args; \
\
		va_start(args, format); \
		emit(level, format, args); \
		va_end(args); \
	}

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)
