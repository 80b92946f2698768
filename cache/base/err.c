#include "err.h"

#include "bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Longer than a path of PATH_MAX and some words, so that truncation happens once, after escaping. */
#define RAW_BYTES 5120

/* `tail` (may be NULL) survives truncation: the reason matters more than the end of a long path. */
static void fill(struct error *error, int code, int sys_errno, const char *tail, const char *format, va_list args)
{
	char raw[RAW_BYTES];
	size_t room = sizeof error->message;

	if (vsnprintf(raw, sizeof raw, format, args) < 0)
		raw[0] = '\0';
	error->code = code;
	error->sys_errno = sys_errno;
	if (tail)
		room -= strlen(tail) + 2;
	escape_text(error->message, room, raw);
	if (tail) {
		strcat(error->message, ": ");
		strcat(error->message, tail);
	}
}

int error_set(struct error *error, int code, int sys_errno, const char *format, ...)
{
	int saved = errno;
	va_list args;

	if (error) {
		va_start(args, format);
		fill(error, code, sys_errno, NULL, format, args);
		va_end(args);
	}
	errno = saved;
	return code;
}

int error_errno(struct error *error, int sys_errno, const char *format, ...)
{
	int saved = errno;
	int code = error_code_of_errno(sys_errno);
	char scratch[128], tail[128];
	va_list args;

	if (error) {
		escape_text(tail, sizeof tail, strerror_r(sys_errno, scratch, sizeof scratch));
		va_start(args, format);
		fill(error, code, sys_errno, tail, format, args);
		va_end(args);
	}
	errno = saved;
	return code;
}

int error_code_of_errno(int sys_errno)
{
	switch (sys_errno) {
	case ENOENT:
		return ERR_ABSENT;
	case EEXIST:
		return ERR_EXISTS;
	case ENOSPC:
	case EDQUOT:
		return ERR_NOSPACE;
	case ENOMEM:
		return ERR_NOMEM;
	case EACCES:
	case EPERM:
		return ERR_DENIED;
	case EBUSY:
	case EAGAIN:
		return ERR_BUSY;
	default:
		return ERR_FAILED;
	}
}

const char *error_word(int code)
{
	switch (code) {
	case ERR_OK:
		return "ok";
	case ERR_FAILED:
		return "failed";
	case ERR_ABSENT:
		return "absent";
	case ERR_EXISTS:
		return "exists";
	case ERR_CORRUPT:
		return "corrupt";
	case ERR_KEY:
		return "key";
	case ERR_RETRY:
		return "retry";
	case ERR_DENIED:
		return "denied";
	case ERR_FENCED:
		return "fenced";
	case ERR_NOSPACE:
		return "nospace";
	case ERR_NOMEM:
		return "nomem";
	case ERR_TIMEOUT:
		return "timeout";
	case ERR_UNSUPPORTED:
		return "unsupported";
	case ERR_BUSY:
		return "busy";
	case ERR_USAGE:
		return "usage";
	case ERR_ABANDONED:
		return "abandoned";
	default:
		return "unknown";
	}
}
